"""Whatever exporters write is read rightly or named, in every format that can carry it."""

import json
import shutil
import unicodedata
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.dataset import prepare_coco
from hf_detr_ft.data.find_data import NO_DATA
from hf_detr_ft.data.formats.turned import turn_coco, turn_point
from hf_detr_ft.data.images import EXIF_ORIENTATION, decode_rgb, upright_size
from hf_detr_ft.data.split_source import Source, load_source
from hf_detr_ft.data.splits import check_data
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import DataConfig
from tests.data.formats.writers import DRAWN, WRITERS, coco_dict, draw, read_back

pytestmark = pytest.mark.usefixtures("cache_folder")


def read(root: Path, **settings: object) -> Source:
    return load_source(DataConfig(root=str(root), **settings), "train")  # type: ignore[arg-type]


def kinds(source: Source) -> list[str]:
    return [problem.kind for problem in check_coco(source.coco, source.annotations, source.images_dir)]


@pytest.mark.parametrize("area", [0, 1, 0.01, -3])
@pytest.mark.parametrize("outline", [None, []])
def test_areas_that_cannot_be_are_the_boxes(area: float, outline: list | None, tmp_path: Path) -> None:
    draw(tmp_path / "train", "train")
    coco = coco_dict("train")
    for entry in coco["annotations"]:
        entry |= {"area": area, "segmentation": outline}
    (tmp_path / "train.json").write_text(json.dumps(coco))
    source = read(tmp_path)
    areas = [entry["area"] for entry in prepare_coco(source.coco, None)["annotations"]]
    expected = [w * h for image in DRAWN["train"].values() for _, _, _, w, h in image[2]]
    assert areas == pytest.approx([area if box == 1 and 0 < area <= 1 else box for box in expected])
    if area >= 0:
        assert "area-of-box" in kinds(source)


def test_an_area_that_a_mask_may_have_stays(tmp_path: Path) -> None:
    draw(tmp_path / "train", "train")
    coco = coco_dict("train")
    for entry in coco["annotations"]:
        entry["area"] *= 0.4
    (tmp_path / "train.json").write_text(json.dumps(coco))
    source = read(tmp_path)
    assert prepare_coco(source.coco, None)["annotations"][0]["area"] == pytest.approx(48)
    assert "area-of-box" not in kinds(source)


@pytest.mark.parametrize(
    "sizes", [{}, {"width": -1, "height": -1}, {"width": 0, "height": None}, {"width": "", "height": 0}]
)
def test_sizes_that_are_missing_are_read_from_the_images(sizes: dict, tmp_path: Path) -> None:
    draw(tmp_path / "train", "train")
    coco = coco_dict("train")
    for image in coco["images"]:
        del image["width"], image["height"]
        image |= sizes
    (tmp_path / "train.json").write_text(json.dumps(coco))
    source = read(tmp_path)
    assert read_back({"train": source.coco}) == {"train": DRAWN["train"]}
    assert source.notes[-1] == "width and height of 4 images were read from the files: none was written"
    assert "missing-field" not in kinds(source)


