"""Checks of boxes against their image, and of areas against their segmentation."""

from typing import Any, Literal

import numpy as np

from hf_detr_ft.data.checks.annotation_fields import Entry
from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.segmentation_area import measure_segmentations

ROUNDING_PX = 1.0
"""A box may reach this far out of its image: tools round, and count pixels from 0 or 1."""

MIN_BOXES = 3
"""Least boxes that tell something about the format of a file's boxes."""

MIN_SHARE = {"normalised": 0.1, "overhang": 0.2, "fits as corners": 0.9}
"""Shares of a file's boxes. Fractions of 1 are no boxes in pixels. True xywh boxes hardly ever fit as corners, too:
those below and right of others have w < x; and of boxes that are corners, about 3 in 4 reach out if read as xywh."""


def check_boxes(annotations: list[Entry], sizes: dict[int, tuple[int, int]], file: str) -> list[Problem]:
    """Finds boxes that are empty, outside, overhanging, or, by the whole file's statistics, not xywh in pixels.

    Args:
        annotations: all of the file's.
        sizes: image id to (width, height), of those images where both are known.
        file: the file's name.
    """
    placed = [entry for entry in annotations if "bbox" in entry.fields]
    boxes_xywh_px = np.array([entry.fields["bbox"] for entry in placed], dtype=np.float64).reshape(-1, 4)
    found = [sizes.get(entry.fields.get("image_id", -1)) for entry in placed]
    sizes_px = np.array([size or (np.nan, np.nan) for size in found], dtype=np.float64).reshape(-1, 2)
    wrong_format = _check_normalised(placed, boxes_xywh_px, file) or _check_corners(
        placed, boxes_xywh_px, sizes_px, file
    )
    if wrong_format:
        # One cause, one problem: box by box it would be thousands.
        return wrong_format
    left_top, sides = boxes_xywh_px[:, :2], boxes_xywh_px[:, 2:]
    sound = (sides > 0).all(axis=1) & (left_top + sides > 0).all(axis=1)
    sound &= ~(left_top >= sizes_px).any(axis=1) & ~(_overhangs(boxes_xywh_px, sizes_px) > ROUNDING_PX)
    return [problem for i in np.flatnonzero(~sound).tolist() for problem in _check_box(placed[i], found[i], file)]


def _overhangs(boxes_xywh_px: np.ndarray, sizes_px: np.ndarray) -> np.ndarray:
    """Pixels that boxes reach out of their image, `[N]`; NaN where its size is not known."""
    left_top, right_bottom = boxes_xywh_px[:, :2], boxes_xywh_px[:, :2] + boxes_xywh_px[:, 2:]
    return np.maximum(-left_top, right_bottom - sizes_px).max(axis=1, initial=-np.inf)


def _check_normalised(annotations: list[Entry], boxes_xywh_px: np.ndarray, file: str) -> list[Problem]:
    small = np.all((boxes_xywh_px >= 0) & (boxes_xywh_px <= 1.001), axis=1)
    count = int(small.sum())
    if not (boxes_xywh_px[small] % 1).any() or count < MIN_SHARE["normalised"] * len(annotations):
        return []
    message = (
        f"expected boxes in pixels, found {count} of {len(annotations)} with all four values between 0 and 1: "
        f"they look normalised; for example {_examples(annotations, small)}"
    )
    remedy = "multiply x and width by the image's width, y and height by its height"
    return [Problem("error", "boxes-normalised", file, "annotations", message, remedy)]


def _check_corners(
    annotations: list[Entry], boxes_xywh_px: np.ndarray, sizes_px: np.ndarray, file: str
) -> list[Problem]:
    one, other = boxes_xywh_px[:, :2], boxes_xywh_px[:, 2:]
    fitting = ((one >= -ROUNDING_PX) & (one < other) & (other <= sizes_px + ROUNDING_PX)).all(axis=1)
    overhanging = fitting & (_overhangs(boxes_xywh_px, sizes_px) > ROUNDING_PX)
    sized, fit, reach_out = (int(mask.sum()) for mask in (~np.isnan(sizes_px[:, 0]), fitting, overhanging))
    if sized < MIN_BOXES or fit < MIN_SHARE["fits as corners"] * sized or reach_out < MIN_SHARE["overhang"] * sized:
        return []
    message = (
        f"expected [left, top, width, height], found {reach_out} of {sized} boxes that reach out of their "
        f"image, while {fit} fit it as corners: they look like [x1, y1, x2, y2]; "
        f"for example {_examples(annotations, overhanging)}"
    )
    return [Problem("error", "boxes-xyxy", file, "annotations", message, "write [x1, y1, x2 - x1, y2 - y1]")]


