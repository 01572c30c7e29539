"""The nuclei of the Data Science Bowl: boxes and polygons of drawn masks, from a folder and from an archive."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hf_detr_ft.cli import main
from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.formats import balloon_archive, nucleus_archive
from hf_detr_ft.data.formats.nucleus_archive import split_images, write_nucleus_folder
from hf_detr_ft.errors import DataError

SIDE = 48


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def masks_of(index: int) -> list[np.ndarray]:
    """A rectangle, a ring, one pixel in the corner, and a mask that is empty."""
    masks = [np.zeros((SIDE, SIDE), np.uint8) for _ in range(4)]
    masks[0][3:11, 5 : 17 + index] = 255
    masks[1][20:40, 20:40] = 255
    masks[1][28:32, 28:32] = 0
    masks[2][SIDE - 1, SIDE - 1] = 255
    return masks


def members(images: int = 5, prefix: str = "") -> dict[str, bytes]:
    """Files of a small data set of the layout."""
    found = {}
    for index in range(images):
        name = f"{prefix}{index:02x}ab"
        found[f"{name}/images/{index:02x}ab.png"] = png(np.full((SIDE, SIDE, 4), 40 + 40 * index, np.uint8))
        found |= {f"{name}/masks/{n}.png": png(mask) for n, mask in enumerate(masks_of(index))}
    return found


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def unpacked(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def refused(root: Path, source: Path) -> str:
    with pytest.raises(DataError) as caught:
        write_nucleus_folder(root, source)
    assert not root.exists()
    assert not list(root.parent.glob(".*")), "something was left behind"
    return str(caught.value)


def test_masks_become_boxes_and_polygons(tmp_path: Path) -> None:
    source = unpacked(tmp_path / "stage1_train", members())
    assert write_nucleus_folder(tmp_path / "data", source) == [
        f"{tmp_path}/data train: 4 images, 12 objects (nucleus 12); 12 small, 0 medium, 0 large",
        f"{tmp_path}/data val: 1 images, 3 objects (nucleus 3); 3 small, 0 medium, 0 large",
    ]
    for split in ("train", "val"):
        path = tmp_path / "data" / "annotations" / f"custom_{split}.json"
        coco = json.loads(path.read_text())
        assert coco["categories"] == [{"id": 1, "name": "nucleus"}]
        problems = check_coco(coco, path, tmp_path / "data" / f"{split}2017")
        assert problems == []
        for image in coco["images"]:
            index = int(image["file_name"][:2], 16)
            own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
            assert [a["bbox"] for a in own] == [
                [5, 3, 12 + index, 8],
                [20, 20, 20, 20],
                [SIDE - 1, SIDE - 1, 1, 1],
            ]
            for annotation, mask in zip(own, masks_of(index), strict=False):
                assert annotation["area"] == np.count_nonzero(mask)
                drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], SIDE, SIDE)))
                assert np.array_equal(drawn, mask // 255)
            written = tmp_path / "data" / f"{split}2017" / image["file_name"]
            assert written.read_bytes() == members()[f"{index:02x}ab/images/{index:02x}ab.png"]


def test_an_archive_gives_the_same_with_and_without_a_folder_around_it(tmp_path: Path) -> None:
    write_nucleus_folder(tmp_path / "from_folder", unpacked(tmp_path / "raw", members()))
    extra = {"__MACOSX/00ab/images/._00ab.png": b"x", "stage1_train/readme.txt": b"x"}
    for number, files in enumerate((members(), {**members(prefix="stage1_train/"), **extra})):
        (tmp_path / "a.zip").write_bytes(zipped(files))
        write_nucleus_folder(tmp_path / f"from_zip_{number}", tmp_path / "a.zip")
        assert content(tmp_path / f"from_zip_{number}") == content(tmp_path / "from_folder")


def test_validation_is_a_fifth_whatever_the_order() -> None:
    names = [f"{index:04x}" for index in range(200)]
    splits = split_images(dict.fromkeys(names))
    assert splits == split_images(dict.fromkeys(reversed(names)))
    assert (len(splits["train"]), len(splits["val"])) == (160, 40)
    assert sorted(splits["train"] + splits["val"]) == names
    assert [len(names) for names in split_images(dict.fromkeys("ab")).values()] == [1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"../../evil/images/evil.png": b"x", "../../evil/masks/0.png": b"x"}, "evil: "),
        ({"a b/images/a b.png": b"x", "a b/masks/0.png": b"x"}, "'a b': expected a name of letters, digits, - and _"),
        ({"00ab/images/second.png": b"x"}, "'00ab': expected one PNG in images, found 2"),
        ({"new/images/new.png": png(np.zeros((4, 4), np.uint8))}, "'new': expected PNGs in masks, found none"),
        ({"00ab/images/00ab.png": b"no image"}, "00ab: "),
        ({"00ab/masks/0.png": png(np.zeros((4, 5), np.uint8))}, "expected masks of 48 x 48 pixels, found 5 x 4"),
    ],
)
def test_what_is_not_the_data_set_is_refused_and_leaves_nothing(
    change: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({**members(), **change}))
    assert message in refused(tmp_path / "in" / "data", tmp_path / "a.zip")
    assert not list(tmp_path.rglob("*evil*"))


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    assert "of two images or more, found 0" in refused(tmp_path / "in" / "data", tmp_path / "empty")
    assert "no such file or folder" in refused(tmp_path / "in" / "data", tmp_path / "nothing")
    (tmp_path / "a.zip").write_bytes(zipped(members())[:-50])
    assert "expected a whole zip archive" in refused(tmp_path / "in" / "data", tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(zipped(members()))
    monkeypatch.setattr(balloon_archive, "MAX_BYTES", 100)
    assert "its members hold more than 100 bytes" in refused(tmp_path / "in" / "data", tmp_path / "a.zip")


def test_get_downloads_or_takes_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    monkeypatch.setattr(
        nucleus_archive, "download", lambda url, elsewhere: (asked.append((url, elsewhere)), zipped(members()))[1]
    )
    assert main(["get", "nucleus", str(tmp_path / "data")]) == 0
    assert f"train nucleus --data.root {tmp_path / 'data'}" in capsys.readouterr().out
    assert asked == [(nucleus_archive.URL, nucleus_archive.ELSEWHERE)]
    assert main(["get", "nucleus", str(tmp_path / "data")]) == 0
    assert "complete already" in capsys.readouterr().out
    source = unpacked(tmp_path / "raw", members())
    assert main(["get", "nucleus", str(tmp_path / "again"), "--from", str(source)]) == 0
    assert content(tmp_path / "again") == content(tmp_path / "data")
    assert len(asked) == 1
