"""VGG Image Annotator (VIA) 1 and 2 to COCO.

A VIA file is an object of images, `{"image.jpg12345": {"filename", "size", "regions", "file_attributes"}}`. VIA 1 keeps
the regions in an object keyed "0", "1", …, VIA 2 in a list; a VIA 2 project has the same under `_via_img_metadata`,
and the options of its attributes under `_via_attributes`.

Boxes go from the smallest to the largest coordinate as VIA wrote it, without half a pixel or a whole one added. That is
what VIA2COCO does too. Areas are exact, which VIA2COCO's and VIA's own are not. Shapes are taken as they were drawn:
nothing is cut at the border of the image.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as short

from hf_detr_ft.errors import DataError

VIA_FILE_NAME = "via_region_data.json"
"""Name that VIA 1 gives its export; looked for where the source is a folder."""

ARC_POINTS = 72
"""Corners of the polygon that stands for a circle or an ellipse in `segmentation`: one every 5 degrees, as in VIA."""

LARGEST_COORDINATE = 1e9
"""Largest coordinate in pixels; anything beyond is a broken file, and would overflow in the area."""

SHAPES = "polygon, polyline, rect, circle or ellipse"


class _Unusable(Exception):
    """One thing is wrong with one region or entry; `convert_via` collects them."""


@dataclass(frozen=True)
class _Shape:
    """A region's geometry, in pixels of the upright image."""

    bbox_xywh_px: list[float]
    area: float
    polygon: list[float]
    """Corners x0, y0, x1, y1, …"""


def convert_via(
    via: object,
    image_size: Callable[[str], tuple[int, int]],
    *,
    source: str,
    class_attribute: str | None = None,
    class_name: str = "object",
    categories: Sequence[Mapping] | None = None,
) -> dict:
    """Makes a COCO dict of a VIA file; all ids start at 1.

    Ids do not start at 0, as VIA2COCO's do, because COCO's do not and because COCO's evaluation takes the annotation
    id 0 for "not matched".

    Args:
        via: the parsed JSON, whatever it is.
        image_size: (height, width) of the upright image of that file name; raises DataError where it has none.
        source: name of the VIA file, for messages.
        class_attribute: the region attribute that holds the class: a text, the value of a dropdown or a radio button,
            or the one ticked checkbox. In a project, an option goes by its description, as in VIA's own COCO export.
        class_name: the class of all regions where there is no `class_attribute`.
        categories: COCO categories to keep to, so that two files get the same ids. Otherwise those of the project's
            options in their order, then those found, sorted by name.

    Raises:
        DataError: `via` is not a VIA file, or some entries or regions are unusable; lists all of them.
    """
    entries = _entries(via, source)
    options = _options(via, class_attribute)
    images: list[dict] = []
    regions: list[tuple[int, str, _Shape]] = []
    problems: list[str] = []
    taken: set[str] = set()
    known = None if categories is None else {str(category["name"]) for category in categories}
    for key, entry in entries.items():
        try:
            file_name = _file_name(entry, taken)
            taken.add(file_name)
            height, width = image_size(file_name)
            raw_regions = _regions(entry)
        except (_Unusable, DataError) as error:
            problems.append(f"entry {short(key)}: {error}")
            continue
        images.append({"id": len(images) + 1, "file_name": file_name, "height": height, "width": width})
        for number, region in raw_regions.items():
            shape, name, wrong = _read_region(region, class_attribute, class_name, options, known)
            problems += [f"entry {short(key)}, region {short(number)}: {what}" for what in wrong]
            if shape is not None and name is not None:
                regions.append((len(images), name, shape))
    if class_attribute is not None and not (problems or regions or options or categories):
        problems.append(f"no region has a class in {class_attribute!r}: there is nothing to learn from")
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise DataError("\n  ".join([f"{source}: {count}, nothing was converted:", *problems]))
    if categories is None:
        found = sorted({name for _, name, _ in regions})
        names = dict.fromkeys([*options.values(), *found] if class_attribute is not None else [class_name])
        categories = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    return _coco(images, regions, categories)


