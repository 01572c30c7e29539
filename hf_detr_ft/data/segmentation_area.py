"""Areas of COCO segmentations: what an annotation's `area` should be, to judge and to correct what the file states.

COCO sorts objects into small, medium and large by `area`, so a wrong one moves AP from one size to another in silence.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from pycocotools import mask as coco_mask

from hf_detr_ft.data.outlines import Outlines

MEDIUM_AREA, LARGE_AREA = 32**2, 96**2
"""Least areas of COCO's medium and large objects, in square pixels."""
MAX_RASTER_SIDE = 30_000
MAX_RASTER_PERIMETER = 1_000_000
"""Pixels; beyond them pycocotools would need gigabytes for one outline, and the polygon is nonsense anyway."""
CHUNK = 4096
"""Annotations that are measured at a time."""
LEAST_AREA = 4
"""Area of a box, in square pixels, beyond which an object of one pixel or less is a placeholder."""
COUNTS = re.compile("[0-o]*[0-O]")
"""COCO's encoding of runs. pycocotools reads on past the end of a text whose last character says that more follow."""


class Measured(NamedTuple):
    """Fault and area of a segmentation; stands in an annotation in the place of the outline, which is far larger."""

    fault: str | None = None
    """See `segmentation_fault`."""
    right_area: float | None = None
    """Area where the annotation states another one or none, see `corrected_area`."""
    by_box: bool = False
    """True where that area is the box's: there is no outline, and the stated area cannot be."""


def is_number(value: object) -> TypeGuard[int | float]:
    """True for finite int and float; a bool is not a number here, nor is an int that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -(2.0**63) < value < 2.0**63


def segmentation_fault(segmentation: object) -> str | None:
    """Fault that keeps a segmentation from being COCO's: polygons [[x, y, x, y, x, y, …], …] or RLE {size, counts}."""
    if isinstance(segmentation, dict):
        return _rle_fault(segmentation)
    if not isinstance(segmentation, list):
        return f"is {type(segmentation).__name__}, expected a list of polygons or an RLE object"
    for index, polygon in enumerate(segmentation):
        if not isinstance(polygon, list):
            return f"has {type(polygon).__name__} as polygon {index}, expected a list [x, y, x, y, …]"
        if not all(is_number(value) for value in polygon):
            return f"has a value in polygon {index} that is not a finite number"
        if len(polygon) < 6 or len(polygon) % 2:
            return f"has {len(polygon)} values in polygon {index}, expected an even count of at least 6"
    return None


def is_outline(segmentation: object, height: int, width: int) -> bool:
    """True for polygons or an RLE without fault, as they outline an object on an image of so many pixels."""
    if not segmentation or segmentation_fault(segmentation) is not None:
        return False
    return not isinstance(segmentation, dict) or segmentation["size"] == [height, width]


def _rle_fault(rle: dict[str, Any]) -> str | None:
    size, counts = rle.get("size"), rle.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and 0 < side < 2**16 for side in size)):
        return "is an RLE whose 'size' is not [height, width] in whole pixels"
    if isinstance(counts, str):
        return None if not counts or COUNTS.fullmatch(counts) else "is an RLE whose 'counts' are not in COCO's encoding"
    if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
        return "is an RLE whose 'counts' are neither a text nor a list of whole numbers"
    if sum(counts) != size[0] * size[1]:
        return f"is an RLE whose 'counts' add up to {sum(counts)}, expected height x width = {size[0] * size[1]}"
    return None


def measure_segmentations(annotations: Sequence[dict[str, Any]]) -> list[Measured]:
    """Fault and right area of each annotation's segmentation.

    Args:
        annotations: entries of a COCO file with anything in their fields; outlines may be measured already.
    """
    measured: list[Measured] = []
    for start in range(0, len(annotations), CHUNK):
        measured += _measure_chunk(annotations[start : start + CHUNK])
    return measured


def corrected_area(annotation: dict[str, Any]) -> float | None:
    """The area in square pixels by an annotation's segmentation where its `area` disagrees with it, else None.

    A raster mask differs from its polygon by up to about half a pixel along the outline, so an `area` counts as right
    within max(1 %, half the perimeter), and also where it is the polygons' raster area, as in COCO's own files: that is
    smaller than the shoelace sum where parts overlap, larger where an outline crosses itself. None, too, where there
    is nothing to compare: no segmentation, a faulty one, one without extent, a crowd's RLE.
    """
    return measure_segmentations([annotation])[0].right_area


