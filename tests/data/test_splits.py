import gc
import hashlib
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from hf_detr_ft.data import split_source, splits
from hf_detr_ft.data.checks.problems import Problem, list_problems
from hf_detr_ft.data.dataset import prepare_coco
from hf_detr_ft.data.splits import check_data, load_splits
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.recipe.sections import DataConfig
from tests.fixtures import CLASSES, write_coco_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco_folder(tmp_path / "data")


def change(root: Path, split: str, edit: Any) -> dict:
    """Rewrites a split's JSON after `edit(coco)`."""
    path = root / "annotations" / f"custom_{split}.json"
    coco = json.loads(path.read_text())
    edit(coco)
    path.write_text(json.dumps(coco))
    return coco


def test_both_splits_of_a_recipe(root: Path) -> None:
    splits = load_splits(DataConfig(root=str(root)))
    assert [len(splits.train), len(splits.val)] == [4, 2]
    assert splits.label_map.category_ids == (3, 7)
    assert splits.label_map.names == CLASSES
    assert splits.train[0]["image"]["path"] == str(root / "train2017" / "01_000.jpg")
    assert splits.val[1]["image"]["path"] == str(root / "val2017" / "02_001.jpg")
    assert splits.truth == prepare_coco(json.loads((root / "annotations" / "custom_val.json").read_text()), None)
    assert {name: split.images for name, split in splits.statistics.items()} == {"training": 4, "validation": 2}
    assert [problem for problem in splits.problems if problem.severity == "error"] == []
    assert splits.fingerprints == {
        f"annotations/custom_{split}.json": hashlib.sha256(
            (root / "annotations" / f"custom_{split}.json").read_bytes()
        ).hexdigest()
        for split in ("train", "val")
    }


def test_annotations_are_not_kept_once_they_are_rows(root: Path) -> None:
    """Nothing that grows by kilobytes with every training image may stay until the end of a training."""

    def edit(coco: dict) -> None:
        points = [value for x in range(200) for value in (x % 17 + 0.5, x % 13 + 0.25)]
        for image in list(coco["images"]):
            for n in range(100):
                id_ = image["id"] * 1000 + n
                name = f"{id_}.jpg"
                (root / "train2017" / name).hardlink_to(root / "train2017" / image["file_name"])
                coco["images"].append({**image, "id": id_, "file_name": name})
                entry = {"id": 100_000 + id_, "image_id": id_, "category_id": 7, "bbox": [0, 0, 17, 13]}
                coco["annotations"].append({**entry, "area": 200, "segmentation": [points], "iscrowd": 0})

    load_splits(DataConfig(root=str(root)))  # what is kept of first calls is not the data's
    held = []
    for change_first in (False, True):
        if change_first:
            coco = change(root, "train", edit)
        tracemalloc.start()
        splits = load_splits(DataConfig(root=str(root)))
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert len(splits.train) == len(coco["images"]) == 404
    assert (held[1] - held[0]) / 400 < 1000, "bytes an image"


def test_truth_keeps_crowd_and_gets_right_areas_and_rows_get_neither_crowd_nor_wrong_areas(root: Path) -> None:
    def edit(coco: dict) -> None:
        first, second = coco["annotations"][:2]
        x, y, w, h = first["bbox"]
        first |= {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]], "area": 1}
        second["iscrowd"] = 1

    coco = change(root, "val", edit)
    w, h = coco["annotations"][0]["bbox"][2:]
    splits = load_splits(DataConfig(root=str(root)))
    assert splits.truth["annotations"][0]["area"] == w * h
    assert splits.truth["annotations"][1]["iscrowd"] == 1
    assert sum(len(row["label"]) for row in splits.val["objects"]) == len(coco["annotations"]) - 1
    assert splits.val[0]["objects"]["area"][0] == w * h
    assert "area" in [problem.kind for problem in splits.problems]


def test_labels_are_those_of_training_in_both_splits(root: Path) -> None:
    def edit(coco: dict) -> None:
        coco["categories"].append({"id": 1, "name": "new"})
        coco["annotations"].append({**coco["annotations"][0], "id": 99, "category_id": 1})

    change(root, "train", edit)
    splits = load_splits(DataConfig(root=str(root)))
    assert splits.label_map.names == ("new", *CLASSES)
    labels = [label for row in splits.val["objects"] for label in row["label"]]
    assert labels == [{3: 1, 7: 2}[annotation["category_id"]] for annotation in splits.truth["annotations"]]
    assert "category-not-in-validation" in [problem.kind for problem in splits.problems]


