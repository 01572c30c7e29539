"""Boxes as they would be if their four numbers, or their image, were meant otherwise."""

from collections.abc import Callable

import numpy as np

Reading = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes boxes `[N, 4]` as written, and (width, height) `[N, 2]` of their images; gives xywh in pixels."""

ORDERS: dict[str, Reading] = {
    "[x1, y1, x2, y2]": lambda boxes, sizes: np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
    "[centre x, centre y, width, height]": lambda boxes, sizes: np.concatenate(
        [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1
    ),
    "[y, x, height, width]": lambda boxes, sizes: boxes[:, [1, 0, 3, 2]],
    "[x, y, height, width]": lambda boxes, sizes: boxes[:, [0, 1, 3, 2]],
}
"""Other orders of the numbers."""


def _mirror(axes: tuple[int, ...]) -> Reading:
    def read(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        mirrored = boxes.copy()
        for axis in axes:
            mirrored[:, axis] = sizes[:, axis] - boxes[:, axis] - boxes[:, 2 + axis]
        return mirrored

    return read


TURNS: dict[str, Reading] = {
    "of the photo mirrored": _mirror((0,)),
    "of the photo upside down": _mirror((1,)),
    "of the photo turned by 180 degrees": _mirror((0, 1)),
}
"""Photos that were labelled otherwise than they are read, as EXIF's orientation does it."""