def _overhang(box_xywh_px: list[float], size: tuple[int, int]) -> float:
    x, y, w, h = box_xywh_px
    return max(-x, -y, x + w - size[0], y + h - size[1])


def _check_box(entry: Entry, size: tuple[int, int] | None, file: str) -> list[Problem]:
    x, y, w, h = box = entry.fields["bbox"]
    if w <= 0 or h <= 0:
        message = f"expected a box of positive width and height, found {box}"
        # COCO's own files have a few without area; they do no harm, since nothing can be learned from them.
        severity: Literal["error", "warning"] = "warning" if w >= 0 and h >= 0 else "error"
        return [Problem(severity, "box-empty", file, entry.name, message, "correct or remove the annotation")]
    if size is None:
        return []
    image = f"the {size[0]}x{size[1]} image"
    if x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0:
        message = f"expected a box inside {image}, found {box}, wholly outside"
        return [Problem("error", "box-outside", file, entry.name, message, "correct or remove the annotation")]
    overhang = _overhang(box, size)
    if overhang > ROUNDING_PX:
        message = f"expected a box inside {image}, found {box}, which reaches {overhang:g} pixels out of it"
        remedy = "training clips it to the image; correct it if the object is not cut off there"
        return [Problem("warning", "box-overhang", file, entry.name, message, remedy)]
    return []


def _examples(entries: list[Entry], mask: np.ndarray) -> str:
    chosen = [entries[index] for index in np.flatnonzero(mask)[:3].tolist()]
    return ", ".join(f"{entry.name} {entry.fields['bbox']}" for entry in chosen)


def check_areas(annotations: list[Entry], file: str) -> list[Problem]:
    """Finds segmentations that are none, and says in one warning each how many areas are wrong and how many missing."""
    problems = []
    wrong: list[tuple[Entry, float]] = []
    unlike: list[tuple[Entry, float]] = []
    segmentations = measure_segmentations([entry.fields for entry in annotations])
    for entry, measured in zip(annotations, segmentations, strict=True):
        if measured.fault is not None:
            remedy = "correct or remove it; only the area is computed from it"
            message = f"expected polygons or RLE, found a 'segmentation' that {measured.fault}"
            problems.append(Problem("warning", "segmentation", file, entry.name, message, remedy))
        if measured.right_area is not None and "area" in entry.fields:
            (unlike if measured.by_box else wrong).append((entry, measured.right_area))
    if wrong:
        problems.append(_wrong_areas(wrong, len(annotations), file))
    if unlike:
        message = (
            f"expected 'area' in square pixels, found {len(unlike)} of {len(annotations)} without an outline that "
            f"cannot be one; for example {_area_examples(unlike)}"
        )
        remedy = "they are computed from the box, so that small, medium and large are right; nothing to do"
        problems.append(Problem("warning", "area-of-box", file, "annotations", message, remedy))
    missing = [entry for entry in annotations if "area" not in entry.fields]
    if missing:
        message = f"expected 'area' in every annotation, found none in {len(missing)} of {len(annotations)}"
        remedy = "it is computed from the segmentation, or from the box where there is none; nothing to do"
        problems.append(Problem("warning", "area-missing", file, "annotations", message, remedy))
    return problems


def _wrong_areas(wrong: list[tuple[Entry, float]], total: int, file: str) -> Problem:
    errors = [abs(entry.fields["area"] - right) / right for entry, right in wrong]
    message = (
        f"expected 'area' to be the segmentation's, found {len(wrong)} of {total} that disagree with it, "
        f"by {np.median(errors):.0%} at the median; for example {_area_examples(wrong)}"
    )
    remedy = "they are computed from the segmentation, so that small, medium and large are right; nothing to do"
    return Problem("warning", "area", file, "annotations", message, remedy)


def _area_examples(wrong: list[tuple[Entry, float]]) -> str:
    return ", ".join(f"{entry.name} {_number(entry.fields['area'])} for {_number(right)}" for entry, right in wrong[:3])


def _number(value: Any) -> str:
    return f"{value:.6g}"
