"""Areas of COCO segmentations: what an annotation's `area` should be, to judge and to correct what the file states.

COCO sorts objects into small, medium and large by `area`, so a wrong one moves AP from one size to another in silence.
"""

import math
from typing import Any, TypeGuard

import numpy as np
from pycocotools import mask as coco_mask

MEDIUM_AREA, LARGE_AREA = 32**2, 96**2
"""Least areas of COCO's medium and large objects, in square pixels."""
MAX_RASTER_SIDE = 30_000
MAX_RASTER_PERIMETER = 1_000_000
"""Pixels; beyond them pycocotools would need gigabytes for one outline, and the polygon is nonsense anyway."""


def is_number(value: object) -> TypeGuard[int | float]:
    """True for finite int and float; a bool is not a number here, nor is an int that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 2**63 and math.isfinite(value)


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


def _rle_fault(rle: dict[str, Any]) -> str | None:
    size, counts = rle.get("size"), rle.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and 0 < side < 2**16 for side in size)):
        return "is an RLE whose 'size' is not [height, width] in whole pixels"
    if isinstance(counts, str):
        # pycocotools reads on past the end of a text whose last character says that more follow.
        broken = not all("0" <= char <= "o" for char in counts) or counts[-1:] >= "P"
        return "is an RLE whose 'counts' are not in COCO's encoding" if broken else None
    if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
        return "is an RLE whose 'counts' are neither a text nor a list of whole numbers"
    if sum(counts) != size[0] * size[1]:
        return f"is an RLE whose 'counts' add up to {sum(counts)}, expected height x width = {size[0] * size[1]}"
    return None


def shoelace_area(polygon_px: list[float]) -> float:
    """Area in square pixels of one polygon [x, y, x, y, …] whose outline does not cross itself."""
    points = np.asarray(polygon_px, dtype=np.float64).reshape(-1, 2)
    # From the first point, so that small polygons far from the origin do not lose digits; its own products are 0.
    x, y = (points[1:] - points[0]).T
    return float(abs(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:])) / 2)


def _perimeter(polygon_px: list[float]) -> float:
    points = np.asarray(polygon_px, dtype=np.float64).reshape(-1, 2)
    x, y = (points[1:] - points[:-1]).T
    return float(np.hypot(x, y).sum() + np.hypot(*(points[0] - points[-1])))


def _raster_area(polygons_px: list[list[float]], perimeter: float) -> float | None:
    """Pixels that the polygons cover together, by COCO's rasteriser; None where the polygons are out of its range."""
    side = max(max(polygon) for polygon in polygons_px)
    if not 0 < side <= MAX_RASTER_SIDE or perimeter > MAX_RASTER_PERIMETER:
        return None
    canvas = math.ceil(side) + 1
    return float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(polygons_px, canvas, canvas))))


def _rle_area(rle: dict[str, Any]) -> float | None:
    if isinstance(rle["counts"], list):
        return float(sum(rle["counts"][1::2]))
    area = float(coco_mask.area(rle))
    # pycocotools decodes any text; runs that leave the image show that it was not an RLE.
    return area if area <= rle["size"][0] * rle["size"][1] else None


def corrected_area(annotation: dict[str, Any]) -> float | None:
    """The area in square pixels by an annotation's segmentation where its `area` disagrees with it, else None.

    A raster mask differs from its polygon by up to about half a pixel along the outline, so an `area` counts as right
    within max(1 %, half the perimeter), and also where it is the polygons' raster area, as in COCO's own files: that is
    smaller than the shoelace sum where parts overlap, larger where an outline crosses itself. None, too, where there
    is nothing to compare: no segmentation, a faulty one, one without extent, a crowd's RLE.
    """
    segmentation, stated = annotation.get("segmentation"), annotation.get("area")
    if not segmentation or segmentation_fault(segmentation) is not None:
        return None
    if isinstance(segmentation, dict):
        area = None if annotation.get("iscrowd") else _rle_area(segmentation)
        return None if not area or (is_number(stated) and abs(stated - area) <= max(1.0, 0.01 * area)) else area
    area = sum(map(shoelace_area, segmentation))
    perimeter = sum(map(_perimeter, segmentation))
    tolerance = max(0.01 * area, 0.5 * perimeter)
    if is_number(stated) and area > 0 and abs(stated - area) <= tolerance:
        return None
    raster = _raster_area(segmentation, perimeter)
    if raster is not None and abs(raster - area) > tolerance:
        area = raster
    return None if area == 0 or (is_number(stated) and abs(stated - area) <= tolerance) else area
