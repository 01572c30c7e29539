"""A decoded image with its objects, before it is augmented, and what is left of objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

GREY = 114


@dataclass(frozen=True)
class Tile:
    """A decoded image with its objects."""

    pixels: np.ndarray
    """`[h, w, 3]` uint8."""
    boxes_xywh_px: np.ndarray
    """`[n, 4]` float32."""
    labels: np.ndarray
    """`[n]` int64."""
    areas: np.ndarray
    """`[n]` float32, in pixels of the image."""
    masks: np.ndarray | None = None
    """`[n, h, w]` uint8, where masks are asked for; mosaics are made without."""

    @classmethod
    def empty(cls, height: int, width: int) -> Self:
        """A grey image without objects."""
        pixels = np.full((height, width, 3), GREY, dtype=np.uint8)
        none = np.zeros((0, 4), dtype=np.float32)
        return cls(pixels, none, np.zeros(0, dtype=np.int64), none[:, 0])


def scaled_objects(
    objects: Mapping[str, list], decoded: tuple[int, ...], original: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes `[n, 4]` (xywh) and areas `[n]` in pixels of the image as it was decoded, with the labels `[n]` between.

    Args:
        objects: of a row, in pixels of the original.
        decoded: (height, width).
        original: (height, width).
    """
    boxes = np.asarray(objects["bbox"], dtype=np.float32).reshape(-1, 4)
    labels = np.asarray(objects["label"], dtype=np.int64)
    areas = np.asarray(objects["area"], dtype=np.float32)
    if decoded != original:
        scale = np.array([decoded[1] / original[1], decoded[0] / original[0]], dtype=np.float32)
        boxes, areas = boxes * np.tile(scale, 2), areas * scale.prod()
    return boxes, labels, areas


def has_area_inside(boxes_xywh_px: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes `[n]` of `[n, 4]` of which something lies in the image, as the processor reckons."""
    left_top, sides = boxes_xywh_px[:, :2], np.array([width, height], dtype=np.float32)
    return (np.clip(left_top + boxes_xywh_px[:, 2:], 0, sides) > np.clip(left_top, 0, sides)).all(axis=1)


def is_enough(shares: np.ndarray, min_visibility: float) -> np.ndarray:
    """Mask `[n]` of objects of which these shares of their area are left; NaN, of none at all, is not enough."""
    return shares > max(min_visibility, 1e-9) * (1 - 1e-6)
