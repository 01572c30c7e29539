import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_detr_ft.data.splits import check_data, load_sources, load_splits
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.recipe.sections import DataConfig
from tests.fixtures import draw_split, plain_image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten images of two classes, of training alone."""
    coco = draw_split(tmp_path / "train2017", [(48, 64)] * 10, seed=1, objects=[1] * 10)
    write(tmp_path, coco)
    return tmp_path


def write(root: Path, coco: dict) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "custom_train.json").write_text(json.dumps(coco))


def read(root: Path) -> dict:
    coco: dict = json.loads((root / "annotations" / "custom_train.json").read_text())
    return coco


def validation(root: Path, **fields: Any) -> list[str]:
    """File names of the validation images, all others being those of training."""
    sources = load_sources(DataConfig(root=str(root), **fields))
    train, val = ([image["file_name"] for image in sources[split].coco["images"]] for split in ("train", "val"))
    assert sorted([*train, *val]) == sorted(image["file_name"] for image in read(root)["images"])
    return val


def test_a_split_that_is_missing_is_made_and_said(root: Path) -> None:
    splits = load_splits(DataConfig(root=str(root)))
    assert [len(splits.train), len(splits.val)] == [8, 2]
    assert {annotation["category_id"] for annotation in splits.truth["annotations"]} == {3, 7}
    assert "validation is 20 % of the images of" in splits.notes[0]
    assert splits.record is not None
    assert len(splits.record["training"]) == 8
    assert splits.record["validation"] == validation(root)


def test_a_share_goes_before_a_split_of_its_own(root: Path) -> None:
    write_val = root / "annotations" / "custom_val.json"
    write_val.write_text(json.dumps(draw_split(root / "val2017", [(48, 64)], seed=2)))
    assert load_splits(DataConfig(root=str(root))).record is None
    assert len(validation(root, val_share=0.4)) == 4
    assert len(validation(root, val_annotations=None)) == 2


def test_folds_are_numbered_from_1_and_hold_each_image_once(root: Path) -> None:
    folds = [validation(root, folds=5, fold=fold) for fold in range(1, 6)]
    assert [len(fold) for fold in folds] == [2] * 5
    assert sorted(name for fold in folds for name in fold) == [image["file_name"] for image in read(root)["images"]]


def test_near_duplicates_and_groups_stay_together(root: Path) -> None:
    coco, chosen = read(root), validation(root)
    first = next(image for image in coco["images"] if image["file_name"] in chosen)
    for number in range(3):
        copy = {**first, "id": 900 + number, "file_name": f"copy{number}.jpg"}
        with Image.open(root / "train2017" / first["file_name"]) as photo:
            photo.save(root / "train2017" / copy["file_name"], quality=50 + 10 * number)
        coco["images"].append(copy)
    write(root, coco)
    for fold in (1, 2):
        names = validation(root, folds=2, fold=fold)
        assert {name in names for name in (first["file_name"], "copy0.jpg", "copy1.jpg", "copy2.jpg")} in (
            {True},
            {False},
        )
    for image in coco["images"]:
        image["site"] = first["id"] % 3 if image["id"] >= 900 else image["id"] % 3
    write(root, coco)
    sites = {image["file_name"]: image["site"] for image in coco["images"]}
    folds = [{sites[name] for name in validation(root, folds=3, fold=fold, group_by="site")} for fold in (1, 2, 3)]
    assert sum(len(fold) for fold in folds) <= 3


def test_photos_that_are_all_much_alike_are_divided_by_a_higher_likeness(root: Path) -> None:
    """X-rays, or what one camera sees, would else be one group."""
    generator, coco = np.random.default_rng(0), read(root)
    ramp = np.add.outer(np.arange(48), 2 * np.arange(64)).astype(np.float64)
    for image in coco["images"]:
        detail = np.kron(generator.normal(0, 4, (8, 8)), np.ones((6, 8)))
        Image.fromarray((ramp + detail).clip(0, 255).astype(np.uint8)).save(root / "train2017" / image["file_name"])
    assert len(validation(root)) == 2


def test_what_cannot_be_divided_is_said(root: Path) -> None:
    coco = read(root)
    count = len(coco["images"])
    with pytest.raises(DataError, match=rf"each of {count + 1} folds, found enough for \d+, of {count} images: "):
        validation(root, folds=count + 1, fold=1)  # before hours go into the folds that there are
    for image in coco["images"]:
        image["video_id"] = 7
    write(root, coco)
    with pytest.raises(DataError, match=r"near-duplicates and groups are not divided.*id: each image alone"):
        validation(root)
    assert len(validation(root, group_by="id")) == 2
    with pytest.raises(RecipeError, match=r"data.group_by: .*found 'patient'.*The first entry has id, file_name"):
        validation(root, group_by="patient")


def test_a_record_names_the_images_whatever_comes_to_them(root: Path) -> None:
    config = DataConfig(root=str(root), val_share=0.3)
    record, before = load_splits(config).record, validation(root, val_share=0.3)
    (root / "splits.json").write_text(json.dumps(record))
    coco = read(root)
    coco["images"] += [{**coco["images"][0], "id": 900 + n, "file_name": f"new{n}.jpg"} for n in range(5)]
    for n in range(5):
        plain_image(48, 64, seed=50 + n).save(root / "train2017" / f"new{n}.jpg")
    write(root, coco)
    assert validation(root, val_share=0.3) != before
    assert validation(root, val_share=0.3, split_file="splits.json") == before
    with pytest.raises(RecipeError, match=r"splits made by data.val_share 0.4.* found them made by val_share 0.3"):
        validation(root, val_share=0.4, split_file="splits.json")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no JSON", "cannot read it"),
        ('{"validation": "01_000.jpg"}', 'expected {"validation": [file names]}'),
        ('{"validation": ["01_000.jpg", "gone.jpg"]}', "found 1 that it lacks: gone.jpg"),
        ('{"validation": []}', "expected images for both training and validation, found 10 and 0"),
    ],
)
def test_a_record_that_will_not_do(root: Path, content: str, words: str) -> None:
    (root / "mine.json").write_text(content)
    with pytest.raises(DataError) as error:
        validation(root, split_file="mine.json")
    assert words in str(error.value)


def test_a_problem_is_reported_once_and_by_its_place_in_the_file(root: Path) -> None:
    coco = read(root)
    del coco["annotations"][9]["id"]
    coco["annotations"] += [5, {**coco["annotations"][0], "id": 99, "image_id": 12345}, {"image_id": [1]}]
    write(root, coco)
    _, problems = check_data(DataConfig(root=str(root)), decode=False)
    errors = [problem for problem in problems if problem.severity == "error"]
    assert next(problem.entry for problem in errors if problem.kind == "missing-field") == "annotations[9]"
    assert [problem.entry for problem in errors if problem.kind == "entry"] == ["annotations[10]"]
    assert [problem.kind for problem in errors].count("unknown-image") == 1


def test_a_test_split_is_checked_against_training(root: Path) -> None:
    coco = draw_split(root / "test2017", [(48, 64)] * 2, seed=5)
    coco["images"][1]["file_name"] = "same.jpg"
    (root / "test2017" / "same.jpg").write_bytes((root / "train2017" / "01_000.jpg").read_bytes())
    coco["annotations"][0]["category_id"] = 99
    (root / "annotations" / "test.json").write_text(json.dumps(coco))
    config = DataConfig(root=str(root), test_annotations="annotations/test.json")
    _, problems = check_data(config, decode=False, stride=32)
    kinds = {problem.kind for problem in problems if problem.file.endswith("test.json")}
    assert {"unknown-category", "same-photo"} <= kinds
    with pytest.raises(DataError, match="unknown-category"):
        load_splits(config)
    coco["annotations"] = []
    (root / "annotations" / "test.json").write_text(json.dumps(coco))
    splits = load_splits(config)
    assert splits.test is None
    assert f"{root / 'annotations/test.json'}: no object is annotated, so there is no test split" in splits.notes
