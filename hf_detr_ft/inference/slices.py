"""Small objects of large images: detections in slices that overlap, and in the whole image, put together."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from hf_detr_ft.data.image_size import ImageProcessor
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.inference.detect import ImageDetections, detect_prepared, prepare

OVERLAP = 0.25
"""Share of a slice's side that the next one has, too. An object of at most this size is whole in one of them."""
LEAST_SIDE = 32
"""Pixels of a slice."""
LEAST_SCORE = 0.05
"""Detections of slices below it are left out: each slice has as many as an image."""
NEAR_EDGE = 0.02
"""Share of a slice's side within which a box counts as cut by its edge."""
SAME = 0.5
"""IoU of two boxes of one class above which they are one object; of a cut one the share that another has of it."""

Corners = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""


def check_slices(side: int | None, name: str) -> None:
    """Refuses slices that no object fits into. Raises RecipeError, which calls the number by its name."""
    if side is not None and side < LEAST_SIDE:
        raise RecipeError(f"{name}: expected {LEAST_SIDE} or more pixels, found {side}.")


def cut_slices(size: tuple[int, int], side: int) -> list[Corners]:
    """Slices of one shape that cover an image, evenly, with at least `OVERLAP` of a side in common with the next.

    Args:
        size: (height, width) of the image in pixels.
        side: of a slice in pixels; one side of the image that is shorter is not cut.
    """
    (tops, height), (lefts, width) = (_starts(length, side) for length in size)
    return [(left, top, left + width, top + height) for top in tops for left in lefts]


def _starts(length: int, side: int) -> tuple[list[int], int]:
    """First pixels of the slices of one dimension, and their length."""
    if length <= side:
        return [0], length
    count = int(np.ceil((length - side) / (side * (1 - OVERLAP)))) + 1
    return np.linspace(0, length - side, count).round().astype(int).tolist(), side


def detect_slices(
    model: PreTrainedModel, processor: ImageProcessor, image: Image.Image, side: int, batch_size: int, name: str
) -> ImageDetections:
    """Detections of one image, of a score of 0.05 or more, seen in slices and as a whole, each object once.

    The whole image gives objects that can be cut in every slice, being larger than what two have in common. Of two
    boxes of one class that are nearly the same the better one is kept, and one that an edge of its slice has cut gives
    way to one that has most of it. supervision's InferenceSlicer, which asks for the shared part of the smaller box
    alone, loses more neighbours of one class that overlap, and sees no object that is larger than its slices.

    Args:
        model: used in evaluation mode, where it is.
        processor: the model's own.
        image: upright RGB.
        side: of the slices in pixels of the image.
        batch_size: slices that are in the model at once.
        name: of the image, for messages.

    Raises:
        RecipeError: the model gives masks.
        DataError: see `prepare`.
    """
    from hf_detr_ft.inference.detect_files import read_ahead

    whole = (0, 0, image.width, image.height)
    slices = [whole, *(corners for corners in cut_slices((image.height, image.width), side) if corners != whole)]
    read = partial(_prepare_slice, image=image, processor=processor, name=name)
    found, cut = list[ImageDetections](), list[np.ndarray]()
    for batch in read_ahead(slices, read, batch_size):
        parts = [future.result() for future in batch]
        sizes = [(bottom - top, right - left) for (left, top, right, bottom), _ in parts]
        for (corners, _), part in zip(parts, detect_prepared(model, [v for _, v in parts], sizes), strict=True):
            if part.masks is not None:
                raise RecipeError("slices: expected a model that gives boxes, found one with masks. Leave them out.")
            taken = part.scores >= LEAST_SCORE
            if corners == whole and len(slices) > 1:
                taken &= (part.boxes_xyxy_px[:, 2:] - part.boxes_xyxy_px[:, :2]).max(1) > OVERLAP * side
            likely = part.at(np.flatnonzero(taken))
            moved = likely.boxes_xyxy_px + np.array(corners[:2] * 2, dtype=np.float32)
            found.append(replace(likely, boxes_xyxy_px=moved))
            cut.append(_is_cut(moved, corners, whole))
    return _merge(found, np.concatenate(cut))


def _prepare_slice(
    corners: Corners, image: Image.Image, processor: ImageProcessor, name: str
) -> tuple[Corners, torch.Tensor]:
    return corners, prepare(image.crop(corners), processor, name)


def _is_cut(boxes_xyxy_px: np.ndarray, corners: Corners, whole: Corners) -> np.ndarray:
    """True of boxes `[N, 4]` at an edge of their slice that is not one of the image."""
    left, top, right, bottom = corners
    near = NEAR_EDGE * max(right - left, bottom - top)
    inner = np.array(corners) != np.array(whole)
    return ((np.abs(boxes_xyxy_px - np.array(corners)) < near) & inner).any(1)


def _merge(found: list[ImageDetections], cut: np.ndarray) -> ImageDetections:
    """Detections of all slices without doubles."""
    columns: list[Any] = [
        np.concatenate([getattr(part, key) for part in found]) for key in ("scores", "labels", "boxes_xyxy_px")
    ]
    joined = ImageDetections(*columns)
    alive = np.ones(len(joined), dtype=bool)
    kept = []
    for place in np.lexsort((-joined.scores, cut)).tolist():  # whole ones first
        if not alive[place]:
            continue
        kept.append(place)
        rivals = np.flatnonzero(alive & (joined.labels == joined.labels[place]))
        overlap, share = _compare(joined.boxes_xyxy_px[place], joined.boxes_xyxy_px[rivals])
        alive[rivals[(overlap > SAME) | (cut[rivals] & (share > SAME))]] = False
    return joined.at(np.array(kept, dtype=int))


def _compare(box_xyxy: np.ndarray, others_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU of a box with others `[N, 4]`, and the share of each of them that it has."""
    low, high = np.maximum(box_xyxy[:2], others_xyxy[:, :2]), np.minimum(box_xyxy[2:], others_xyxy[:, 2:])
    shared = (high - low).clip(min=0).prod(1)
    area, areas = ((boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (box_xyxy, others_xyxy))
    return shared / np.maximum(area + areas - shared, 1e-6), shared / np.maximum(areas, 1e-6)
