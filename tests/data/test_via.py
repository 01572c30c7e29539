"""VIA to COCO: every shape, class and broken entry, and the balloon files where they are at hand."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from hf_detr_ft.data.formats.via import convert_via
from hf_detr_ft.errors import DataError

SQUARE = {"name": "polygon", "all_points_x": [10, 30, 30, 10], "all_points_y": [5, 5, 25, 25]}


def via_of(*shapes: dict, attributes: dict | None = None, name: str = "a.jpg") -> dict:
    regions = [{"shape_attributes": shape, "region_attributes": attributes or {}} for shape in shapes]
    return {f"{name}1": {"filename": name, "size": 1, "regions": regions, "file_attributes": {}}}


def convert(via: object, **options: object) -> dict:
    return convert_via(via, lambda _: (100, 200), source="via.json", **options)  # type: ignore[arg-type]


def only(shape: dict) -> dict:
    (annotation,) = convert(via_of(shape))["annotations"]
    return annotation


def problems(via: object, **options: object) -> list[str]:
    with pytest.raises(DataError) as caught:
        convert(via, **options)
    assert str(caught.value).startswith("via.json: ")
    return str(caught.value).split("\n  ")[1:]


def test_whole_result() -> None:
    assert convert(via_of(SQUARE), class_name="tile") == {
        "info": {"description": "Converted from VGG Image Annotator"},
        "images": [{"id": 1, "file_name": "a.jpg", "height": 100, "width": 200}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [10, 5, 20, 20],
                "area": 400.0,
                "iscrowd": 0,
                "segmentation": [[10, 5, 30, 5, 30, 25, 10, 25]],
            }
        ],
        "categories": [{"id": 1, "name": "tile"}],
    }


def test_via_1_via_2_and_project_agree() -> None:
    via_2 = via_of(SQUARE, {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4})
    via_1 = copy.deepcopy(via_2)
    via_1["a.jpg1"]["regions"] = {str(i): r for i, r in enumerate(via_2["a.jpg1"]["regions"])}
    project = {"_via_settings": {}, "_via_img_metadata": via_2, "_via_attributes": {"region": {}, "file": {}}}
    assert convert(via_1) == convert(via_2) == convert(project)
    assert [a["bbox"] for a in convert(via_1)["annotations"]] == [[10, 5, 20, 20], [1, 2, 3, 4]]


def test_photo_without_regions_is_kept() -> None:
    coco = convert({**via_of(name="empty.jpg"), **via_of(SQUARE)})
    assert [image["file_name"] for image in coco["images"]] == ["empty.jpg", "a.jpg"]
    assert [a["image_id"] for a in coco["annotations"]] == [2]


def test_polygon_area_is_exact_either_way_round_and_closed_or_not() -> None:
    triangle = {"name": "polygon", "all_points_x": [0, 10, 0], "all_points_y": [0, 0, 7]}
    reverse = {"name": "polygon", "all_points_x": [0, 10, 0], "all_points_y": [7, 0, 0]}
    closed = {"name": "polyline", "all_points_x": [0, 10, 0, 0], "all_points_y": [0, 0, 7, 0]}
    assert [only(shape)["area"] for shape in (triangle, reverse, closed)] == [35.0, 35.0, 35.0]
    assert only(closed)["bbox"] == [0, 0, 10, 7]


def test_concave_polygon_is_not_its_box() -> None:
    ell = {"name": "polygon", "all_points_x": [0, 9, 9, 3, 3, 0], "all_points_y": [0, 0, 3, 3, 9, 9]}
    assert only(ell)["area"] == 45.0
    assert only(ell)["bbox"] == [0, 0, 9, 9]


def test_rect_takes_numbers_that_are_text() -> None:
    found = only({"name": "rect", "x": 1.5, "y": 2, "width": "30", "height": "4.5"})
    assert found["bbox"] == [1.5, 2, 30, 4.5]
    assert found["area"] == 135
    assert found["segmentation"] == [[1.5, 2, 31.5, 2, 31.5, 6.5, 1.5, 6.5]]


def test_circle() -> None:
    found = only({"name": "circle", "cx": 50, "cy": 40, "r": 10})
    assert found["bbox"] == [40, 30, 20, 20]
    assert found["area"] == pytest.approx(100 * math.pi, rel=1e-12)


def test_ellipse_without_theta() -> None:
    found = only({"name": "ellipse", "cx": 50, "cy": 40, "rx": 30, "ry": 10})
    assert found["bbox"] == [20, 30, 60, 20]
    assert found["area"] == pytest.approx(300 * math.pi, rel=1e-12)


def test_ellipse_turned_by_a_quarter_swaps_its_sides() -> None:
    found = only({"name": "ellipse", "cx": 50, "cy": 40, "rx": 30, "ry": 10, "theta": math.pi / 2})
    assert found["bbox"] == pytest.approx([40, 10, 20, 60])


@pytest.mark.parametrize("theta", [0.3, 1.0, 2.5, -0.7])
def test_rotated_ellipse_box_is_tight(theta: float) -> None:
    found = only({"name": "ellipse", "cx": 50, "cy": 40, "rx": 30, "ry": 10, "theta": theta})
    turns = [math.tau * i / 100_000 for i in range(100_000)]
    xs = [50 + 30 * math.cos(t) * math.cos(theta) - 10 * math.sin(t) * math.sin(theta) for t in turns]
    ys = [40 + 30 * math.cos(t) * math.sin(theta) + 10 * math.sin(t) * math.cos(theta) for t in turns]
    assert found["bbox"] == pytest.approx([min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)], abs=1e-6)
    assert found["area"] == pytest.approx(300 * math.pi, rel=1e-12)


@pytest.mark.parametrize("theta", [0.0, 0.9])
def test_ellipse_polygon_fits_its_box_and_area(theta: float) -> None:
    found = only({"name": "ellipse", "cx": 50, "cy": 40, "rx": 30, "ry": 10, "theta": theta})
    xs, ys = found["segmentation"][0][::2], found["segmentation"][0][1::2]
    x, y, w, h = found["bbox"]
    assert [min(xs), min(ys), max(xs), max(ys)] == pytest.approx([x, y, x + w, y + h], abs=0.05)
    if theta:  # clockwise on the screen: along the long axis, y grows with x
        assert ys[xs.index(max(xs))] > 40
    polygon = only({"name": "polygon", "all_points_x": xs, "all_points_y": ys})
    assert polygon["area"] == pytest.approx(found["area"], rel=2e-3)


def test_classes_of_text_sorted_by_name() -> None:
    via = {
        **via_of(SQUARE, attributes={"kind": " dog "}, name="d.jpg"),
        **via_of(SQUARE, attributes={"kind": "cat"}, name="c.jpg"),
        **via_of(SQUARE, attributes={"kind": 7}, name="n.jpg"),
    }
    coco = convert(via, class_attribute="kind")
    assert coco["categories"] == [{"id": 1, "name": "7"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}]
    assert [a["category_id"] for a in coco["annotations"]] == [3, 2, 1]


def test_class_of_the_ticked_checkbox() -> None:
    coco = convert(via_of(SQUARE, attributes={"kind": {"cat": "false", "dog": True}}), class_attribute="kind")
    assert coco["categories"] == [{"id": 1, "name": "dog"}]


def test_options_of_a_project_by_description_and_in_order() -> None:
    options = {"z": "zebra", "a": "", "u": "unused"}
    project = {
        "_via_img_metadata": {
            **via_of(SQUARE, attributes={"kind": "a"}, name="1.jpg"),
            **via_of(SQUARE, attributes={"kind": "z"}, name="2.jpg"),
            **via_of(SQUARE, attributes={"kind": "gone"}, name="3.jpg"),
        },
        "_via_attributes": {"region": {"kind": {"type": "dropdown", "options": options}}},
    }
    coco = convert(project, class_attribute="kind")
    assert [(c["id"], c["name"]) for c in coco["categories"]] == [(1, "zebra"), (2, "a"), (3, "unused"), (4, "gone")]
    assert [a["category_id"] for a in coco["annotations"]] == [2, 1, 4]


def test_given_categories_are_kept_with_their_ids() -> None:
    categories = [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog", "supercategory": "animal"}]
    coco = convert(via_of(SQUARE, attributes={"kind": "dog"}), class_attribute="kind", categories=categories)
    assert coco["categories"] == categories
    assert coco["annotations"][0]["category_id"] == 4
    assert problems(via_of(SQUARE, attributes={"kind": "cow"}), class_attribute="kind", categories=categories) == [
        "entry 'a.jpg1', region 0: class 'cow' is not among the given categories: cat, dog"
    ]


def test_missing_classes_are_reported_all_at_once() -> None:
    via = {
        **via_of(SQUARE, attributes={"kind": ""}, name="1.jpg"),
        **via_of(SQUARE, attributes={"type": "cat"}, name="2.jpg"),
        **via_of(SQUARE, attributes={"kind": {}}, name="3.jpg"),
        **via_of(SQUARE, attributes={"kind": {"cat": True, "dog": True}}, name="4.jpg"),
        **via_of(SQUARE, attributes={"kind": ["cat"]}, name="5.jpg"),
        **via_of(SQUARE, attributes={"kind": "cat"}, name="6.jpg"),
    }
    assert problems(via, class_attribute="kind") == [
        "entry '1.jpg1', region 0: no class: region attribute 'kind' is empty",
        "entry '2.jpg1', region 0: no class: region attribute 'kind' is missing; attributes here: 'type'",
        "entry '3.jpg1', region 0: no class: region attribute 'kind' is empty",
        "entry '4.jpg1', region 0: several classes ticked in 'kind': ['cat', 'dog']; leave one",
        "entry '5.jpg1', region 0: region attribute 'kind' must be a class name, found ['cat']",
    ]


def test_no_class_anywhere() -> None:
    assert problems(via_of(), class_attribute="kind") == [
        "no region has a class in 'kind': there is nothing to learn from"
    ]


BROKEN_SHAPES: list[tuple[Any, str]] = [
    (None, "'shape_attributes' must be an object, found None"),
    (
        {"name": "point", "cx": 1, "cy": 2},
        "shape 'point' has no box; expected polygon, polyline, rect, circle or ellipse",
    ),
    ({"name": ["polygon"]}, "shape ['polygon'] has no box"),
    ({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]}, "needs 3 points or more"),
    ({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}, "found 3 x, 2 y"),
    ({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2, 3]}, "encloses no area"),
    ({"name": "polyline", "all_points_x": 4, "all_points_y": [1]}, "'all_points_x' must be a list of numbers, found 4"),
    (
        {"name": "polygon", "all_points_x": [1, None, 3], "all_points_y": [1, 2, 3]},
        "'all_points_x[1]' must be a number of pixels, found None",
    ),
    ({"name": "rect", "x": 1, "y": 1, "width": 0, "height": 5}, "'width' must be above 0, found 0"),
    ({"name": "rect", "x": True, "y": 1, "width": 1, "height": 5}, "'x' must be a number of pixels, found True"),
    ({"name": "rect", "x": math.nan, "y": 1, "width": 1, "height": 5}, "'x' must be a number of pixels, found nan"),
    ({"name": "rect", "x": 10**400, "y": 1, "width": 1, "height": 5}, "'x' must be a number of pixels, found 1000"),
    ({"name": "rect", "y": 1, "width": 1, "height": 5}, "'x' must be a number of pixels, found None"),
    ({"name": "circle", "cx": 1, "cy": 1, "r": -3}, "'r' must be above 0, found -3"),
    ({"name": "circle", "cx": 1, "cy": 1, "r": math.inf}, "'r' must be a number of pixels, found inf"),
    ({"name": "ellipse", "cx": 1, "cy": 1, "rx": 3, "ry": 0}, "'ry' must be above 0, found 0"),
    ({"name": "ellipse", "cx": 1, "cy": 1, "rx": 3, "ry": 1, "theta": "left"}, "'theta' must be a number"),
]


def test_broken_shapes_are_reported_all_at_once_in_order() -> None:
    found = problems(via_of(SQUARE, *[shape for shape, _ in BROKEN_SHAPES], SQUARE))
    assert len(found) == len(BROKEN_SHAPES)
    for number, (line, (_, expected)) in enumerate(zip(found, BROKEN_SHAPES, strict=True), start=1):
        assert line.startswith(f"entry 'a.jpg1', region {number}: ")
        assert expected in line


def test_broken_entries_are_reported_all_at_once() -> None:
    def image_size(name: str) -> tuple[int, int]:
        if name == "gone.jpg":
            raise DataError("photo gone.jpg does not exist")
        return 10, 10

    via = {
        **via_of(SQUARE),
        "twice": via_of(SQUARE)["a.jpg1"],
        "list": [],
        "unnamed": {"filename": "", "regions": []},
        "number": {"filename": 3, "regions": []},
        "control": {"filename": "a\0.jpg", "regions": []},
        "bare": {"filename": "b.jpg"},
        "gone": {"filename": "gone.jpg", "regions": []},
        "region": {"filename": "c.jpg", "regions": {"0": "circle"}},
    }
    with pytest.raises(DataError) as caught:
        convert_via(via, image_size, source="dir/via.json")
    assert str(caught.value).split("\n  ") == [
        "dir/via.json: 8 problems, nothing was converted:",
        "entry 'twice': 'a.jpg' has an entry already; merge the two",
        "entry 'list': expected an object with 'filename' and 'regions', found []",
        "entry 'unnamed': 'filename' must be the photo's file name, found ''",
        "entry 'number': 'filename' must be the photo's file name, found 3",
        "entry 'control': 'filename' must be the photo's file name, found 'a\\x00.jpg'",
        "entry 'bare': 'regions' must be a list (VIA 2) or an object (VIA 1), found None",
        "entry 'gone': photo gone.jpg does not exist",
        "entry 'region', region '0': expected an object with 'shape_attributes', found 'circle'",
    ]


@pytest.mark.parametrize(
    ("via", "found"),
    [
        (None, "a JSON NoneType"),
        ([], "a JSON list"),
        ("text", "a JSON str"),
        ({}, "an object with the keys []"),
        ({"_via_img_metadata": []}, "an object with the keys ['_via_img_metadata']"),
        ({"images": [], "annotations": [], "categories": []}, "COCO, which needs no conversion"),
        ({"project": {}, "file": {}, "metadata": {}, "view": {}}, "a VIA 3 project"),
        ({"shapes": [], "imagePath": "a.jpg"}, "an object with the keys ['shapes', 'imagePath']"),
    ],
)
def test_what_is_not_via(via: object, found: str) -> None:
    with pytest.raises(DataError, match="not a VIA 1 or 2 annotation file") as caught:
        convert(via)
    assert f"found {found}" in str(caught.value)


def test_no_json_ends_in_a_traceback() -> None:
    """Every value of a good project, replaced in turn by every kind of JSON value, is converted or refused."""
    project = {
        "_via_img_metadata": via_of(
            SQUARE,
            {"name": "ellipse", "cx": 9, "cy": 9, "rx": 3, "ry": 2, "theta": 1},
            attributes={"kind": {"o": True}},
        ),
        "_via_attributes": {"region": {"kind": {"type": "checkbox", "options": {"o": "owl"}}}},
    }

    def places(value: object, path: tuple = ()) -> list[tuple]:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *[place for key, item in inner for place in places(item, (*path, key))]]

    kinds: list = [None, True, 0, -1.5, 1e308, 10**400, math.nan, "", "x", "\ud800", [], [[]], {}, {"a": {}}, {"": []}]
    outcomes = set()
    for place in places(project)[1:]:
        for kind in kinds:
            broken = copy.deepcopy(project)
            *parents, last = place
            target: dict = broken
            for key in parents:
                target = target[key]
            target[last] = kind
            for attribute in (None, "kind"):
                try:
                    json.dumps(convert(broken, class_attribute=attribute), allow_nan=False)
                    outcomes.add("converted")
                except DataError as error:
                    str(error).encode()
                    outcomes.add("refused")
    assert outcomes == {"converted", "refused"}


def shoelace(xs: list[int], ys: list[int]) -> float:
    return (
        abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True))) / 2
    )


@pytest.mark.parametrize(("split", "objects", "sizes"), [("train", 255, (10, 82, 163)), ("val", 50, (3, 17, 30))])
def test_balloon(balloon: Path, split: str, objects: int, sizes: tuple[int, int, int]) -> None:
    reference = json.loads((balloon / "annotations" / f"custom_{split}.json").read_text())
    via = json.loads((balloon / "via" / f"via_region_data_{split}.json").read_text())
    size_of = {image["file_name"]: (image["height"], image["width"]) for image in reference["images"]}
    coco = convert_via(via, size_of.__getitem__, source="via", class_name="balloon")

    def boxes_by_name(coco: dict) -> dict[str, list]:
        names = {image["id"]: image["file_name"] for image in coco["images"]}
        boxes: dict[str, list] = {name: [] for name in names.values()}
        for annotation in coco["annotations"]:
            boxes[names[annotation["image_id"]]].append(annotation["bbox"])
        return boxes

    assert boxes_by_name(coco) == boxes_by_name(reference)
    areas = [annotation["area"] for annotation in coco["annotations"]]
    shapes = [region["shape_attributes"] for entry in via.values() for region in entry["regions"].values()]
    assert areas == [shoelace(shape["all_points_x"], shape["all_points_y"]) for shape in shapes]
    assert len(areas) == objects
    small, medium = sum(a < 32**2 for a in areas), sum(32**2 <= a < 96**2 for a in areas)
    assert (small, medium, len(areas) - small - medium) == sizes
    assert coco["categories"] == [{"id": 1, "name": "balloon"}]
