"""Repair of one split's annotations: what is wrong is put right where that is clear, and left out where it is not."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hf_detr_ft.data.checks.annotation_fields import (
    ANNOTATION_FIELDS,
    CATEGORY_FIELDS,
    IMAGE_FIELDS,
    Entry,
    Field,
    read_entries,
)
from hf_detr_ft.data.checks.box_checks import ROUNDING_PX, check_boxes
from hf_detr_ft.data.checks.image_checks import ImageHeader, read_image
from hf_detr_ft.data.checks.training_checks import find_twice, plain_name
from hf_detr_ft.data.coco import leaves_folder, with_polygon_areas
from hf_detr_ft.data.file_names import ImageNames
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.segmentation_area import measure_segmentations

Note = Callable[[str, str, str], None]
"""Takes the kind of a problem, the entry, and what was done."""


def repair_coco(coco: dict[str, Any], images_dir: Path | None, size: ImageSize | None, note: Note) -> dict[str, Any]:
    """A COCO dict in which the checks of a split find no error.

    Args:
        coco: as `read_coco` returns it; left as it is.
        images_dir: the images; None where they are no files.
        size: that the model takes images in; those too thin for it go.
        note: is told every change.
    """
    images = _whole(coco["images"], IMAGE_FIELDS, "image", note)
    annotations = _whole(coco["annotations"], ANNOTATION_FIELDS, "annotation", note)
    categories, moved = _merge(_whole(coco["categories"], CATEGORY_FIELDS, "category", note), "name", plain_name, note)
    _move(annotations, "category_id", moved)
    if images_dir is not None:
        images = _repair_files(images, annotations, images_dir, note)
    images, moved = _merge(images, "file_name", str, note)
    _move(annotations, "image_id", moved)
    for image in images:
        if size is not None and size.is_too_thin(image["height"], image["width"]):
            note("thin-image", _name(image), "left out")
    images = [image for image in images if size is None or not size.is_too_thin(image["height"], image["width"])]
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    known = {category["id"] for category in categories}
    kept, ids = [], set[int]()
    free = max((annotation["id"] for annotation in annotations), default=0) + 1
    for annotation in annotations:
        if annotation["image_id"] not in sizes or annotation["category_id"] not in known:
            note("unknown-image or -category", _name(annotation), "left out")
            continue
        if annotation["id"] in ids:
            note("duplicate-annotation-id", _name(annotation), f"numbered {free}")
            annotation["id"], free = free, free + 1
        ids.add(annotation["id"])
        kept.append(annotation)
    kept = _repair_boxes(kept, sizes, note)
    return {**coco, "images": images, "annotations": _repair_areas(kept, note), "categories": categories}


def _name(entry: Mapping[str, Any]) -> str:
    return f"id {entry.get('id')}" + (f" ({entry['file_name']!r})" if "file_name" in entry else "")


def _whole(entries: list[Any], rules: Mapping[str, Field], what: str, note: Note) -> list[dict[str, Any]]:
    """Copies of entries whose fields have the right types, numbers in quotes among them."""
    whole = []
    for place, raw in enumerate(entries):
        entry = dict(raw) if isinstance(raw, dict) else {}
        for key, rule in rules.items():
            value = entry.get(key)
            if key in entry and not rule.holds(value):
                number = _number(value)
                if number is not None and rule.holds(number):
                    note("field", f"{what} {place}", f"{key} {value!r} written as {number}")
                    entry[key] = number
                elif not rule.required or (key in ("width", "height") and what == "image"):
                    del entry[key]
        lacking = [
            key
            for key, rule in rules.items()
            if rule.required and not rule.holds(entry.get(key)) and not (what == "image" and key in ("width", "height"))
        ]
        if lacking:
            note("entry", f"{what} {place}", f"left out: {', '.join(lacking)} missing or wrong")
        else:
            whole.append(entry)
    return whole


def _number(value: Any) -> int | float | None:
    try:
        number = float(value) if isinstance(value, str | float) else None
    except ValueError:
        return None
    return int(number) if number is not None and number.is_integer() else number


def _merge(
    entries: list[dict[str, Any]], key: str, plain: Callable[[str], str], note: Note
) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """Entries of one name made one, and new ids by old; an id that two different ones have is nobody's."""
    first: dict[str, dict[str, Any]] = {}
    owners: dict[int, set[str]] = {}
    for entry in entries:
        owners.setdefault(entry["id"], set()).add(plain(entry[key]))
    moved = {}
    for entry in entries:
        name, id_ = plain(entry[key]), entry["id"]
        if len(owners[id_]) > 1:
            note("duplicate-id", _name(entry), f"left out, as what refers to it: {len(owners[id_])} have this id")
            continue
        other = first.setdefault(name, entry)
        moved[id_] = other["id"]
        if other is not entry:
            note(f"duplicate-{key}", _name(entry), f"merged with {_name(other)}")
    return list(first.values()), moved


def _move(annotations: list[dict[str, Any]], key: str, moved: Mapping[int, int]) -> None:
    for annotation in annotations:
        annotation[key] = moved.get(annotation[key], -(2**62))


def _repair_files(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], images_dir: Path, note: Note
) -> list[dict[str, Any]]:
    """Images whose files are there and whole, with the sizes that these have; boxes follow where they can."""
    names, kept = ImageNames(images_dir), []
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in annotations:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    for image in images:
        file_name = image["file_name"]
        if leaves_folder(file_name) or not names.has(file_name):
            found = names.find(file_name)
            if len(found) != 1:
                note("missing-image", _name(image), "left out with its annotations")
                continue
            note("missing-image", _name(image), f"file_name written as {found[0]!r}")
            image["file_name"] = found[0]
        header = read_image(images_dir / image["file_name"])
        if isinstance(header, str):
            note("unreadable-image", _name(image), f"left out with its annotations: {header}")
        elif _repair_size(image, by_image.get(image["id"], []), header, note):
            kept.append(image)
    return kept


