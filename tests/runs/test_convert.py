"""`convert via SRC DST`: what is written, what is printed, and what is refused."""

import json
from pathlib import Path

import pytest
from PIL import Image

from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.runs.convert import convert

EXIF_ORIENTATION = 0x0112


def entry(name: str, *sides: int, kind: str = "disc") -> dict:
    shapes = [{"name": "rect", "x": 1, "y": 2, "width": side, "height": side} for side in sides]
    regions = [{"shape_attributes": shape, "region_attributes": {"kind": kind}} for shape in shapes]
    return {name: {"filename": name, "size": -1, "regions": regions, "file_attributes": {}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photos of 300x200, the second turned by EXIF, and `via_region_data.json` with 2 + 2 objects."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (300, 200)).save(folder / "plain.jpg")
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.new("RGB", (300, 200)).save(folder / "turned.jpg", exif=exif)
    via = {**entry("plain.jpg", 31, 32), **entry("turned.jpg", 95, 96, kind="box")}
    (folder / "via_region_data.json").write_text(json.dumps(via))
    return folder


def refused(error: type[Exception], *arguments: object, **options: object) -> str:
    with pytest.raises(error) as caught:
        convert(*arguments, **options)  # type: ignore[arg-type]
    return str(caught.value)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_folder_to_json(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    destination = tmp_path / "new" / "annotations" / "custom.json"
    assert convert("via", folder, destination, class_attribute="kind") == 0
    coco = json.loads(destination.read_text())
    assert [(i["file_name"], i["height"], i["width"]) for i in coco["images"]] == [
        ("plain.jpg", 200, 300),
        ("turned.jpg", 300, 200),
    ]
    assert coco["categories"] == [{"id": 1, "name": "box"}, {"id": 2, "name": "disc"}]
    assert files(destination.parent) == {"custom.json"}
    counts = "2 images, 4 objects (box 2, disc 2); 1 small, 2 medium, 1 large"
    assert capsys.readouterr().out == f"{destination}: {counts}\n"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_upright_image_in_a_png_too(orientation: int, folder: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.new("RGB", (300, 200)).save(folder / "turned.png", exif=exif)
    (folder / "via_region_data.json").write_text(json.dumps(entry("turned.png", 31)))
    convert("via", folder, tmp_path / "a.json")
    (image,) = json.loads((tmp_path / "a.json").read_text())["images"]
    assert (image["height"], image["width"]) == ((300, 200) if orientation > 4 else (200, 300))


def test_one_class_says_which_attributes_it_ignores(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert("via", folder / "via_region_data.json", tmp_path / "a.json", class_name="thing")
    out = capsys.readouterr().out
    assert "4 objects (thing 4)" in out
    assert "Their attributes were ignored: kind; name one to use it." in out


def test_photos_elsewhere(folder: Path, tmp_path: Path) -> None:
    via = folder / "via_region_data.json"
    moved = via.rename(tmp_path / "via.json")
    assert convert("via", moved, tmp_path / "out.json", images=folder) == 0
    assert "no such folder; expected the photos" in refused(
        DataError, "via", moved, tmp_path / "b.json", images=tmp_path / "nowhere"
    )


def test_categories_of_the_training_split_are_kept(folder: Path, tmp_path: Path) -> None:
    train, val = tmp_path / "train.json", tmp_path / "val.json"
    convert("via", folder, train, class_attribute="kind")
    (folder / "via_region_data.json").write_text(json.dumps(entry("plain.jpg", 5)))
    convert("via", folder, val, class_attribute="kind", categories_from=train)
    coco = json.loads(val.read_text())
    assert coco["categories"] == json.loads(train.read_text())["categories"]
    assert coco["annotations"][0]["category_id"] == 2


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"categories": []},
        {"categories": [{"id": "1", "name": "a"}]},
        {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
        {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]},
        {"categories": [{"id": 1, "name": {}}]},
    ],
)
def test_categories_that_are_none(folder: Path, tmp_path: Path, content: object) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    message = refused(DataError, "via", folder, tmp_path / "a.json", class_attribute="kind", categories_from=other)
    assert message.startswith(f"{other}: 'categories' must be a list")


def test_existing_destination_is_kept_unless_asked(folder: Path, tmp_path: Path) -> None:
    destination = tmp_path / "a.json"
    destination.write_text("mine")
    assert "exists already" in refused(DataError, "via", folder, destination)
    assert destination.read_text() == "mine"
    convert("via", folder, destination, overwrite=True)
    assert len(json.loads(destination.read_text())["images"]) == 2


def test_failed_conversion_leaves_the_destination(folder: Path, tmp_path: Path) -> None:
    destination = tmp_path / "a.json"
    destination.write_text("mine")
    (folder / "plain.jpg").unlink()
    (folder / "turned.jpg").write_bytes(b"no photo")
    message = refused(DataError, "via", folder, destination, overwrite=True)
    assert message.startswith(f"{folder / 'via_region_data.json'}: 2 problems")
    assert f"entry 'plain.jpg': {folder / 'plain.jpg'}: expected an image, found no such file" in message
    assert f"entry 'turned.jpg': {folder / 'turned.jpg'}: expected an image, found a file in no format" in message
    assert destination.read_text() == "mine"
    assert files(tmp_path) == {"photos", "a.json"}


def test_source_is_never_overwritten(folder: Path) -> None:
    via = folder / "via_region_data.json"
    before = via.read_bytes()
    assert "is the source itself" in refused(DataError, "via", folder, via, overwrite=True)
    assert "is a folder" in refused(DataError, "via", folder, folder, overwrite=True)
    assert via.read_bytes() == before


def test_failed_write_leaves_nothing_beside(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    message = refused(DataError, "via", folder, tmp_path / "a.json")
    assert message == f"{tmp_path / 'a.json'}: cannot be written: No space left on device"
    assert files(tmp_path) == {"photos"}


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/secret.jpg", "C:\\secret.jpg", "a\\..\\..\\secret.jpg"])
def test_photo_names_that_leave_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.jpg")
    (folder / "via_region_data.json").write_text(json.dumps(entry(name, 5)))
    assert f"must lie in {folder}" in refused(DataError, "via", folder, tmp_path / "a.json")


@pytest.mark.parametrize("name", ["x" * 5000 + ".jpg", "\ud800.jpg", "."])
def test_photo_names_no_file_system_takes(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / "via_region_data.json").write_text(json.dumps(entry(name, 5)))
    assert "1 problem, nothing was converted" in refused(DataError, "via", folder, tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a JSON file in UTF-8: Expecting value"),
        (b'{"a": ', "not a JSON file in UTF-8"),
        (b"\xff\xd8\xff", "not a JSON file in UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b"1" * 5000, "not a JSON file in UTF-8"),
        (b'{"images": [], "annotations": []}', "COCO, which needs no conversion"),
    ],
)
def test_source_that_is_not_via(folder: Path, tmp_path: Path, content: bytes, expected: str) -> None:
    via = folder / "via_region_data.json"
    via.write_bytes(content)
    message = refused(DataError, "via", folder, tmp_path / "a.json")
    assert message.startswith(f"{via}: ")
    assert expected in message


def test_byte_order_mark_is_fine(folder: Path, tmp_path: Path) -> None:
    via = folder / "via_region_data.json"
    via.write_bytes(b"\xef\xbb\xbf" + via.read_bytes())
    assert convert("via", folder, tmp_path / "a.json") == 0


def test_missing_source(tmp_path: Path) -> None:
    assert "no such file" in refused(DataError, "via", tmp_path / "nowhere.json", tmp_path / "a.json")
    assert f"{tmp_path / 'via_region_data.json'}: no such file" in refused(
        DataError, "via", tmp_path, tmp_path / "a.json"
    )


def test_arguments_that_make_no_sense(folder: Path, tmp_path: Path) -> None:
    assert "unknown format 'yolo9'; expected one of: coco, yolo" in refused(
        RecipeError, "yolo9", folder, tmp_path / "a.json"
    )
    message = refused(RecipeError, "via", folder, tmp_path / "a.json", class_attribute="kind", class_name="disc")
    assert "exclude each other" in message
    assert "required: destination" in refused(RecipeError, None, Path("via"), tmp_path / "a.json")
    assert "belong to a destination that ends in .json" in refused(
        RecipeError, None, folder, tmp_path / "new", class_name="disc"
    )
    assert "name a new folder" in refused(RecipeError, "csv", folder, tmp_path / "a.json")


@pytest.mark.parametrize("split", ["train", "val"])
def test_balloon(balloon: Path, split: str, tmp_path: Path) -> None:
    via = balloon / "via" / f"via_region_data_{split}.json"
    destination = tmp_path / "custom.json"
    convert("via", via, destination, images=balloon / f"{split}2017", class_name="balloon")
    ours = json.loads(destination.read_text())
    reference = json.loads((balloon / "annotations" / f"custom_{split}.json").read_text())

    def sizes(coco: dict) -> list:
        return [(image["file_name"], image["height"], image["width"]) for image in coco["images"]]

    assert sizes(ours) == sizes(reference)
    assert [a["bbox"] for a in ours["annotations"]] == [a["bbox"] for a in reference["annotations"]]
