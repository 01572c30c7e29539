import copy
import json
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFile

from hf_detr_ft.data.checks.coco_checks import check_coco, check_splits
from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.coco import LabelMap, read_coco, with_polygon_areas
from hf_detr_ft.errors import DataError
from tests.fixtures import CATEGORIES, CLASSES, draw_split

SIZES = ((96, 128), (128, 96), (64, 64), (96, 128))
"""(height, width) of 00.jpg … 03.jpg; the last one without objects."""


@pytest.fixture
def split(tmp_path: Path) -> tuple[dict, Path]:
    """A split without a problem, every class in it: 2 + 2 + 2 objects, and an empty image.

    Whatever they show, the boxes are given ones that touch no border, without outlines, so that messages can be
    compared number by number.
    """
    images = tmp_path / "train2017"
    coco = draw_split(images, SIZES, seed=0, objects=(2, 2, 2, 0))
    for number, annotation in enumerate(coco["annotations"]):
        annotation["category_id"] = CATEGORIES[number % 2]["id"]
        annotation.update(bbox=[10 + number, 12, 30, 40], area=1200)
        del annotation["segmentation"]
    for number, image in enumerate(coco["images"]):
        (images / image["file_name"]).rename(images / f"{number:02d}.jpg")
        image["file_name"] = f"{number:02d}.jpg"
    return coco, images


def check(coco: dict, images: Path) -> list[Problem]:
    """Through the text of a JSON file, as a run does."""
    file = images.parent / "train.json"
    file.write_text(json.dumps(coco))
    return check_coco(read_coco(file), file, images)


def outline(*points: float) -> Callable[[dict, Path], None]:
    def breaks(coco: dict, images: Path) -> None:
        coco["annotations"][0]["segmentation"] = [list(points)]

    return breaks


def set_(key: str, index: int, **fields: object) -> Callable[[dict, Path], None]:
    def breaks(coco: dict, images: Path) -> None:
        coco[key][index].update(fields)

    return breaks


def drop(key: str, index: int, field: str) -> Callable[[dict, Path], None]:
    def breaks(coco: dict, images: Path) -> None:
        del coco[key][index][field]

    return breaks


def put(key: str, index: int, value: object) -> Callable[[dict, Path], None]:
    def breaks(coco: dict, images: Path) -> None:
        coco[key][index] = value

    return breaks


def add(key: str, entry: dict) -> Callable[[dict, Path], None]:
    def breaks(coco: dict, images: Path) -> None:
        coco[key].append(entry)

    return breaks


def missing(coco: dict, images: Path) -> None:
    (images / "01.jpg").unlink()


def other_case(coco: dict, images: Path) -> None:
    (images / "01.jpg").rename(images / "01.JPG")


def file_above(coco: dict, images: Path) -> None:
    (images / "01.jpg").rename(images.parent / "up.jpg")
    coco["images"][1]["file_name"] = "up.jpg"