def _coco(images: list[dict], regions: list[tuple[int, str, _Shape]], categories: Sequence[Mapping]) -> dict:
    category_ids = {category["name"]: category["id"] for category in categories}
    annotations = [
        {
            "id": index,
            "image_id": image_id,
            "category_id": category_ids[name],
            "bbox": shape.bbox_xywh_px,
            "area": shape.area,
            "iscrowd": 0,
            "segmentation": [shape.polygon],
        }
        for index, (image_id, name, shape) in enumerate(regions, start=1)
    ]
    return {
        "info": {"description": "Converted from VGG Image Annotator"},
        "images": images,
        "annotations": annotations,
        "categories": [dict(category) for category in categories],
    }


def _entries(via: object, source: str) -> dict:
    """The images of a VIA 1 or 2 file or of a VIA 2 project, by VIA's key."""
    found = f"a JSON {type(via).__name__}"
    if isinstance(via, dict):
        entries = via.get("_via_img_metadata", via)
        if isinstance(entries, dict) and any(isinstance(e, dict) and "filename" in e for e in entries.values()):
            return entries
        if {"images", "annotations"} <= via.keys():
            found = "COCO, which needs no conversion"
        elif {"project", "file", "metadata"} <= via.keys():
            found = "a VIA 3 project, whose annotations VIA 2 has to export"
        else:
            found = f"an object with the keys {short(list(via))}, none of them a photo with a 'filename'"
    raise DataError(
        f"{source}: not a VIA 1 or 2 annotation file: expected photos, each with 'filename' and 'regions', "
        f"or a VIA 2 project with '_via_img_metadata'; found {found}. In VIA 2: Annotation, Export Annotations"
    )


def _options(via: object, class_attribute: str | None) -> dict[str, str]:
    """Class names by option id, where `via` is a project that defines the attribute's options; else empty."""
    value = via
    for key in ("_via_attributes", "region", class_attribute, "options"):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        return {}
    named = {key: text.strip() if isinstance(text, str) else "" for key, text in value.items()}
    return {key: text if text.isprintable() and text else key for key, text in named.items() if key.isprintable()}


def _file_name(entry: object, taken: set[str]) -> str:
    if not isinstance(entry, dict):
        raise _Unusable(f"expected an object with 'filename' and 'regions', found {short(entry)}")
    name = entry.get("filename")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise _Unusable(f"'filename' must be the photo's file name, found {short(name)}")
    if name in taken:
        raise _Unusable(f"{name!r} has an entry already; merge the two")
    return name


def _regions(entry: dict) -> dict:
    regions = entry.get("regions")
    if isinstance(regions, list):
        return dict(enumerate(regions))
    if isinstance(regions, dict):
        return regions
    raise _Unusable(f"'regions' must be a list (VIA 2) or an object (VIA 1), found {short(regions)}")


def _read_region(
    region: object, class_attribute: str | None, class_name: str, options: dict[str, str], known: set[str] | None
) -> tuple[_Shape | None, str | None, list[str]]:
    """Geometry, class name, and what is wrong with either."""
    if not isinstance(region, dict):
        return None, None, [f"expected an object with 'shape_attributes', found {short(region)}"]
    shape, name, wrong = None, None, []
    try:
        shape = _shape(region.get("shape_attributes"))
    except _Unusable as error:
        wrong.append(str(error))
    try:
        name = (
            class_name if class_attribute is None else _class(region.get("region_attributes"), class_attribute, options)
        )
        if known is not None and name not in known:
            raise _Unusable(f"class {name!r} is not among the given categories: {', '.join(sorted(known))}")
    except _Unusable as error:
        wrong.append(str(error))
    return shape, name, wrong


def _class(attributes: object, class_attribute: str, options: dict[str, str]) -> str:
    if not isinstance(attributes, dict) or class_attribute not in attributes:
        there = ", ".join(map(short, attributes)) if isinstance(attributes, dict) and attributes else "none"
        raise _Unusable(f"no class: region attribute {class_attribute!r} is missing; attributes here: {there}")
    value = attributes[class_attribute]
    if isinstance(value, dict):
        ticked = [key for key, is_on in value.items() if is_on is True]
        if len(ticked) > 1:
            raise _Unusable(f"several classes ticked in {class_attribute!r}: {short(ticked)}; leave one")
        value = ticked[0] if ticked else ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise _Unusable(f"no class: region attribute {class_attribute!r} is empty")
    if not isinstance(value, str) or not value.strip().isprintable():
        raise _Unusable(f"region attribute {class_attribute!r} must be a class name, found {short(value)}")
    return options.get(value, value.strip())