def test_a_size_of_zero_in_pascal_voc_is_read_from_the_image(tmp_path: Path) -> None:
    WRITERS["voc"][0](tmp_path)
    for path in (tmp_path / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<width>40</width>", "<width>0</width>"))
    assert read_back({"train": read(tmp_path).coco})["train"]["a.png"][:2] == (40, 30)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("name", ["coco", "voc", "via_1", "via_csv", "labelme", "createml", "csv", "imagefolder"])
def test_text_in_other_encodings(name: str, encoding: str, tmp_path: Path) -> None:
    WRITERS[name][0](tmp_path)
    for path in (p for p in tmp_path.rglob("*") if p.suffix in (".json", ".xml", ".csv", ".jsonl")):
        text = path.read_text().replace("mug", "möwe")
        head = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig").removesuffix("-le")}"?>'
        path.write_bytes(((head if path.suffix == ".xml" else "") + text).encode(encoding))
    if name == "voc" and encoding == "utf-16-le":
        return  # XML in UTF-16 has a mark
    assert {category["name"] for category in read(tmp_path).coco["categories"]} == {"cone", "möwe"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_point_is_turned_as_the_pixels_are(orientation: int, tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[4:9, 6:16] = 255
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(decode_rgb(tmp_path / "a.png"))[..., 0] > 0
    rows, columns = np.flatnonzero(upright.any(axis=1)), np.flatnonzero(upright.any(axis=0))
    corners = [turn_point(*point, 30, 20, orientation) for point in ((6, 4), (16, 9))]
    xs, ys = zip(*corners, strict=True)
    assert (min(xs), max(xs), min(ys), max(ys)) == (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1)


TURNED = ["coco", "yolo", "voc", "via_1", "labelme", "createml", "openimages", "csv", "csv_relative", "imagefolder"]


@pytest.mark.parametrize("name", TURNED)
def test_labels_drawn_on_unturned_pixels_are_turned_in_every_format(name: str, tmp_path: Path) -> None:
    """All eight orientations, the square image among them, which no size tells of."""
    WRITERS[name][0](tmp_path)
    sides = {}
    for number, path in enumerate(sorted(tmp_path.rglob("*.png"))):
        orientation = {"a": 6, "b": 3, "c": 8, "d": 5, "e": 7, "f": 2}[path.stem]
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        with Image.open(path) as image:
            image.save(path, exif=exif)
        sides[path.name] = (upright_size(path), orientation)
        assert number < 6
    back = read_back({"train": read(tmp_path, exif="stored").coco})["train"]
    for file_name, (width, height, boxes) in DRAWN["train"].items():
        (upright_height, upright_width), orientation = sides[file_name]
        assert back[file_name][:2] == (upright_width, upright_height)
        for (label, x, y, w, h), found in zip(boxes, back[file_name][2], strict=True):
            corners = [turn_point(*point, width, height, orientation) for point in ((x, y), (x + w, y + h))]
            left, top = (min(values) for values in zip(*corners, strict=True))
            assert found[0] == label
            assert found[1:3] == pytest.approx((left, top), abs=1e-3)
            assert found[3:] == pytest.approx((h, w) if orientation > 4 else (w, h), abs=1e-3)


def test_labels_on_unturned_pixels_are_named_with_the_setting(tmp_path: Path) -> None:
    WRITERS["coco"][0](tmp_path)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    with Image.open(tmp_path / "train2017/a.png") as image:
        image.save(tmp_path / "train2017/a.png", exif=exif)
    source = read(tmp_path)
    [problem] = [p for p in check_coco(source.coco, source.annotations, source.images_dir) if p.severity == "error"]
    assert problem.kind == "exif-rotation"
    assert "which data.exif does where it is stored" in problem.remedy
    turned = read(tmp_path, exif="stored")
    assert "boxes of 1 image were turned with the photos (1 of orientation 6)" in turned.notes
    assert not [p for p in check_coco(turned.coco, turned.annotations, turned.images_dir) if p.severity == "error"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["coco", "voc", "labelme", "yolo", "createml", "openimages", "via_1"])
def test_what_nothing_tells_of_turned_photos_is_named(name: str, orientation: int, tmp_path: Path) -> None:
    """Sizes that are stated tell of quarter turns alone, and half of the formats state none."""
    WRITERS[name][0](tmp_path)
    [path] = list(tmp_path.rglob("a.png"))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    with Image.open(path) as image:
        image.save(path, exif=exif)
    said = (
        "EXIF turns 1 photo, and no size in the annotations tells what boxes are of: taken as drawn on upright photos"
    )
    for choice in ("upright", "stored"):
        sources, problems = check_data(DataConfig(root=str(tmp_path), exif=choice), decode=False)
        named = [problem.kind for problem in problems if problem.kind.startswith("exif")]
        named += [said] if any(note.startswith(said) for note in sources["train"].notes) else []
        if choice == "stored" or orientation == 1:
            assert named == []
        elif name in ("coco", "voc", "labelme"):
            assert named == ["exif-rotation" if orientation > 4 else "exif-orientation"]
        else:
            assert named == ([] if orientation > 4 else ["exif-orientation"]) + [said]


def test_outlines_are_turned_and_broken_entries_stay(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 3
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png", exif=exif)
    images = [
        {"id": 1, "file_name": "a.png"},
        {"id": 2, "file_name": "../a.png"},
        None,
        {"id": 3, "file_name": "b.png"},
    ]
    outline = [[1, 2, 5, 2, 5, 6]]
    annotations = [{"image_id": 1, "bbox": [1, 2, 4, 4], "segmentation": outline}, {"image_id": 1, "bbox": [1]}, 7]
    coco, said = turn_coco({"images": images, "annotations": annotations}, tmp_path)
    assert coco["annotations"][0] == {"image_id": 1, "bbox": [25, 14, 4, 4], "segmentation": [[29, 18, 25, 18, 25, 14]]}
    assert coco["annotations"][1:] == annotations[1:] and coco["images"][1:] == images[1:]
    assert said == ["boxes of 1 image were turned with the photos (1 of orientation 3)"]


def test_heic_photos_are_read_or_the_extra_is_named(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    WRITERS["csv"][0](tmp_path)
    for path in tmp_path.glob("*/*.png"):
        with Image.open(path) as image:
            pillow_heif.from_pillow(image.resize((64, 64))).save(path.with_suffix(".heic"))
        path.unlink()
    for path in tmp_path.glob("*/*.csv"):
        path.write_text(path.read_text().replace(".png", ".heic").replace("40,30", "64,64"))
    source = read(tmp_path)
    assert [image["file_name"] for image in source.coco["images"]] == ["a.heic", "b.heic", "c.heic", "d.heic"]
    assert decode_rgb(tmp_path / "train/a.heic").size == (64, 64)
    (tmp_path / "broken.heic").write_bytes(b"\0\0\0\x18ftypheicXXXX")
    with pytest.raises(DataError, match="broken.heic: expected an? (whole )?image"):
        decode_rgb(tmp_path / "broken.heic")


def test_two_classes_of_one_name_are_warned_of(tmp_path: Path) -> None:
    WRITERS["yolo"][0](tmp_path)
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(text.replace("0: cone", "0: mug"))
    assert "duplicate-category-name" in kinds(read(tmp_path))


def test_the_class_above_all_others_of_roboflow_is_left_out_where_nothing_is_of_it(tmp_path: Path) -> None:
    WRITERS["roboflow"][0](tmp_path)
    source = read(tmp_path)
    assert [category["name"] for category in source.coco["categories"]] == ["cone", "mug"]
    assert source.notes[-1].startswith("class 0 ('things'), which only stands above all others")
    path = tmp_path / "train/_annotations.coco.json"
    coco = json.loads(path.read_text())
    coco["annotations"][0]["category_id"] = 0
    path.write_text(json.dumps(coco))
    assert [category["name"] for category in read(tmp_path).coco["categories"]] == ["things", "cone", "mug"]


NAMES = {
    "percent": ("my photo.png", "my%20photo.png"),
    "unicode": (unicodedata.normalize("NFD", "grün.png"), "grün.png"),
    "upload": ("a.png", "3f2a91c4-a.png"),
    "backslash": ("a.png", "photos\\a.png"),
    "climbing": ("a.png", "..\\..\\media\\a.png"),
    "suffix": ("a.png", "a.jpeg"),
}
"""File and what is written for it."""


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("name", ["coco", "voc", "via_1", "labelme", "createml", "csv", "imagefolder"])
def test_names_that_are_written_in_another_way(name: str, kind: str, tmp_path: Path) -> None:
    WRITERS[name][0](tmp_path)
    file, written = NAMES[kind]
    [path] = tmp_path.rglob("a.png")
    path.rename(path.with_name(file))
    for label in (p for p in tmp_path.rglob("*") if p.suffix in (".json", ".xml", ".csv", ".jsonl")):
        text = label.read_text()
        as_text = json.dumps(written)[1:-1] if label.suffix in (".json", ".jsonl") else written
        before = "..\\\\..\\\\images\\\\train\\\\a.png" if name == "labelme" else "a.png"
        label.write_text(text.replace(before, as_text))
    if name == "voc":  # or the name of the XML would tell
        shutil.move(tmp_path / "Annotations/a.xml", tmp_path / "Annotations/other.xml")
        (tmp_path / "ImageSets/Main/train.txt").write_text("other\nb\nc\nd\n")
    if name == "labelme":
        shutil.move(tmp_path / "labels/train/a.json", tmp_path / "labels/train/other.json")
    images = [image["file_name"] for image in read(tmp_path, file_names="similar").coco["images"]]
    assert file in images
    if name != "coco" and not (name == "labelme" and kind in ("backslash", "climbing")):
        with pytest.raises(DataError, match=r"is probably meant: set data.file_names to similar|'a.png' is prob"):
            read(tmp_path)


def test_twelve_bits_in_sixteen_are_said_in_a_format_beside_coco(tmp_path: Path) -> None:
    WRITERS["yolo"][0](tmp_path)
    for path in tmp_path.rglob("*.png"):
        with Image.open(path) as image:
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16).save(path)
    source = read(tmp_path)
    [problem] = [p for p in check_coco(source.coco, source.annotations, source.images_dir) if p.kind == "white-level"]
    assert problem.remedy.startswith("set data.white_level to 4095")


def test_groups_of_open_images_are_crowd(tmp_path: Path) -> None:
    WRITERS["openimages"][0](tmp_path)
    table = tmp_path / "train-annotations-bbox.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:1], lines[1].removesuffix("0") + "1", *lines[2:]]))
    assert [entry["iscrowd"] for entry in read(tmp_path).coco["annotations"]] == [1, 0, 0, 0, 0, 0]


def test_pixels_of_pascal_voc_itself_count_from_one(tmp_path: Path) -> None:
    WRITERS["voc"][0](tmp_path)
    path = tmp_path / "Annotations/a.xml"
    path.write_text(
        path.read_text().replace("<size>", "<source><database>The VOC2007 Database</database></source><size>")
    )
    assert read_back({"train": read(tmp_path).coco})["train"]["a.png"][2][0] == ("mug", 1, 2, 11, 13)


def test_parts_of_one_group_in_labelme_are_one_object(tmp_path: Path) -> None:
    WRITERS["labelme"][0](tmp_path)
    path = tmp_path / "labels/train/a.json"
    content = json.loads(path.read_text())
    parts = [[[1, 1], [5, 1], [5, 5]], [[10, 8], [20, 8], [20, 18]]]
    content["shapes"] = [{"label": "mug", "points": part, "shape_type": "polygon", "group_id": 1} for part in parts]
    path.write_text(json.dumps(content))
    [entry] = [entry for entry in read(tmp_path).coco["annotations"] if entry["image_id"] == 1]
    assert entry["bbox"] == [1, 1, 19, 17]
    assert entry["area"] == 8 + 50 and len(entry["segmentation"]) == 2


def test_what_is_there_besides_is_said(tmp_path: Path) -> None:
    WRITERS["yolo"][0](tmp_path)
    (tmp_path / "all.json").write_text(json.dumps(coco_dict("train")))
    assert "there is yolo (data.yaml names its classes and folders) as well" in read(tmp_path).notes[0]
    assert (
        read(tmp_path, format="yolo").notes[0].startswith("found yolo: data.yaml names its classes and folders (train")
    )


def test_folders_behind_links_are_found_and_circles_end(tmp_path: Path) -> None:
    WRITERS["csv"][0](tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train").symlink_to(tmp_path / "elsewhere/train")
    (tmp_path / "data/train/round").symlink_to(tmp_path / "data")
    assert read_back({"train": read(tmp_path / "data").coco}) == {"train": DRAWN["train"]}


def test_a_data_set_of_the_hub_is_downloaded_without_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["parquet"][0](tmp_path / "hub")
    asked: list = []

    def download(repo_id: str, **settings: object) -> str:
        asked.append((repo_id, settings["repo_type"], settings["revision"], settings["ignore_patterns"]))
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = load_source(DataConfig(root="hf://datasets/me/mugs@v1"), "val")
    load_source(DataConfig(root="hf://datasets/me/mugs@v1"), "train")
    assert [category["name"] for category in source.coco["categories"]] == ["cone", "mug"]
    assert asked == [("me/mugs", "dataset", "v1", NO_DATA)] and "*.py" in NO_DATA and "*.pkl" in NO_DATA


def test_a_data_set_that_the_hub_does_not_give_is_named() -> None:
    with pytest.raises(DataError, match="hf://datasets/me/none: expected a data set of the Hub.*check the name"):
        load_source(DataConfig(root="hf://datasets/me/none"), "val")


@pytest.mark.parametrize("values", [2, 3])
def test_keypoints_of_yolo_are_no_outline(values: int, tmp_path: Path) -> None:
    WRITERS["yolo"][0](tmp_path)
    with (tmp_path / "data.yaml").open("a") as file:
        file.write(f"kpt_shape: [4, {values}]\n")
    for path in (tmp_path / "labels/train").iterdir():
        lines = path.read_text().splitlines()
        path.write_text("\n".join(line + " 0.9" * (4 * values) for line in lines))
    back = read_back({"train": read(tmp_path).coco})["train"]
    assert back["a.png"][2][0][1:] == pytest.approx((2, 3, 10, 12), abs=1e-3)


def test_labels_beside_their_images_are_found_below_a_folder_called_images(tmp_path: Path) -> None:
    WRITERS["yolo_plain"][0](tmp_path / "images/mine")
    assert read_back({"train": read(tmp_path / "images/mine").coco})["train"].keys() == DRAWN["train"].keys()
    assert len(read(tmp_path / "images/mine").coco["annotations"]) == 6
