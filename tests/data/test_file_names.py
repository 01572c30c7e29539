"""Names of images that are written in another way than their files: what is meant, and how it is said."""

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.file_names import ImageNames, describe_difference, resolve_file_names
from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import DataConfig
from tests.fixtures import write_coco_folder

KINDS = {
    "slashes": ("cam1/{}.png", "cam1\\{}.png", "slashes"),
    "percent signs": ("my photo {}.png", "my%20photo%20{}.png", "percent signs"),
    "Unicode form": (unicodedata.normalize("NFD", "gr\u00fcn {}.png"), "gr\u00fcn {}.png", "Unicode form"),
    "suffix": ("{}.png", "{}.jpg", "suffix"),
    "case of the suffix": ("{}.PNG", "{}.png", "upper and lower case"),
    "subfolder": ("cam1/{}.png", "{}.png", "folder"),
    "folder too many": ("{}.png", "train/{}.png", "folder"),
    "upload": ("{}.png", "..\\..\\media\\upload\\4\\{}.png", "slashes and folder"),
    "absolute": ("{}.png", "/data/local-files/{}.png", "folder"),
    "server's beginning": ("{}.png", "upload/3/0a1b2c3d-{}.png", "folder and name"),
}
"""Name of a file, its name in the JSON, and the difference."""


def build(folder: Path, kind: str, count: int = 3) -> dict:
    """Images in `folder`/images and their COCO dict with other names."""
    images = []
    for id_ in range(count):
        real, written = (pattern.format(f"{id_:03d}") for pattern in KINDS[kind][:2])
        path = folder / "images" / real
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), "grey").save(path)
        images.append({"id": id_, "file_name": written, "width": 40, "height": 30})
    annotation = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 10, 10], "area": 100.0}
    return {"images": images, "annotations": [annotation], "categories": [{"id": 1, "name": "red"}]}


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_that_was_meant_is_named_and_can_be_read_so(kind: str, tmp_path: Path) -> None:
    coco, images = build(tmp_path, kind), tmp_path / "images"
    problems = check_coco(coco, tmp_path / "a.json", images)
    assert [problem.kind for problem in problems] == [problems[0].kind] * 3
    assert problems[0].kind in ("missing-image", "path-outside")
    for id_, problem in enumerate(problems):
        meant = KINDS[kind][0].format(f"{id_:03d}")
        assert f"write file_name {meant!r}, which is in {images} (difference: {KINDS[kind][2]})" in problem.remedy
        assert "set data.file_names to similar, which finds all 3" in problem.remedy
    resolved = resolve_file_names(coco, images)
    assert check_coco(resolved, tmp_path / "a.json", images) == []
    assert resolved["images"][1] == {**coco["images"][1], "file_name": KINDS[kind][0].format("001")}
    assert coco["images"][1]["file_name"] == KINDS[kind][1].format("001"), "left as it was"


def test_nothing_is_offered_where_one_name_cannot_be_read(tmp_path: Path) -> None:
    coco, images = build(tmp_path, "suffix"), tmp_path / "images"
    (images / "002.png").unlink()
    problems = check_coco(coco, tmp_path / "a.json", images)
    assert "write file_name '000.png'" in problems[0].remedy
    assert not any("data.file_names" in problem.remedy for problem in problems)
    assert problems[2].remedy.startswith("put the file there")
    assert len(check_coco(resolve_file_names(coco, images), tmp_path / "a.json", images)) == 1


def test_nothing_is_offered_where_two_names_mean_one_file(tmp_path: Path) -> None:
    coco, images = build(tmp_path, "suffix"), tmp_path / "images"
    coco["images"][1]["file_name"] = "000.bmp"
    problems = check_coco(coco, tmp_path / "a.json", images)
    assert not any("data.file_names" in problem.remedy for problem in problems)


def test_folders_decide_between_files_of_one_name(tmp_path: Path) -> None:
    for folder in ("a/left", "a/right", "b/left"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").touch()
    names = ImageNames(tmp_path)
    assert names.find("somewhere\\a\\Left\\1.png") == ["a/left/1.png"]
    assert names.find("right/1.jpg") == ["a/right/1.png"]
    assert names.find("left/1.png") == ["a/left/1.png", "b/left/1.png"]
    assert names.find("1.png") == ["a/left/1.png", "a/right/1.png", "b/left/1.png"]
    assert names.find("2.png") == names.find("..") == names.find("") == []


def test_several_that_may_be_meant_are_named(tmp_path: Path) -> None:
    coco, images = build(tmp_path, "subfolder", 1), tmp_path / "images"
    (images / "cam2").mkdir()
    Image.new("RGB", (40, 30), "grey").save(images / "cam2" / "000.png")
    [problem] = check_coco(coco, tmp_path / "a.json", images)
    assert problem.remedy == "write the file_name of the one that is meant: cam1/000.png, cam2/000.png"
    assert resolve_file_names(coco, images) == coco


def test_other_files_and_hidden_ones_are_not_meant(tmp_path: Path) -> None:
    (tmp_path / ".thumbnails").mkdir()
    for name in ("1.txt", "._1.png", ".thumbnails/1.png"):
        (tmp_path / name).touch()
    assert ImageNames(tmp_path).find("1.jpg") == []


def test_two_differences_are_both_named() -> None:
    assert describe_difference("cam\\a%20b.jpg", "a b.PNG") == "slashes and percent signs and folder and suffix"


def test_a_recipe_has_names_read_so(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "data")
    for split in ("train", "val"):
        (root / f"{split}2017" / "deep").mkdir()
        for path in list((root / f"{split}2017").glob("*.jpg")):
            path.rename(path.parent / "deep" / path.name)
    with pytest.raises(DataError, match=r"set data.file_names to similar, which finds all 4"):
        load_splits(DataConfig(root=str(root)))
    splits = load_splits(DataConfig(root=str(root), file_names="similar"))
    paths = [Path(row["image"]["path"]) for split in (splits.train, splits.val) for row in split]
    assert len(paths) == 6
    assert all(path.is_file() and path.parent.name == "deep" for path in paths)
    assert {image["file_name"].split("/")[0] for image in splits.truth["images"]} == {"deep"}