def _measure_chunk(annotations: Sequence[dict[str, Any]]) -> list[Measured]:
    measured = [Measured()] * len(annotations)
    drawn = []
    for index, annotation in enumerate(annotations):
        segmentation = annotation.get("segmentation")
        if segmentation is None or segmentation == []:
            measured[index] = _measure_box(annotation)
        elif type(segmentation) is list:
            drawn.append(index)
        elif segmentation is not None:
            measured[index] = _measure_other(segmentation, annotation)
    outlines = Outlines.read([annotations[index]["segmentation"] for index in drawn])
    if outlines is None:
        for index in drawn:
            measured[index] = Measured(segmentation_fault(annotations[index]["segmentation"]))
        drawn = [index for index in drawn if measured[index].fault is None]
        outlines = Outlines.read([annotations[index]["segmentation"] for index in drawn])
        assert outlines is not None, "what has no fault is an outline"
    for place, area in _right_areas(outlines, [annotations[index] for index in drawn]):
        measured[drawn[place]] = Measured(None, area)
    return measured


def _right_areas(outlines: Outlines, annotations: Sequence[dict[str, Any]]) -> Iterator[tuple[int, float]]:
    """Positions of the annotations that state another area than their outlines have, or none, and the right area."""
    stated = np.array([area if is_number(area := entry.get("area")) else np.nan for entry in annotations])
    areas, perimeters = outlines.areas, outlines.perimeters
    tolerances = np.maximum(0.01 * areas, 0.5 * perimeters)
    asked = np.flatnonzero(~((areas > 0) & (np.abs(stated - areas) <= tolerances)))
    for place, overlaps in zip(asked.tolist(), outlines.may_overlap(asked).tolist(), strict=True):
        area, tolerance = float(areas[place]), float(tolerances[place])
        raster = _raster_area(annotations[place]["segmentation"], float(perimeters[place])) if overlaps else None
        if raster is not None and abs(raster - area) > tolerance:
            area = raster
        if area > 0 and not abs(stated[place] - area) <= tolerance:
            yield place, area


def _raster_area(polygons_px: list[list[float]], perimeter: float) -> float | None:
    """Pixels that the polygons cover together, by COCO's rasteriser; None where the polygons are out of its range."""
    side = max(max(polygon) for polygon in polygons_px)
    if not 0 < side <= MAX_RASTER_SIDE or perimeter > MAX_RASTER_PERIMETER:
        return None
    canvas = math.ceil(side) + 1
    return float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(polygons_px, canvas, canvas))))


def _measure_box(annotation: dict[str, Any]) -> Measured:
    """Measures what has no outline: an area of 0 or 1 is a placeholder, and one below 1 relative to the image."""
    box, stated = annotation.get("bbox"), annotation.get("area")
    if not is_number(stated) or not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return Measured()
    width, height = box[2], box[3]
    area = float(width * height)
    is_unlike = stated <= 0 or (stated <= 1 and area > LEAST_AREA)
    return Measured(None, area, by_box=True) if min(width, height) > 0 and is_unlike else Measured()


def _measure_other(segmentation: object, annotation: dict[str, Any]) -> Measured:
    """Measures what is no list of polygons."""
    stated = annotation.get("area")
    if isinstance(segmentation, Measured):
        if segmentation.right_area is None or segmentation.right_area != stated:
            return segmentation
        return segmentation._replace(right_area=None)
    fault = segmentation_fault(segmentation)
    if fault is not None or not isinstance(segmentation, dict) or annotation.get("iscrowd") == 1:
        return Measured(fault)
    area = _rle_area(segmentation)
    agrees = not area or (is_number(stated) and abs(stated - area) <= max(1.0, 0.01 * area))
    return Measured(None, None if agrees else area)


def _rle_area(rle: dict[str, Any]) -> float | None:
    if isinstance(rle["counts"], list):
        return float(sum(rle["counts"][1::2]))
    area = float(coco_mask.area(rle))
    # pycocotools decodes any text; runs that leave the image show that it was not an RLE.
    return area if area <= rle["size"][0] * rle["size"][1] else None
