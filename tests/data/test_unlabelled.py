import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import DataConfig
from tests.fixtures import draw_split, plain_image, write_coco_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Splits in folders of their own, and two more images in training's, one of them turned."""
    root = write_coco_folder(tmp_path)
    (root / "train2017" / "more").mkdir()
    plain_image(48, 64, seed=8).save(root / "train2017" / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    plain_image(48, 64, seed=9).save(root / "train2017" / "more" / "b.jpg", exif=exif)
    (root / "train2017" / "notes.txt").write_text("no image")
    return root


def test_they_are_left_out_and_that_is_said(root: Path) -> None:
    splits = load_splits(DataConfig(root=str(root)))
    assert len(splits.train) == 4
    assert splits.notes[0].startswith(f"2 images in {root / 'train2017'} that ")
    assert "ignored; with data.unlabelled background" in splits.notes[0]


def test_they_train_as_background_where_that_is_asked_for(root: Path) -> None:
    splits = load_splits(DataConfig(root=str(root), unlabelled="background"))
    assert [len(splits.train), len(splits.val)] == [6, 2]
    rows = splits.train.select([4, 5])
    assert rows["file_name"][:] == ["a.png", "more/b.jpg"]
    assert rows["original_size"][:] == [[48, 64], [64, 48]]
    assert rows["image_id"][:] == [104, 105]
    assert all(row["label"] == [] for row in rows["objects"])
    assert "background, trained as without objects" in splits.notes[0]


def test_they_are_refused_where_that_is_asked_for(root: Path) -> None:
    with pytest.raises(DataError, match=r"found 2 that it does not: a.png, more/b.jpg. Annotate or remove them"):
        load_splits(DataConfig(root=str(root), unlabelled="refuse"))


def test_images_of_the_other_split_in_the_same_folder_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    fields: dict[str, Any] = {"root": str(tmp_path), "train_images": "images", "val_images": "images"}
    for split, seed in (("train", 1), ("val", 2)):
        (tmp_path / "annotations").mkdir(exist_ok=True)
        path = tmp_path / "annotations" / f"custom_{split}.json"
        path.write_text(json.dumps(draw_split(folder, [(48, 64)] * 3, seed=seed)))
    assert load_splits(DataConfig(**fields, unlabelled="refuse")).notes == ()
    plain_image(48, 64, seed=9).save(folder / "new.jpg")
    assert len(load_splits(DataConfig(**fields, unlabelled="background")).train) == 4
