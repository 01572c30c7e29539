"""Labelme: a JSON for each image, with shapes; shapes of one label and one group are one object."""

import math
import os
from pathlib import Path, PurePosixPath
from typing import Any

from hf_detr_ft.data.formats.coco_json import load_annotation_json
from hf_detr_ft.data.formats.json_kinds import find_json_kinds, json_kind
from hf_detr_ft.data.formats.labelled import (
    Faults,
    LabelledImage,
    LabelledObject,
    OpenPhotos,
    Photos,
    Reading,
    class_name,
    finite,
    outline_box,
    read_splits,
)
from hf_detr_ft.data.formats.layout import Layout, Place, Tree, split_of
from hf_detr_ft.errors import DataError

OUTLINES = ("polygon", "oriented_rectangle")
CORNERS = ("rectangle", "mask")
"""Shapes of two opposite corners."""
ARC_POINTS = 72
MOST_BYTES = 1 << 29
"""Largest file; labelme puts the image itself into it."""


def find_labelme(tree: Tree) -> Layout | None:
    """The splits of a folder with JSON files of labelme."""
    files = find_json_kinds(tree).get("labelme", [])
    if not files:
        return None
    by_split: dict[str, list[str]] = {}
    for name in files:
        by_split.setdefault(split_of(str(PurePosixPath(name).parent)) or "train", []).append(name)
    splits = {}
    for split, names in by_split.items():
        folder = os.path.commonpath([str(PurePosixPath(name).parent) or "." for name in names])
        samples = [_last(_load(tree.root / name).get("imagePath")) for name in names[:3]]
        splits[split] = Place(tree.root / folder, tree.images_folder(folder, split, samples))
    return Layout("labelme", splits, f"{files[0]} is a file of labelme")


def read_labelme(layout: Layout, open_photos: OpenPhotos = Photos) -> Reading:
    """The splits.

    Raises:
        DataError: lists what is wrong with the files.
    """
    folders = {place.annotations for place in layout.splits.values()}

    def read(place: Place, photos: Photos, faults: Faults) -> list[LabelledImage]:
        images, others = [], folders - {place.annotations}
        for name in Tree(place.annotations).named(".json"):
            file = place.annotations / name
            if not others & set(file.parents) and json_kind(file) == "labelme":
                with faults.at(file):
                    images.append(_read_image(_load(file), file, photos, faults))
        return images

    return read_splits(layout, open_photos, read), None


def _load(path: Path) -> dict[str, Any]:
    content = load_annotation_json(path, MOST_BYTES)
    if not isinstance(content, dict):
        raise DataError("expected an object with 'shapes' and 'imagePath'")
    return content


def _last(path: object) -> str:
    return str(path).replace("\\", "/").rpartition("/")[2]


def _read_image(content: dict[str, Any], file: Path, photos: Photos, faults: Faults) -> LabelledImage:
    path, shapes = content.get("imagePath"), content.get("shapes")
    if not isinstance(path, str) or not isinstance(shapes, list):
        raise DataError("expected 'imagePath', a text, and 'shapes', a list")
    name = _find(path, file, photos)
    size = photos.size(name, (content.get("imageHeight"), content.get("imageWidth")))
    objects: dict[Any, LabelledObject] = {}
    for number, shape in enumerate(shapes):
        try:
            label, group, thing = _read_shape(shape)
        except DataError as error:
            faults.add(f"{file}, shape {number}", error)
            continue
        key = (label, group) if group is not None else number
        objects[key] = _join(objects[key], thing) if key in objects else thing
    return LabelledImage(name, size, list(objects.values()))


def _find(path: str, file: Path, photos: Photos) -> str:
    """The image of a file: at its path from there, or else of that name in the folder of images."""
    meant = os.path.normpath(file.parent / path.replace("\\", "/").replace("\0", ""))
    for name in (Path(os.path.relpath(meant, photos.images_dir)).as_posix(), _last(path)):
        try:
            return photos.find(name)
        except DataError:
            continue
    return photos.find(path)


def _read_shape(shape: object) -> tuple[str, int | str | None, LabelledObject]:
    """Label, group and object of a shape."""
    if not isinstance(shape, dict):
        raise DataError(f"expected an object with 'label' and 'points', found {shape!r:.60}")
    label, points, kind = class_name(shape.get("label")), shape.get("points"), shape.get("shape_type") or "polygon"
    group = shape.get("group_id")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise DataError(f"expected 'points' to be a list of [x, y], found {points!r:.60}")
    values = [finite(value) for point in points for value in point]
    outline = [value for value in values if value is not None]
    if len(outline) < len(values):
        raise DataError(f"expected 'points' of finite numbers, found {points!r:.60}")
    thing = LabelledObject(label, *_geometry(kind, outline))
    return label, group if isinstance(group, (int, str)) else None, thing


def _geometry(kind: object, outline: list[float]) -> tuple[list[float], list[list[float]] | None]:
    """Box xywh and outlines of a shape, whose points are x, y, x, y, …."""
    if kind in OUTLINES and len(outline) >= 6:
        return outline_box(outline), [outline]
    if kind in CORNERS and len(outline) >= 4:
        return outline_box(outline), None
    if kind == "circle" and len(outline) == 4:
        x, y, radius = outline[0], outline[1], math.dist(outline[:2], outline[2:])
        turns = [math.tau * step / ARC_POINTS for step in range(ARC_POINTS)]
        arc = [value for turn in turns for value in (x + radius * math.cos(turn), y + radius * math.sin(turn))]
        return [x - radius, y - radius, 2 * radius, 2 * radius], [arc]
    raise DataError(
        f"shape {kind!r:.40} of {len(outline) // 2} points has no box; expected a polygon, rectangle, circle or mask; "
        "redraw or delete it"
    )


def _join(one: LabelledObject, other: LabelledObject) -> LabelledObject:
    """One object of two parts."""
    boxes = [thing.box_xywh_px for thing in (one, other)]
    corners = [value for x, y, w, h in boxes for value in (x, y, x + w, y + h)]
    polygons = [*one.polygons, *other.polygons] if one.polygons and other.polygons else None
    return LabelledObject(one.name, outline_box(corners), polygons)
