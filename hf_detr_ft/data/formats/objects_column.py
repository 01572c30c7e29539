"""Rows with a column `objects`, as data sets of the Hub have it: an object of lists, or a list of objects.

Boxes are left, top, width and height unless the column's key says otherwise (`bbox_xyxy`, `bbox_cxcywh`) or most of
them would leave their image so; in pixels, or relative to the image where none is above 1.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hf_detr_ft.data.formats.labelled import Faults, LabelledImage, LabelledObject, class_name, finite
from hf_detr_ft.errors import DataError

COLUMNS = ("objects", "annotations", "object", "faces")
BOXES = ("bbox", "bboxes", "boxes", "box")
CLASSES = ("category", "categories", "label", "labels", "category_id", "category_ids", "class", "classes", "name", "id")
HINT = re.compile(r"xywh|xyxy|cxcywh")
SLACK_PX = 1.0
"""Pixels that a box may leave its image by."""


class RawObjects(NamedTuple):
    """Objects of one row, before it is clear what its boxes are."""

    boxes: list[list[float]]
    labels: list[str]
    crowd: list[bool]
    form: str | None
    """Form of the boxes, where the column says it."""


def read_objects(row: dict[str, Any], names: Sequence[str] = ()) -> RawObjects:
    """Objects of a row.

    Args:
        row: with one of `COLUMNS`, or with the columns of the objects themselves.
        names: of the classes by number.

    Raises:
        DataError: there are none, or the lists do not fit together.
    """
    cell = next((row[key] for key in COLUMNS if key in row), row)
    if isinstance(cell, list):
        keys = {key for thing in cell if isinstance(thing, dict) for key in thing}
        if not all(isinstance(thing, dict) for thing in cell):
            raise DataError(f"expected objects with a box and a class, found {cell!r:.80}")
        cell = {key: [thing.get(key) for thing in cell] for key in keys} if cell else {"bbox": [], "category": []}
    if not isinstance(cell, dict):
        raise DataError(f"expected 'objects' with boxes and classes, found {cell!r:.80}")
    key = next((key for key in cell if HINT.sub("", key).strip("_") in BOXES), None)
    boxes = cell[key] if key is not None else None
    labels = next((cell[name] for name in CLASSES if isinstance(cell.get(name), list)), None)
    if not isinstance(boxes, list) or not isinstance(labels, list) or len(boxes) != len(labels):
        raise DataError(
            f"expected a list of boxes ({', '.join(BOXES)}) and one as long of classes ({', '.join(CLASSES[:4])}, …), "
            f"found the keys {', '.join(map(str, cell))!s:.120}"
        )
    form = HINT.search(key or "")
    crowd = cell.get("iscrowd")
    is_crowd = [bool(value) for value in crowd] if isinstance(crowd, list) and len(crowd) == len(boxes) else None
    return RawObjects(
        [_box(box) for box in boxes],
        [_label(label, names) for label in labels],
        is_crowd or [False] * len(boxes),
        form[0] if form else None,
    )


def _box(box: object) -> list[float]:
    values = [finite(value) for value in box] if isinstance(box, list) else []
    numbers = [value for value in values if value is not None]
    if len(values) != 4 or len(numbers) != 4:
        raise DataError(f"expected a box of four finite numbers, found {box!r:.80}")
    return numbers


def _label(label: object, names: Sequence[str]) -> str:
    if type(label) is int and names:
        if not 0 <= label < len(names):
            raise DataError(f"expected a class from 0 to {len(names) - 1}, found {label}")
        return names[label]
    return class_name(label)


RawImage = tuple[str, tuple[int, int], RawObjects]
"""File name, size (height, width) and objects of an image."""


def place_objects(splits: Mapping[str, Sequence[RawImage]], faults: Faults) -> dict[str, list[LabelledImage]]:
    """Images with their objects, of all splits: their boxes have the same form.

    Raises:
        DataError: there are faults, the boxes fit their images in no form, or some are none in that form.
    """
    faults.refuse()
    every = [image for images in splits.values() for image in images]
    boxes = [(box, size) for _, size, raw in every for box in raw.boxes]
    relative = bool(boxes) and all(0 <= value <= 1 for box, _ in boxes for value in box)
    stated = next((raw.form for _, _, raw in every if raw.form), None)
    form = stated or _choose(boxes, relative)
    placed: dict[str, list[LabelledImage]] = {}
    for split, images in splits.items():
        placed[split] = []
        for image in images:
            with faults.at(f"{split}, image {image[0]!r}"):
                placed[split].append(_place(image, form, relative))
    faults.refuse()
    return placed


def _place(image: RawImage, form: str, relative: bool) -> LabelledImage:
    name, (height, width), raw = image
    scale = (width, height) * 2 if relative else (1, 1, 1, 1)
    things = []
    for box, label, crowd in zip(raw.boxes, raw.labels, raw.crowd, strict=True):
        box_xywh_px = _to_xywh([v * s for v, s in zip(box, scale, strict=True)], form)
        if min(box_xywh_px[2:]) < 0:
            raise DataError(
                f"expected width and height of 0 or more, found {box} as {form}; correct it, or name the column's key "
                "by what its boxes are, such as bbox_xywh"
            )
        things.append(LabelledObject(label, box_xywh_px, None, crowd))
    return LabelledImage(name, (height, width), things)


def _choose(boxes: Sequence[tuple[list[float], tuple[int, int]]], relative: bool) -> str:
    """The first form in which nearly all boxes are inside of their images."""
    for form in ("xywh", "xyxy", "cxcywh"):
        inside = 0
        for box, (height, width) in boxes:
            w, h = (1, 1) if relative else (width, height)
            slack = SLACK_PX / max(height, width) if relative else SLACK_PX
            x, y, box_w, box_h = _to_xywh(box, form)
            fits = min(x, y) >= -slack and x + box_w <= w + slack and y + box_h <= h + slack
            inside += fits and box_w >= 0 and box_h >= 0
        if inside >= 0.9 * len(boxes):
            return form
    raise DataError(
        "the boxes leave their images as xywh, as xyxy and as cxcywh; name the column's key by what they are, such as "
        "bbox_xyxy, or correct them"
    )


def _to_xywh(box: list[float], form: str) -> list[float]:
    one, other, three, four = box
    if form == "xyxy":
        return [one, other, three - one, four - other]
    if form == "cxcywh":
        return [one - three / 2, other - four / 2, three, four]
    return box
