import builtins
import copy
import io
import os
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.dataset import FEATURES, iterate_column, limit_coco, load_split, most_objects, prepare_coco
from hf_detr_ft.errors import DataError, RecipeError

COCO: dict[str, Any] = {
    "images": [
        {"id": 900_000_000_001, "file_name": "a.jpg", "height": 50, "width": 100},
        {"id": 0, "file_name": "deep/b.png", "height": 100, "width": 80},
        {"id": 7, "file_name": "c.jpg", "height": 60, "width": 60},
        {"id": 3, "file_name": "ü d.jpg", "height": 60, "width": 90},
    ],
    "annotations": [
        {"id": 5, "image_id": 7, "category_id": 1000, "bbox": [1, 2, 3, 4], "area": 5.5, "iscrowd": 0},
        {"id": 0, "image_id": 900_000_000_001, "category_id": 0, "bbox": [1.25, 2.5, 30, 40]},
        {"id": 9, "image_id": 7, "category_id": 7, "bbox": [0, 0, 60, 60], "area": 3600, "iscrowd": 1},
        {"id": 2, "image_id": 7, "category_id": 7, "bbox": [0, 0, 1, 1], "area": 1},
        {"id": 3, "image_id": 0, "category_id": 7, "bbox": [0, 0, 80, 80], "area": 1, "iscrowd": 1},
    ],
    "categories": [{"id": 1000, "name": "far"}, {"id": 0, "name": "zero"}, {"id": 7, "name": "seven"}],
}


def load(coco: dict = COCO) -> Dataset:
    return load_split(coco, Path("photos"), LabelMap.from_coco(coco))


def test_a_row_for_each_image_in_the_order_of_the_file() -> None:
    dataset = load()
    assert dataset.features == FEATURES
    assert dataset["image_id"][:] == [900_000_000_001, 0, 7, 3]
    assert dataset["file_name"][:] == ["a.jpg", "deep/b.png", "c.jpg", "ü d.jpg"]
    assert dataset["aspect_ratio"][:] == pytest.approx([2.0, 0.8, 1.0, 1.5])
    assert dataset[1]["image"] == {"bytes": None, "path": str(Path("photos", "deep", "b.png"))}


def test_objects_keep_their_boxes_and_get_labels_without_crowd() -> None:
    objects = load()["objects"][:]
    assert objects[2] == {"bbox": [[1, 2, 3, 4], [0, 0, 1, 1]], "label": [2, 1], "area": [5.5, 1]}
    assert objects[0] == {"bbox": [[1.25, 2.5, 30, 40]], "label": [0], "area": [1200]}
    assert objects[1] == objects[3] == {"bbox": [], "label": [], "area": []}


def test_whole_numbers_that_fp32_has_not_exactly_are_taken() -> None:
    large = {"id": 1, "image_id": 7, "category_id": 7, "bbox": [0, 0, 2**24 + 1, 1], "area": 2**24 + 1}
    objects = load({**COCO, "annotations": [large, {**large, "iscrowd": 1}]})["objects"][2]
    assert objects["bbox"] == [[0, 0, 2**24, 1]] and objects["area"] == [2**24]


def test_crowd_is_apart() -> None:
    assert load()["crowd"][:] == [[], [[0, 0, 80, 80]], [[0, 0, 60, 60]], []]


def test_what_a_run_needs_has_right_areas_and_no_outlines() -> None:
    square = {"segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]], "bbox": [0, 0, 10, 10]}
    coco = {**COCO, "annotations": [{**entry, **square} for entry in COCO["annotations"]]}
    before = copy.deepcopy(coco)
    prepared = prepare_coco(coco, None)
    assert [entry["area"] for entry in prepared["annotations"]] == [100] * len(coco["annotations"])
    assert not any("segmentation" in entry for entry in prepared["annotations"])
    assert prepare_coco(coco, 1)["images"] == limit_coco(coco, 1)["images"] != prepared["images"]
    assert coco == before


def test_a_column_in_pieces_is_the_column(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load().with_transform(lambda rows: pytest.fail("the transform decodes images"))
    for window in (1, 3, 4, 64):
        monkeypatch.setattr("hf_detr_ft.data.dataset.WINDOW", window)
        assert list(iterate_column(dataset, "image_id")) == [900_000_000_001, 0, 7, 3]


def test_the_coco_dict_stays_as_it_is() -> None:
    coco = copy.deepcopy(COCO)
    load(coco)
    limit_coco(coco, 1)
    assert coco == COCO


def test_a_category_that_the_map_lacks_is_named() -> None:
    coco = {**COCO, "categories": COCO["categories"][:2]}
    with pytest.raises(DataError, match="category id 7 is unknown"):
        load(coco)


def test_a_path_that_leaves_the_folder_is_refused() -> None:
    coco = {**COCO, "images": [{**COCO["images"][0], "file_name": "../a.jpg"}], "annotations": []}
    with pytest.raises(DataError, match=r"\.\./a\.jpg"):
        load(coco)


def test_no_images_are_no_rows() -> None:
    dataset = load({**COCO, "images": [], "annotations": []})
    assert len(dataset) == 0
    assert dataset.features == FEATURES
    assert most_objects(dataset) == (0, "")


def test_a_limit_takes_the_first_images_that_have_objects() -> None:
    limited = limit_coco(COCO, 1)
    assert [image["id"] for image in limited["images"]] == [900_000_000_001]
    assert [annotation["id"] for annotation in limited["annotations"]] == [0]
    assert limited["categories"] == COCO["categories"]
    limited = limit_coco(COCO, 2)
    assert [image["id"] for image in limited["images"]] == [900_000_000_001, 7]
    assert [annotation["id"] for annotation in limited["annotations"]] == [5, 0, 9, 2]
    assert limit_coco(COCO, 99)["images"] == limited["images"]
    assert limit_coco(COCO, None) is COCO


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(RecipeError, match=f"expected at least 1 image, found {limit}"):
        limit_coco(COCO, limit)


def test_most_objects_names_the_image() -> None:
    assert most_objects(load()) == (2, "c.jpg")


def test_20000_images_are_loaded_without_opening_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 480, "width": 640} for n in range(20_000)]
    annotations = [
        {"id": n, "image_id": n // 2, "category_id": 7, "bbox": [n % 600, 0, 10, 10], "area": 100}
        for n in range(40_000)
    ]
    for n in (0, 19_999):
        (tmp_path / f"{n}.jpg").write_bytes(b"not an image")
    opened: list[str] = []

    def watch(module: Any) -> None:
        real = module.open
        monkeypatch.setattr(module, "open", lambda file, *a, **k: (opened.append(str(file)), real(file, *a, **k))[1])

    for module in (builtins, io, os):
        watch(module)
    coco = {"images": images, "annotations": annotations, "categories": COCO["categories"]}
    dataset = load_split(coco, tmp_path, LabelMap.from_coco(coco))
    last = dataset[19_999]
    assert len(dataset) == 20_000
    assert last["image"]["path"] == str(tmp_path / "19999.jpg")
    assert last["objects"]["bbox"] == [[398, 0, 10, 10], [399, 0, 10, 10]]
    assert most_objects(dataset) == (2, "0.jpg")
    assert [path for path in opened if path.startswith(str(tmp_path))] == []
    Path(last["image"]["path"]).read_bytes()
    assert len([path for path in opened if path.startswith(str(tmp_path))]) == 1
