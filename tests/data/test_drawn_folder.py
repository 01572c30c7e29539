"""`get synthetic DIR`: a whole data set or nothing, the same from any number of processes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from hf_detr_ft.data.checks.coco_checks import check_coco, check_splits
from hf_detr_ft.data.coco import read_coco
from hf_detr_ft.data.drawn_folder import write_drawn_folder
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.synthetic import image_set as synthetic_photos
from hf_detr_ft.synthetic.render import VALIDATION_START, render

CLASSES = ["star", "balloon", "cone"]
SIDE = (96, 120)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "deep" / "data"
    assert write_drawn_folder(root, 21, seed=1, classes=CLASSES, short_side=SIDE, workers=1)
    return root


def test_the_folder_is_sound_coco(written: Path):
    splits = {}
    for split, count in (("train", 21), ("val", 4)):
        file, images = written / "annotations" / f"custom_{split}.json", written / f"{split}2017"
        splits[split] = coco = read_coco(file)
        assert len(coco["images"]) == len(list(images.iterdir())) == count
        assert coco["categories"] == [{"id": i, "name": n} for i, n in enumerate(("balloon", "star", "cone"), 1)]
        assert [a["id"] for a in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
        assert all(a["iscrowd"] == 0 and a["segmentation"] for a in coco["annotations"])
        problems = check_coco(coco, file, images)
        assert not [problem for problem in problems if (split, problem.kind) != ("val", "unused-category")]
    assert not check_splits(splits["train"], written / "train2017", splits["val"], written / "val2017")
    assert list(written.parent.iterdir()) == [written]


def test_the_photos_are_those_of_their_indices(written: Path):
    for split, index in (("train", 3), ("val", VALIDATION_START + 2)):
        coco = json.loads((written / "annotations" / f"custom_{split}.json").read_text())
        photo = render(index, seed=1, classes=CLASSES, short_side=SIDE)
        entry = next(image for image in coco["images"] if image["id"] == index)
        assert (entry["height"], entry["width"]) == photo.image.shape[:2]
        boxes = [a["bbox"] for a in coco["annotations"] if a["image_id"] == index]
        assert boxes == [list(thing.box_xywh_px) for thing in photo.objects]
        jpeg = cv2.imread(str(written / f"{split}2017" / entry["file_name"]))[..., ::-1]
        assert np.abs(jpeg.astype(int) - photo.image).mean() < 8


def test_the_number_of_processes_changes_no_byte(written: Path, tmp_path: Path):
    lines = write_drawn_folder(tmp_path / "two", 21, 4, seed=1, classes=CLASSES, short_side=SIDE, workers=2)
    assert contents(tmp_path / "two") == contents(written)
    assert "train: 21 images" in lines[0] and "val: 4 images" in lines[1]


def test_another_seed_gives_other_photos_and_fewer_are_the_first_ones(written: Path, tmp_path: Path):
    write_drawn_folder(tmp_path / "few", 2, 1, seed=1, classes=CLASSES, short_side=SIDE, workers=1)
    write_drawn_folder(tmp_path / "other", 2, 1, seed=2, classes=CLASSES, short_side=SIDE, workers=1)
    few, other, many = contents(tmp_path / "few"), contents(tmp_path / "other"), contents(written)
    for name in (f"train2017/{1:012d}.jpg", f"val2017/{VALIDATION_START:012d}.jpg"):
        assert few[name] == many[name] != other[name]


def test_an_empty_folder_is_filled_and_others_are_left_alone(tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_drawn_folder(folder, 1, 1, short_side=SIDE, workers=1)
    before = contents(folder)
    (tmp_path / "file").write_text("mine")
    for taken in (folder, tmp_path / "file"):
        with pytest.raises(DataError, match=f"{taken.name}: expected a new or empty folder"):
            write_drawn_folder(taken, 1, 1, short_side=SIDE, workers=1)
    assert contents(folder) == before and (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "file"]


def test_nothing_is_left_when_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(index: int, **options: object):
        if index == 2:
            raise KeyboardInterrupt
        return render(index, **options)

    monkeypatch.setattr(synthetic_photos, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_drawn_folder(tmp_path / "data", 4, 1, short_side=SIDE, workers=1)
    assert not list(tmp_path.iterdir())


def test_all_wrong_arguments_are_named_at_once(tmp_path: Path):
    with pytest.raises(RecipeError) as caught:
        write_drawn_folder(tmp_path / "data", 0, -1, seed=-3, short_side=(300, 200), workers=0)
    text = str(caught.value)
    assert all(name in text for name in ("images: ", "val_images: ", "seed: ", "short_side: ", "workers: "))
    assert "short_side: expected least and largest, 32 pixels or more, found 300 200" in text
    with pytest.raises(RecipeError, match="expected some of balloon, .*found 'dog'"):
        write_drawn_folder(tmp_path / "data", classes=["dog"])
    with pytest.raises(RecipeError, match="at most 1000000000"):
        write_drawn_folder(tmp_path / "data", VALIDATION_START + 1)
    assert not list(tmp_path.iterdir())