def _repair_size(image: dict[str, Any], objects: list[dict[str, Any]], header: ImageHeader, note: Note) -> bool:
    """Gives an image the size of its file; false where its boxes cannot be said to fit."""
    stated, (width, height) = (image.get("width"), image.get("height")), header.upright
    image["width"], image["height"] = width, height
    if stated == (width, height):
        return True
    if stated == header.stored:
        for annotation in objects:
            _move_box(annotation, turn_box(annotation["bbox"], header.orientation, *header.stored))
        note("exif-rotation", _name(image), f"boxes turned with the photo; orientation {header.orientation}")
        return True
    boxes = np.array([annotation["bbox"] for annotation in objects], dtype=np.float64).reshape(-1, 4)
    ends = (boxes[:, :2] + boxes[:, 2:]).max(axis=0, initial=0)
    fits = (ends <= np.array([width, height]) + ROUNDING_PX).all()
    if None not in stated and not (fits and stated == (height, width)):
        scale = np.array([width, height]) / np.array(stated, dtype=float)
        if abs(scale[0] / scale[1] - 1) < 0.02:
            for annotation in objects:
                _move_box(annotation, (np.array(annotation["bbox"]) * np.tile(scale, 2)).round(2).tolist())
            note("image-size", _name(image), f"{stated[0]}x{stated[1]} and its boxes scaled to {width}x{height}")
            return True
    note("image-size", _name(image), f"written as {width}x{height}" if fits else "left out: its boxes do not fit it")
    return bool(fits)


def _move_box(annotation: dict[str, Any], box_xywh_px: list[float]) -> None:
    """Gives an annotation another box; its outline, which stays behind, goes, and its area with it."""
    annotation["bbox"] = box_xywh_px
    for key in ("segmentation", "area"):
        annotation.pop(key, None)


def turn_box(box_xywh_px: list[float], orientation: int, width: int, height: int) -> list[float]:
    """A box on the stored pixels of a photo, as it lies on the photo that its EXIF orientation makes upright."""
    x, y, w, h = box_xywh_px
    right, bottom = width - x - w, height - y - h
    if orientation in (5, 6, 7, 8):
        across, down = (bottom if orientation in (6, 7) else y), (right if orientation in (7, 8) else x)
        return [across, down, h, w]
    return [right if orientation in (2, 3) else x, bottom if orientation in (3, 4) else y, w, h]


def _repair_boxes(
    annotations: list[dict[str, Any]], sizes: Mapping[int, tuple[int, int]], note: Note
) -> list[dict[str, Any]]:
    """Objects with boxes in pixels, inside their images, each once."""
    entries = read_entries({"images": [], "categories": [], "annotations": annotations}, "").annotations
    kinds = {problem.kind for problem in check_boxes(entries, dict(sizes), "")}
    kept = []
    for annotation in annotations:
        width, height = sizes[annotation["image_id"]]
        x, y, w, h = annotation["bbox"]
        if "boxes-normalised" in kinds and max(x, y, w, h) <= 1.001:
            x, y, w, h = x * width, y * height, w * width, h * height
        elif "boxes-xyxy" in kinds:
            w, h = w - x, h - y
        left, right, top, bottom = min(x, x + w), max(x, x + w), min(y, y + h), max(y, y + h)
        inside = [max(left, 0), max(top, 0), min(right, width), min(bottom, height)]
        overhang = max(-left, -top, right - width, bottom - height)
        if inside[2] <= inside[0] or inside[3] <= inside[1]:
            note("box-empty or -outside", _name(annotation), f"left out: {annotation['bbox']}")
            continue
        box = [inside[0], inside[1], inside[2] - inside[0], inside[3] - inside[1]]
        if overhang > ROUNDING_PX or (w < 0 or h < 0) or kinds & {"boxes-normalised", "boxes-xyxy"}:
            box = [round(value, 2) for value in box]
            note("box", _name(annotation), f"{annotation['bbox']} written as {box}")
            annotation["bbox"] = box
            if "segmentation" not in annotation:
                annotation.pop("area", None)
        kept.append(annotation)
    objects = [annotation for annotation in kept if not annotation.get("iscrowd")]
    boxes = np.array([annotation["bbox"] for annotation in objects], dtype=np.float64).reshape(-1, 4)
    plain = [Entry(annotation, place, lambda place, fields: "") for place, annotation in enumerate(objects)]
    twice = {max(one, other) for one, other, _ in find_twice(plain, boxes)}
    for place in sorted(twice):
        note("box-twice", _name(objects[place]), "left out")
    gone = {id(objects[place]) for place in twice}
    return [annotation for annotation in kept if id(annotation) not in gone]


def _repair_areas(annotations: list[dict[str, Any]], note: Note) -> list[dict[str, Any]]:
    for annotation, measured in zip(annotations, measure_segmentations(annotations), strict=True):
        if measured.fault is not None:
            note("segmentation", _name(annotation), f"left out: it {measured.fault}")
            del annotation["segmentation"]
            annotation.pop("area", None)
    repaired, written = with_polygon_areas({"images": [], "categories": [], "annotations": annotations})
    if written:
        note("area", "annotations", f"{written} areas computed")
    result: list[dict[str, Any]] = repaired["annotations"]
    return result