def _shape(attributes: object) -> _Shape:
    if not isinstance(attributes, dict):
        raise _Unusable(f"'shape_attributes' must be an object, found {short(attributes)}")
    name = attributes.get("name")
    if name in ("polygon", "polyline"):
        return _polygon(attributes)
    if name == "rect":
        x, y = _number(attributes, "x"), _number(attributes, "y")
        w, h = _number(attributes, "width", positive=True), _number(attributes, "height", positive=True)
        return _Shape([x, y, w, h], w * h, [x, y, x + w, y, x + w, y + h, x, y + h])
    if name == "circle":
        radius = _number(attributes, "r", positive=True)
        return _ellipse(_number(attributes, "cx"), _number(attributes, "cy"), radius, radius, 0.0)
    if name == "ellipse":
        rx, ry = _number(attributes, "rx", positive=True), _number(attributes, "ry", positive=True)
        theta = _number(attributes, "theta") if "theta" in attributes else 0.0
        return _ellipse(_number(attributes, "cx"), _number(attributes, "cy"), rx, ry, theta)
    raise _Unusable(f"shape {short(name)} has no box; expected {SHAPES}; redraw or delete it")


def _polygon(attributes: dict) -> _Shape:
    """Polygon, or polyline closed to one; the area is the shoelace formula's."""
    xs, ys = _numbers(attributes, "all_points_x"), _numbers(attributes, "all_points_y")
    if len(xs) != len(ys) or len(xs) < 3:
        raise _Unusable(
            f"{attributes['name']} needs 3 points or more, each with x and y; found {len(xs)} x, {len(ys)} y"
        )
    polygon = [value for point in zip(xs, ys, strict=True) for value in point]
    area = polygon_area(polygon)
    if area == 0:
        raise _Unusable(f"{attributes['name']} of {len(xs)} points encloses no area; redraw or delete it")
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return _Shape(box, area, polygon)


def polygon_area(points: Sequence[float]) -> float:
    """Area that an outline x, y, x, y, … encloses, by the shoelace formula."""
    # Around the first point: less cancellation where coordinates are fractions, none lost where they are integers.
    dx, dy = [x - points[0] for x in points[0::2]], [y - points[1] for y in points[1::2]]
    return abs(sum(dx[i - 1] * dy[i] - dx[i] * dy[i - 1] for i in range(len(dx)))) / 2


def _ellipse(cx: float, cy: float, rx: float, ry: float, theta: float) -> _Shape:
    """Ellipse turned by `theta` in radians, clockwise on the screen, as HTML's canvas draws it for VIA."""
    cos, sin = math.cos(theta), math.sin(theta)
    half_w, half_h = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    polygon = []
    for step in range(ARC_POINTS):
        u, v = rx * math.cos(math.tau * step / ARC_POINTS), ry * math.sin(math.tau * step / ARC_POINTS)
        polygon += [round(cx + u * cos - v * sin, 3), round(cy + u * sin + v * cos, 3)]
    return _Shape([cx - half_w, cy - half_h, 2 * half_w, 2 * half_h], math.pi * rx * ry, polygon)


def _numbers(attributes: dict, key: str) -> list[float]:
    values = attributes.get(key)
    if not isinstance(values, list):
        raise _Unusable(f"{key!r} must be a list of numbers, found {short(values)}")
    return [_number({f"{key}[{index}]": value}, f"{key}[{index}]") for index, value in enumerate(values)]


def _number(attributes: Mapping, key: str, *, positive: bool = False) -> float:
    found = value = attributes.get(key)
    if isinstance(value, str):  # VIA itself expects that widths can be text
        try:
            value = float(value)
        except ValueError:
            value = None
    # The comparison is false for NaN, and exact for an integer too long for a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_COORDINATE:
        raise _Unusable(f"{key!r} must be a number of pixels, found {short(found)}")
    if positive and value <= 0:
        raise _Unusable(f"{key!r} must be above 0, found {short(found)}; redraw or delete it")
    return value