def test_limits_hold_for_rows_and_truth_alike(root: Path) -> None:
    splits = load_splits(DataConfig(root=str(root), train_limit=2, val_limit=1))
    assert [len(splits.train), len(splits.val), len(splits.truth["images"])] == [2, 1, 1]
    assert {annotation["image_id"] for annotation in splits.truth["annotations"]} == {100}
    with pytest.raises(RecipeError, match="found 0"):
        load_splits(DataConfig(root=str(root), val_limit=0))


def test_all_errors_of_both_splits_stop_it_at_once(root: Path) -> None:
    change(root, "train", lambda coco: coco["annotations"][0].update(image_id=5))
    change(root, "val", lambda coco: coco["annotations"][0].update(category_id=5))
    (root / "val2017" / "02_001.jpg").unlink()
    with pytest.raises(DataError) as error:
        load_splits(DataConfig(root=str(root)))
    lines = str(error.value).splitlines()
    assert lines[0] == "3 errors in the data:"
    assert sorted(line.split("]")[0] for line in lines[1:]) == [
        "error [missing-image",
        "error [unknown-category",
        "error [unknown-image",
    ]


def test_an_annotation_file_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.json"):
        load_splits(DataConfig(root=str(root), val_annotations="annotations/nothing.json"))


def test_paths_are_relative_to_the_root_or_absolute_and_take_the_home_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(load_splits(DataConfig(root="~/data")).train) == 4
    absolute = DataConfig(root="elsewhere", **paths(root))
    assert len(load_splits(absolute).train) == 4
    monkeypatch.chdir(root)
    assert len(load_splits(DataConfig()).train) == 4


def paths(root: Path) -> dict[str, str]:
    folders = {f"{split}_images": str(root / f"{split}2017") for split in ("train", "val")}
    return folders | {f"{split}_annotations": f"{root}/annotations/custom_{split}.json" for split in ("train", "val")}


def test_truncated_images_are_found_where_they_are_decoded(root: Path) -> None:
    path = root / "train2017" / "01_002.jpg"
    path.write_bytes(path.read_bytes()[:-500])
    config = DataConfig(root=str(root))
    _, quick = check_data(config, decode=False)
    assert [problem for problem in quick if problem.severity == "error"] == []
    sources, problems = check_data(config, decode=True)
    assert [problem.kind for problem in problems if problem.severity == "error"] == ["unreadable-image"]
    assert problems[0].file == str(path)
    assert {split: len(source.coco["images"]) for split, source in sources.items()} == {"train": 4, "val": 2}


def test_errors_come_first_and_none_twice(root: Path) -> None:
    change(root, "train", lambda coco: coco["categories"].append({"id": 1, "name": "unused"}))
    change(root, "val", lambda coco: coco["annotations"][0].update(category_id=5))
    config = DataConfig(root=str(root))
    _, problems = check_data(config, decode=False)
    severities = [problem.severity for problem in problems]
    assert severities == sorted(severities)
    assert {"error", "warning"} == set(severities)
    assert len(set(problems)) == len(problems)


def test_one_file_for_both_splits_is_checked_and_reported_once(root: Path) -> None:
    change(root, "train", lambda coco: coco["annotations"][0].update(image_id=5))
    config = DataConfig(root=str(root), val_annotations="annotations/custom_train.json", val_images="train2017")
    _, problems = check_data(config, decode=False)
    assert [problem.kind for problem in problems] == ["unknown-image", "same-split"]


def test_progress_sees_every_image_of_both_splits(root: Path) -> None:
    seen: list[int] = []

    def progress(images: Iterable) -> Iterator:
        seen.append(len(list(images)))
        return iter(images)

    load_splits(DataConfig(root=str(root)), progress=progress)
    assert seen == [4, 2]


def test_each_file_is_read_once_and_the_folder_searched_once(root: Path) -> None:
    """Both splits name one folder of images, so that those of one are looked for among the other's, too."""
    config = DataConfig(root=str(root), train_images=".", val_images=".")
    with (
        patch.object(split_source, "read_coco", wraps=split_source.read_coco) as read,
        patch.object(splits, "find_data", wraps=splits.find_data) as searched,
    ):
        check_data(config, decode=None)
    assert (read.call_count, searched.call_count) == (2, 1)


def test_a_long_list_is_cut_short_by_kind() -> None:
    problems = [Problem("error", "a", "f", f"entry {n}", "m", "r") for n in range(23)]
    problems += [Problem("warning", "b", "f", f"entry {n}", "m", "r") for n in range(3)]
    lines = list_problems(problems).splitlines()
    assert len(lines) == 20 + 1 + 3
    assert lines[0] == "error [a] f: entry 0: m; r"
    assert lines[20] == "error [a] … and 3 more of this kind"
    assert lines[21:] == [f"warning [b] f: entry {n}: m; r" for n in range(3)]
    assert list_problems(problems, shown=1).splitlines()[1] == "error [a] … and 22 more of this kind"
    assert list_problems([]) == ""
