"""Photos with constructed predictions, and what a Figure looks like."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from hf_detr_ft.plots.box_overlay import ComparedPhoto

GREY = (120, 120, 120)
INSIDE = (8, 200, 248)
"""Colour of objects in the images: no line has it, and it has no low bits to lose."""


def compared(
    size: tuple[int, int] = (300, 400),
    objects: Sequence[tuple[tuple[float, ...], int, bool]] = (),
    predictions: Sequence[tuple[tuple[float, ...], int, float, int]] = (),
    crowd: Sequence[tuple[float, ...]] = (),
    name: str = "photo.jpg",
    resolution: float = 1.0,
) -> ComparedPhoto:
    """A grey photo in which the objects are filled.

    Args:
        size: (height, width) of the frame that the boxes are in.
        objects: box xyxy, label, whether it was found.
        predictions: box xyxy, label, score, and 1 where it took an object, 0 where it is wrong, -1 where it is ignored.
        crowd: boxes.
        name: for the caption.
        resolution: of the image, relative to the frame.
    """
    height, width = (max(1, round(side * resolution)) for side in size)
    image = Image.new("RGB", (width, height), GREY)
    for box, _, _ in objects:
        x0, y0, x1, y1 = (round(edge * resolution) for edge in box)
        ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill=INSIDE)
    return ComparedPhoto(
        image=image,
        size=size,
        name=name,
        true_boxes_xyxy_px=np.array([*(box for box, _, _ in objects), *crowd], dtype=float).reshape(-1, 4),
        true_labels=np.array([*(label for _, label, _ in objects), *(0 for _ in crowd)], dtype=np.int64),
        crowd=np.array([False] * len(objects) + [True] * len(crowd), dtype=bool),
        found=np.array([*(found for _, _, found in objects), *(False for _ in crowd)], dtype=bool),
        boxes_xyxy_px=np.array([box for box, *_ in predictions], dtype=float).reshape(-1, 4),
        labels=np.array([label for _, label, _, _ in predictions], dtype=np.int64),
        scores=np.array([score for _, _, score, _ in predictions], dtype=np.float32),
        is_tp=np.array([outcome == 1 for *_, outcome in predictions], dtype=bool),
        ignored=np.array([outcome == -1 for *_, outcome in predictions], dtype=bool),
    )


def pixels(figure: Figure) -> np.ndarray:
    """`[h, w, 3]`."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def extent(seen: np.ndarray, colour: Sequence[int] | str, tolerance: int = 24) -> tuple[int, int, int, int]:
    """Left, top, right and bottom pixel of a colour."""
    if isinstance(colour, str):
        colour = tuple(bytes.fromhex(colour.removeprefix("#")))
    rows, columns = np.nonzero((np.abs(seen - colour) <= tolerance).all(axis=-1))
    assert len(rows), f"nothing has the colour {colour}"
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def kinds(figure: Figure, place: int = 0) -> dict[str, int]:
    """Numbers of boxes of each kind that were drawn into the image at this place of the sheet."""
    lines = figure.axes[1 + place].get_lines()
    gids = [str(line.get_gid()) for line in lines]
    return {gid: gids.count(gid) for gid in gids}


def texts(figure: Figure, place: int | None = None) -> list[str]:
    """The labels in a photo, or without a place what is written beside the photos."""
    return [text.get_text() for text in figure.axes[0 if place is None else 1 + place].texts]