def cut(coco: dict, images: Path) -> None:
    data = (images / "01.jpg").read_bytes()
    (images / "01.jpg").write_bytes(data[: len(data) // 2])


def cut_png(coco: dict, images: Path) -> None:
    Image.effect_noise((96, 128), 50).save(images / "01.png")
    data = (images / "01.png").read_bytes()
    (images / "01.png").write_bytes(data[: len(data) // 2])
    coco["images"][1]["file_name"] = "01.png"


def cut_bmp(coco: dict, images: Path) -> None:
    Image.effect_noise((96, 128), 50).save(images / "01.bmp")
    data = (images / "01.bmp").read_bytes()
    (images / "01.bmp").write_bytes(data[: len(data) // 2])
    coco["images"][1]["file_name"] = "01.bmp"


def no_image(coco: dict, images: Path) -> None:
    (images / "01.jpg").write_text("<html>404</html>")


def a_folder(coco: dict, images: Path) -> None:
    (images / "01.jpg").unlink()
    (images / "01.jpg").mkdir()


def no_folder(coco: dict, images: Path) -> None:
    shutil.rmtree(images)


def rotated(coco: dict, images: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 128)).save(images / "01.jpg", exif=exif)


def corners(coco: dict, images: Path) -> None:
    for annotation in coco["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x + 20, y + 10, x + w + 20, y + h + 10]
    coco["annotations"][0]["bbox"] = [70, 50, 120, 90]
    coco["annotations"][2]["bbox"] = [60, 60, 90, 120]


def normalised(coco: dict, images: Path) -> None:
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    for annotation in coco["annotations"]:
        w, h = sizes[annotation["image_id"]]
        annotation["bbox"] = [value / side for value, side in zip(annotation["bbox"], (w, h, w, h), strict=True)]


def wrong_areas(coco: dict, images: Path) -> None:
    for annotation in coco["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    for annotation in coco["annotations"][:3]:
        annotation["area"] = 300


def no_areas(coco: dict, images: Path) -> None:
    del coco["annotations"][0]["area"]
    coco["annotations"][1]["area"] = None


def unlabelled(coco: dict, images: Path) -> None:
    coco["annotations"] = []


def only_crowds(coco: dict, images: Path) -> None:
    for annotation in coco["annotations"]:
        annotation["iscrowd"] = 1


def renumbered(coco: dict, images: Path) -> None:
    coco["annotations"][1]["id"] = 1


def same_image_id(coco: dict, images: Path) -> None:
    Image.new("RGB", (20, 10)).save(images / "04.jpg")
    coco["images"].append({"id": 100, "file_name": "04.jpg", "width": 20, "height": 10})


ENTRY_1 = "annotation id 1 (image '00.jpg')"
ENTRY_2 = "annotation id 2 (image '00.jpg')"
IMAGE_1 = "image id 101 ('01.jpg')"

CORPUS: dict[str, tuple[Callable[[dict, Path], None], str, str, list[str]]] = {
    # name: what breaks the split, "severity kind" of the problem, its entry, words of its line
    "image-null": (
        put("images", 1, None),
        "error entry",
        "images[1]",
        ["file_name", "found None", "correct or remove"],
    ),
    "annotation-text": (put("annotations", 1, "a"), "error entry", "annotations[1]", ["bbox", "found 'a'"]),
    "category-list": (put("categories", 1, [1]), "error entry", "categories[1]", ["name", "found [1]"]),
    "image-id-text": (set_("images", 1, id="101"), "error field", "images[1]", ["'id'", "whole number", "'101'"]),
    "image-id-bool": (set_("images", 1, id=True), "error field", "images[1]", ["'id'", "whole number", "True"]),
    "annotation-id-null": (set_("annotations", 0, id=None), "error field", "annotations[0]", ["'id'", "found None"]),
    "category-id-float": (set_("categories", 0, id=3.0), "error field", "categories[0]", ["'id'", "3.0", "correct"]),
    "no-file-name": (drop("images", 1, "file_name"), "error missing-field", "image id 101", ["add 'file_name'"]),
    "empty-file-name": (set_("images", 1, file_name=" "), "error field", "image id 101", ["'file_name'", "not empty"]),
    "no-width": (drop("images", 1, "width"), "error missing-field", IMAGE_1, ["expected 'width'", "add 'width'"]),
    "width-zero": (set_("images", 1, width=0), "error field", IMAGE_1, ["'width'", "above 0", "found 0"]),
    "name-number": (set_("categories", 0, name=5), "error field", "category id 3", ["'name'", "text", "found 5"]),
    "no-bbox": (
        drop("annotations", 0, "bbox"),
        "error missing-field",
        ENTRY_1,
        ["'bbox'", "[left, top, width, height]"],
    ),
    "bbox-short": (set_("annotations", 0, bbox=[1, 2, 3]), "error field", ENTRY_1, ["'bbox'", "four", "[1, 2, 3]"]),
    "bbox-nan": (set_("annotations", 0, bbox=[1, 2, 3, float("nan")]), "error field", ENTRY_1, ["finite", "nan"]),
    "bbox-text": (set_("annotations", 0, bbox=["1", 2, 3, 4]), "error field", ENTRY_1, ["finite", "'1'"]),
    "bbox-nested": (set_("annotations", 0, bbox=[[1, 2, 3, 4]]), "error field", ENTRY_1, ["finite", "[[1, 2, 3, 4]]"]),
    "area-infinite": (set_("annotations", 0, area=float("inf")), "error field", ENTRY_1, ["'area'", "found inf"]),
    "area-negative": (set_("annotations", 0, area=-4), "error field", ENTRY_1, ["'area'", "0 or more", "-4"]),
    "iscrowd-text": (set_("annotations", 0, iscrowd="no"), "error field", ENTRY_1, ["'iscrowd'", "0 or 1", "'no'"]),
    "duplicate-image-id": (
        same_image_id,
        "error duplicate-image-id",
        "image id 100 ('00.jpg')",
        ["found 2", "('00.jpg')", "('04.jpg')", "number them anew"],
    ),
    "duplicate-annotation-id": (renumbered, "error duplicate-annotation-id", ENTRY_1, ["found 2", "number them anew"]),
    "duplicate-category-id": (
        add("categories", {"id": 7, "name": "ring"}),
        "error duplicate-category-id",
        f"category id 7 ({CLASSES[1]!r})",
        ["found 2", "'ring'", "number them anew"],
    ),
    "duplicate-category-name": (
        set_("categories", 1, name=CLASSES[0]),
        "warning duplicate-category-name",
        f"category id 3 ({CLASSES[0]!r})",
        ["found 2", "category id 7", "merge or rename"],
    ),
    "duplicate-file-name": (
        add("images", {"id": 5, "file_name": "03.jpg", "width": 128, "height": 96}),
        "warning duplicate-file-name",
        "image id 103 ('03.jpg')",
        ["found 2", "image id 5", "merge"],
    ),
    "unknown-image": (
        set_("annotations", 0, image_id=9),
        "error unknown-image",
        "annotation id 1",
        ["'image_id', found 9", "add the image"],
    ),
    "unknown-category": (
        set_("annotations", 0, category_id=0),
        "error unknown-category",
        ENTRY_1,
        ["expected one of 3, 7", "found 0", "add the category"],
    ),
    "unused-category": (
        add("categories", {"id": 0, "name": "ring"}),
        "warning unused-category",
        "category id 0 ('ring')",
        ["found none", "remove it"],
    ),
    "no-folder": (no_folder, "error images-folder", "the folder", ["train2017", "4 images", "check the path"]),
    "missing-image": (
        missing,
        "error missing-image",
        IMAGE_1,
        ["train2017/01.jpg", "found none", "put the file there"],
    ),
    "other-case": (other_case, "error missing-image", IMAGE_1, ["write file_name '01.JPG'", "upper and lower case"]),
    "folder-in-name": (
        set_("images", 1, file_name="train2017/01.jpg"),
        "error missing-image",
        "image id 101 ('train2017/01.jpg')",
        ["write file_name '01.jpg'", "folder"],
    ),
    "folder-above": (file_above, "error missing-image", "image id 101 ('up.jpg')", ["as the image folder"]),
    "cut-image": (cut, "error unreadable-image", IMAGE_1, ["train2017/01.jpg: ", "truncated", "again"]),
    "cut-png": (cut_png, "error unreadable-image", "image id 101 ('01.png')", ["01.png: ", "truncated", "again"]),
    "cut-bmp": (cut_bmp, "error unreadable-image", "image id 101 ('01.bmp')", ["01.bmp: ", "truncated", "again"]),
    "no-image": (no_image, "error unreadable-image", IMAGE_1, ["16 bytes in no image format", "remove the image"]),
    "image-is-folder": (a_folder, "error unreadable-image", IMAGE_1, ["cannot be opened", "Is a directory"]),
    "path-outside": (
        set_("images", 1, file_name="../train2017/01.jpg"),
        "error path-outside",
        "image id 101 ('../train2017/01.jpg')",
        ["leaves it", "write it relative"],
    ),
    "path-absolute": (
        set_("images", 1, file_name="C:\\photos\\01.jpg"),
        "error path-outside",
        "image id 101 ('C:\\\\photos\\\\01.jpg')",
        ["leaves it", "without a drive"],
    ),
    "size-differs": (
        set_("images", 0, width=256, height=192),
        "error image-size",
        "image id 100 ('00.jpg')",
        ["found width x height 256x192", "the image's 128x96", "scale the boxes"],
    ),
    "size-swapped": (
        set_("images", 0, width=96, height=128),
        "error image-size",
        "image id 100 ('00.jpg')",
        ["found width x height 96x128", "swap width and height"],
    ),
    "exif-rotation": (
        rotated,
        "error exif-rotation",
        IMAGE_1,
        ["EXIF orientation 6", "found 96x128", "128x96", "drawn on unrotated pixels", "strip the EXIF"],
    ),
    "box-empty": (
        set_("annotations", 0, bbox=[5, 5, 9, 0]),
        "warning box-empty",
        ENTRY_1,
        ["positive", "[5, 5, 9, 0]"],
    ),
    "box-negative": (
        set_("annotations", 0, bbox=[9, 9, -4, 5]),
        "error box-empty",
        ENTRY_1,
        ["[9, 9, -4, 5]", "remove"],
    ),
    "box-outside": (
        set_("annotations", 0, bbox=[128, 5, 9, 9]),
        "error box-outside",
        ENTRY_1,
        ["128x96 image", "[128, 5, 9, 9]", "wholly outside", "remove"],
    ),
    "box-overhang": (
        set_("annotations", 0, bbox=[100, 5, 31.5, 9]),
        "warning box-overhang",
        ENTRY_1,
        ["128x96 image", "3.5 pixels", "clips"],
    ),
    "box-negative-left": (set_("annotations", 0, bbox=[-2, 5, 9, 9]), "warning box-overhang", ENTRY_1, ["2 pixels"]),
    "boxes-xyxy": (
        corners,
        "error boxes-xyxy",
        "annotations",
        [
            "found 4 of 6",
            "while 6 fit",
            "[x1, y1, x2, y2]",
            ENTRY_1 + " [70, 50, 120, 90]",
            "write [x1, y1, x2 - x1, y2 - y1]",
        ],
    ),
    "boxes-normalised": (
        normalised,
        "error boxes-normalised",
        "annotations",
        ["found 6 of 6", "between 0 and 1", ENTRY_1 + " [0.078125, 0.125, ", "multiply x and width"],
    ),
    "wrong-areas": (
        wrong_areas,
        "warning area",
        "annotations",
        ["found 3 of 6", "75% at the median", ENTRY_2 + " 300 for 1200", "are computed from the segmentation"],
    ),
    "no-areas": (no_areas, "warning area-missing", "annotations", ["found none in 2 of 6", "computed"]),
    "bad-outline": (outline(1, 2, 3, 4), "warning segmentation", ENTRY_1, ["polygons or RLE", "4 values", "correct"]),
    "no-annotations": (
        unlabelled,
        "error no-annotations",
        "annotations",
        ["at least one object", "found none", "label"],
    ),
    "only-crowds": (only_crowds, "error no-annotations", "annotations", ["found only 6 crowds", "label objects"]),
}

CONSEQUENCES = {
    "image-null": {"unknown-image"},
    "annotation-text": {"area-missing"},
    "category-list": {"unknown-category"},
    "image-id-text": {"unknown-image"},
    "image-id-bool": {"unknown-image"},
    "category-id-float": {"unknown-category"},
    "area-infinite": {"area-missing"},
    "area-negative": {"area-missing"},
    "no-annotations": {"unused-category"},
    "only-crowds": {"unused-category", "crowd"},
}
"""Further problems that a break brings with it, by name of the break; none for all others."""


def test_a_split_in_order_has_no_problem(split: tuple[dict, Path]) -> None:
    assert check(*split) == []


@pytest.mark.parametrize("name", CORPUS)
def test_corpus_of_broken_splits(name: str, split: tuple[dict, Path]) -> None:
    breaks, severity_and_kind, entry, words = CORPUS[name]
    coco, images = split
    breaks(coco, images)
    problems = check(coco, images)
    found = [problem for problem in problems if f"{problem.severity} {problem.kind}" == severity_and_kind]
    assert {problem.kind for problem in problems} - {found[0].kind} <= CONSEQUENCES.get(name, set())
    assert problems[0].severity == "error" or severity_and_kind.startswith("warning")
    line = str(found[0])
    assert found[0].entry == entry
    assert line.startswith(f"{found[0].severity} [{found[0].kind}] {images.parent}")
    for word in words:
        assert word in line
    assert len(found) == 1


def test_all_problems_at_once_errors_first(split: tuple[dict, Path]) -> None:
    coco, images = split
    for name in ("box-negative-left", "missing-image", "size-swapped", "unused-category", "duplicate-annotation-id"):
        CORPUS[name][0](coco, images)
    coco["annotations"][3]["bbox"] = [10, 10, -3, 10]
    problems = check(coco, images)
    kinds = ["duplicate-annotation-id", "image-size", "missing-image", "box-empty", "unused-category", "box-overhang"]
    assert [problem.kind for problem in problems] == kinds
    assert [problem.severity for problem in problems] == ["error"] * 4 + ["warning"] * 2


def test_many_problems_of_one_kind_are_all_listed(split: tuple[dict, Path]) -> None:
    coco, images = split
    for image in coco["images"]:
        (images / image["file_name"]).unlink()
    for annotation in coco["annotations"]:
        annotation["bbox"] = [0, 0, 0, 0]
    kinds = [problem.kind for problem in check(coco, images)]
    assert kinds == ["missing-image"] * 4 + ["box-empty"] * 6


def test_a_class_of_crowd_regions_is_said_to_be_left_out(split: tuple[dict, Path]) -> None:
    coco, images = split
    for annotation in coco["annotations"]:
        annotation["iscrowd"] = int(annotation["category_id"] == 7)
    problems = check(coco, images)
    assert [(problem.severity, problem.kind, problem.entry) for problem in problems] == [
        ("warning", "crowd", f"category id 7 ({CLASSES[1]!r})"),
        ("warning", "unused-category", f"category id 7 ({CLASSES[1]!r})"),
    ]
    assert "found 3 of its 3 annotations" in problems[0].message
    assert "leave them out; some tools write iscrowd 1 for every mask or brush stroke" in problems[0].remedy
    assert "found none but 3 crowd regions" in problems[1].message


def test_few_crowd_regions_are_as_they_should_be(split: tuple[dict, Path]) -> None:
    coco, images = split
    first = coco["annotations"][0]
    coco["annotations"] += [{**first, "id": 100 + number} for number in range(20)]
    coco["annotations"][-1]["iscrowd"] = 1
    assert check(coco, images) == []
    for annotation in coco["annotations"][-4:]:
        annotation["iscrowd"] = 1
    [problem] = check(coco, images)
    assert problem.kind == "crowd"
    assert "found 4 of its 23 annotations" in problem.message


def test_many_categories_without_objects_are_one_line(split: tuple[dict, Path]) -> None:
    coco, images = split
    coco["categories"] += [{"id": 100 + number, "name": f"class {number}"} for number in range(290)]
    [problem] = check(coco, images)
    assert (problem.severity, problem.kind, problem.entry) == ("warning", "unused-category", "categories")
    assert "found none of 290 categories: 'class 0', 'class 1'" in problem.message
    assert "'class 9' … and 280 more" in problem.message


def test_a_box_may_reach_one_pixel_out(split: tuple[dict, Path]) -> None:
    coco, images = split
    coco["annotations"][0]["bbox"] = [-1, -1, 130, 98]
    assert check(coco, images) == []
    coco["annotations"][0]["bbox"] = [-1, -1, 130, 98.1]
    assert [problem.kind for problem in check(coco, images)] == ["box-overhang"]


def test_one_pixel_boxes_are_not_normalised_and_large_boxes_not_corners(split: tuple[dict, Path]) -> None:
    coco, images = split
    for annotation in coco["annotations"]:
        annotation.update(bbox=[0, 0, 1, 1], area=1)
    assert check(coco, images) == []
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    for annotation in coco["annotations"]:
        width, height = sizes[annotation["image_id"]]
        annotation.update(bbox=[0, 0, width, height], area=width * height)
    assert check(coco, images) == []


def test_one_overhanging_box_is_no_sign_of_corners(split: tuple[dict, Path]) -> None:
    coco, images = split
    for annotation in coco["annotations"]:
        annotation["bbox"] = [5, 5, 20, 20]
    coco["annotations"][0]["bbox"] = [60, 5, 100, 20]
    assert [problem.kind for problem in check(coco, images)] == ["box-overhang"]


def test_boxes_that_do_not_fit_as_corners_are_not_taken_for_them(split: tuple[dict, Path]) -> None:
    coco, images = split
    for annotation in coco["annotations"]:
        annotation["bbox"] = [40, 40, 20, 20]
    for annotation in coco["annotations"][:2]:
        annotation["bbox"] = [60, 5, 100, 20]
    assert [problem.kind for problem in check(coco, images)] == ["box-overhang"] * 2


def test_of_two_images_with_one_id_the_first_counts(split: tuple[dict, Path]) -> None:
    coco, images = split
    same_image_id(coco, images)
    coco["annotations"][0]["bbox"] = [100, 5, 40, 9]
    problems = check(coco, images)
    assert [problem.kind for problem in problems] == ["duplicate-image-id", "box-overhang"]
    assert problems[1].entry == ENTRY_1
    assert "128x96 image" in problems[1].message


def test_category_id_zero_grayscale_and_upright_exif_are_fine(split: tuple[dict, Path]) -> None:
    coco, images = split
    coco["categories"][0]["id"] = 0
    for annotation in coco["annotations"]:
        annotation["category_id"] %= 7
        annotation["category_id"] = {3: 0, 0: 7}[annotation["category_id"]]
    Image.new("CMYK", (128, 96)).save(images / "00.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (128, 96)).save(images / "01.jpg", exif=exif)
    Image.new("P", (64, 64)).save(images / "02.png")
    coco["images"][2]["file_name"] = "02.png"
    assert check(coco, images) == []


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_rotation_in_every_format(orientation: int, suffix: str, decode: bool, split: tuple[dict, Path]) -> None:
    coco, images = split
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (128, 96)).save(images / f"turned.{suffix}", exif=exif)
    coco["images"][1]["file_name"] = f"turned.{suffix}"
    assert check_coco(coco, images.parent / "a.json", images, decode=decode) == []
    coco["images"][1].update(width=128, height=96)
    assert len(check_coco(coco, images.parent / "a.json", images, decode=decode)) == 1


def test_without_decoding_no_pixel_of_a_png_is_read(split: tuple[dict, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    coco, images = split
    Image.new("RGB", (128, 96)).save(images / "a.png")
    coco["images"][0]["file_name"] = "a.png"

    def refuse(image: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    assert check_coco(coco, images.parent / "a.json", images, decode=False) == []


def test_without_decoding_all_but_truncation_is_found(split: tuple[dict, Path]) -> None:
    coco, images = split
    (images / "00.jpg").unlink()
    cut(coco, images)
    (images / "02.jpg").write_text("<html>404</html>")
    coco["images"][3]["width"] = 5
    kinds = [problem.kind for problem in check_coco(coco, images.parent / "a.json", images, decode=False)]
    assert kinds == ["missing-image", "unreadable-image", "image-size"]


def test_file_names_that_no_file_system_takes(split: tuple[dict, Path]) -> None:
    coco, images = split
    for image, file_name in zip(coco["images"], ("a\nb.jpg", "\ud800.jpg", "x" * 5000, "a\0b"), strict=True):
        image["file_name"] = file_name
    lines = [str(problem) for problem in check(coco, images)]
    assert len(lines) == 4
    assert all(line.isprintable() and line.encode() for line in lines)


@pytest.mark.parametrize("coco", [None, [], 5, {}, {"a": {"filename": "a", "regions": []}}, {"images": 3}])
def test_what_is_not_coco_is_a_problem_too(coco: Any, tmp_path: Path) -> None:
    problems = check_coco(coco, tmp_path / "a.json", tmp_path)
    assert {(problem.severity, problem.kind) for problem in problems} == {("error", "structure")}
    assert ("convert via" in problems[0].remedy) == ("filename" in str(coco))
    assert check_splits(coco, tmp_path, coco, tmp_path) == []


def test_progress_wraps_one_item_an_image(split: tuple[dict, Path]) -> None:
    coco, images = split
    seen = []

    def progress(work: Iterable[Any]) -> Iterable[Any]:
        assert isinstance(work, list)
        for item in work:
            seen.append(item)
            yield item

    coco["images"][0]["file_name"] = "../00.jpg"
    assert len(check_coco(coco, images.parent / "a.json", images, progress=progress)) == 1
    assert len(seen) == 3


def test_splits_in_order_have_no_problem(split: tuple[dict, Path], tmp_path: Path) -> None:
    val_dir = tmp_path / "val2017"
    val = draw_split(val_dir, SIZES[:2], seed=4)
    val["images"][0]["file_name"] = "00.jpg"
    shutil.move(val_dir / "04_000.jpg", val_dir / "00.jpg")
    # Files of one length have to be told apart by their bytes.
    train_photo, val_photo = split[1] / "00.jpg", val_dir / "00.jpg"
    length = max(train_photo.stat().st_size, val_photo.stat().st_size)
    for photo in (train_photo, val_photo):
        photo.write_bytes(photo.read_bytes().ljust(length, b"\0"))
    assert check_splits(*split, val, val_dir) == []


def test_the_same_photo_in_both_splits(split: tuple[dict, Path], tmp_path: Path) -> None:
    coco, images = split
    val_dir = tmp_path / "val2017"
    val = draw_split(val_dir, SIZES[:2], seed=4)
    shutil.copy(images / "03.jpg", val_dir / "04_001.jpg")
    [problem] = check_splits(coco, images, val, val_dir, val_file=tmp_path / "val.json")
    assert (problem.severity, problem.kind, problem.file) == ("warning", "same-photo", str(tmp_path / "val.json"))
    assert problem.entry == "image id 101 ('04_001.jpg')"
    assert "image id 103 ('03.jpg')" in problem.message
    assert "train2017" in problem.message
    assert problem.remedy.startswith("remove it from one of them")


def test_one_split_given_twice_is_one_warning(split: tuple[dict, Path], tmp_path: Path) -> None:
    coco, images = split
    shutil.copytree(images, tmp_path / "copy")
    for val_dir in (images, tmp_path / "copy"):
        [problem] = check_splits(coco, images, coco, val_dir)
        assert (problem.severity, problem.kind) == ("warning", "same-split")
        assert "the same 4" in problem.message


def test_a_part_of_training_as_validation_is_listed_photo_by_photo(split: tuple[dict, Path]) -> None:
    coco, images = split
    val = {**coco, "images": coco["images"][:2]}
    assert [problem.kind for problem in check_splits(coco, images, val, images)] == ["same-photo"] * 2


def test_photos_that_are_not_there_are_left_to_check_coco(split: tuple[dict, Path], tmp_path: Path) -> None:
    coco, images = split
    assert check_splits(coco, tmp_path / "none", coco, tmp_path / "none") == []
    coco["images"][0]["file_name"] = "../train2017/01.jpg"
    coco["images"][1]["file_name"] = "."
    coco["images"][2]["file_name"] = "x" * 5000
    [problem] = check_splits(coco, images, coco, images)
    assert "the same 1" in problem.message


def test_categories_that_differ(split: tuple[dict, Path], tmp_path: Path) -> None:
    coco, images = split
    val = draw_split(tmp_path / "val2017", SIZES[:1], seed=4)
    objects = [{**val["annotations"][0], "id": id_, "category_id": id_} for id_ in (3, 7)]
    val["annotations"] = objects[:1]
    val["categories"] = [{"id": 3, "name": "ring"}, {"id": 8, "name": CLASSES[1]}, {"id": 9, "name": "star"}]
    problems = check_splits(coco, images, val, tmp_path / "val2017")
    found = [(problem.severity, problem.kind, problem.entry) for problem in problems]
    assert found == [
        ("error", "category-renamed", "category id 3 ('ring')"),
        ("error", "category-not-in-training", f"category id 8 ({CLASSES[1]!r})"),
        ("error", "category-not-in-training", "category id 9 ('star')"),
        ("warning", "category-not-in-validation", f"category id 7 ({CLASSES[1]!r})"),
    ]
    assert f"expected the name {CLASSES[0]!r} as in training, found 'ring'" in problems[0].message
    assert f"(3, 7), found id 8; training's {CLASSES[1]!r} has id 7" in problems[1].message
    val["annotations"] = objects
    val["categories"] = [{"id": 3}, {"id": 7, "name": CLASSES[1]}]
    assert check_splits(coco, images, val, tmp_path / "val2017") == []


@pytest.mark.parametrize("listed", [True, False])
def test_classes_that_cannot_be_measured_are_one_line(listed: bool, split: tuple[dict, Path], tmp_path: Path) -> None:
    """The same whether validation lists them or not: neither way is advised against."""
    coco, images = split
    first = coco["annotations"][0]
    new = [{"id": id_, "name": f"class {id_ - 100}"} for id_ in range(100, 390)]
    learned = [{**first, "id": entry["id"], "category_id": entry["id"]} for entry in new]
    train = {**coco, "categories": coco["categories"] + new, "annotations": coco["annotations"] + learned}
    val_dir, file = tmp_path / "val2017", tmp_path / "val.json"
    val = draw_split(val_dir, SIZES[:2], seed=4)
    val["annotations"] = [{**val["annotations"][0], "id": id_, "category_id": id_} for id_ in (3, 7)]
    if listed:
        val["annotations"].append({**val["annotations"][0], "id": 1, "category_id": 105, "iscrowd": 1})
        val["categories"] = train["categories"]
    problems = check_coco(val, file, val_dir, for_training=False)
    assert [problem.kind for problem in problems] == (["crowd"] if listed else [])
    [problem] = check_splits(train, images, val, val_dir, val_file=file)
    assert (problem.severity, problem.kind, problem.entry) == ("warning", "category-not-in-validation", "categories")
    assert "found none of 290: 'class 0', 'class 1'" in problem.message
    assert "no AP can be measured for them" in problem.remedy
    assert check_splits({**train, "annotations": coco["annotations"]}, images, val, val_dir) == [], "not learned either"


NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**70, 1e400, -1e400, float("nan"), 1e308, 0.5, "", "7", "a", "../x", "\ud800", "\0"),
    *(
        [],
        [[]],
        [[[1]]],
        {},
        {"id": {}},
        [1, 2, 3],
        ["a"] * 4,
        [None] * 4,
        [1e308] * 4,
        {"size": [1, 2], "counts": "P"},
    ),
    *([[0, 0, 1e9, 0, 0, 1e9]], [[1, 2, 3, 4, 5, "6"]], {"size": [4, 4], "counts": [2, 2**40]}, "x" * 9000),
)
REQUIRED = {"file_name", "width", "height", "id", "image_id", "category_id", "bbox"}


def mutate(coco: dict, rng: random.Random) -> bool:
    """Replaces or deletes something anywhere below the three lists; True where that makes a required field wrong."""
    entry = rng.choice([entry for key in coco for entry in coco[key] if isinstance(entry, dict) and entry])
    key = rng.choice(list(entry))
    if rng.random() < 0.2:
        del entry[key]
        return key in REQUIRED
    value = copy.deepcopy(rng.choice(NASTY))
    if isinstance(entry[key], list) and entry[key] and rng.random() < 0.5:
        entry[key][rng.randrange(len(entry[key]))] = value
        return key == "bbox" and not isinstance(value, (int, float))
    entry[key] = value
    return key in REQUIRED and isinstance(value, (type(None), list, dict))


def test_no_json_ends_in_a_traceback(split: tuple[dict, Path]) -> None:
    right, images = split
    wrong_areas(right, images)
    right["annotations"][0]["segmentation"] = {"size": [96, 128], "counts": [1000, 300, 10988]}
    rng = random.Random(0)
    broken = 0
    for _ in range(400):
        coco = copy.deepcopy(right)
        must_fail = [mutate(coco, rng) for _ in range(rng.randint(1, 3))]
        for key in coco:
            if rng.random() < 0.05:
                coco[key][rng.randrange(len(coco[key]))] = copy.deepcopy(rng.choice(NASTY))
        coco = json.loads(json.dumps(coco))
        problems = check_coco(coco, images.parent / "a.json", images)
        problems += check_splits(coco, images, right, images) + check_splits(right, images, coco, images)
        fixed, _ = with_polygon_areas(coco)
        assert with_polygon_areas(fixed)[1] == 0
        assert all(str(problem).isprintable() for problem in problems)
        try:
            LabelMap.from_coco(coco)
        except DataError:
            assert "error" in {problem.severity for problem in problems}
        if must_fail == [True]:
            broken += 1
            assert "error" in {problem.severity for problem in problems}
    assert broken > 30


def test_balloon_has_wrong_areas_and_nothing_else(balloon: Path) -> None:
    splits = {}
    for name, wrong in (("train", "253 of 255"), ("val", "49 of 50")):
        file, images = balloon / "annotations" / f"custom_{name}.json", balloon / f"{name}2017"
        splits[name] = coco = read_coco(file)
        [problem] = check_coco(coco, file, images)
        assert (problem.severity, problem.kind) == ("warning", "area")
        assert wrong in problem.message
        assert check_coco(with_polygon_areas(coco)[0], file, images) == []
    assert check_splits(splits["train"], balloon / "train2017", splits["val"], balloon / "val2017") == []
