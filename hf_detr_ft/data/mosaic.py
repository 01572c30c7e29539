"""Four training images in one, so that objects come up smaller, beside others and in other places."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from hf_detr_ft.data.tile import Tile, is_enough

TILES = 4
CENTRE = (0.35, 0.65)
"""Least and most of the canvas's side at which the four images meet."""


def draw_mosaic(tiles: Sequence[Tile], draws: np.random.Generator, min_visibility: float) -> Tile:
    """The first image's place, divided among four (Bochkovskiy et al. 2020, arXiv:2004.10934).

    Each image keeps its shape: it is made as small as it can be to fill its quarter, and what stands over is cut off at
    a place that is drawn.

    Args:
        tiles: four; the result has the size of the first, so that shapes are known before pixels are read. One
            of a single row or column stays as it is.
        draws: where the images meet, their order, and what is cut off.
        min_visibility: boxes of which less of their area is left go.
    """
    height, width = tiles[0].pixels.shape[:2]
    if min(height, width) < 2:
        return tiles[0]
    row, column = (int(np.clip(round(side * draws.uniform(*CENTRE)), 1, side - 1)) for side in (height, width))
    quarters = [(0, 0, row, column), (0, column, row, width), (row, 0, height, column), (row, column, height, width)]
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    parts = []
    for index, (top, left, bottom, right) in zip(draws.permutation(TILES), quarters, strict=True):
        part = _fill(tiles[index], (bottom - top, right - left), draws, min_visibility)
        pixels[top:bottom, left:right] = part.pixels
        moved = part.boxes_xywh_px + np.array([left, top, 0, 0], dtype=np.float32)
        parts.append(Tile(part.pixels, moved, part.labels, part.areas))
    return Tile(
        pixels,
        np.concatenate([part.boxes_xywh_px for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.areas for part in parts]),
    )


def _fill(tile: Tile, shape: tuple[int, int], draws: np.random.Generator, min_visibility: float) -> Tile:
    """The image, resized and cut to a shape (height, width)."""
    old = np.array(tile.pixels.shape[:2])
    scale = float((np.array(shape) / old).max())
    window = np.minimum(np.array(shape) / scale, old)  # (height, width) in pixels of the image
    top, left = draws.uniform(size=2) * (old - window)
    bottom, right = top + window[0], left + window[1]
    resized = Image.fromarray(tile.pixels).resize(
        shape[::-1], Image.Resampling.BILINEAR, box=(left, top, right, bottom)
    )
    low = tile.boxes_xywh_px[:, :2].clip((left, top), (right, bottom))
    high = (tile.boxes_xywh_px[:, :2] + tile.boxes_xywh_px[:, 2:]).clip((left, top), (right, bottom))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (high - low).prod(axis=1) / tile.boxes_xywh_px[:, 2:].prod(axis=1)
    kept = is_enough(shares, min_visibility)
    boxes = np.concatenate([low - (left, top), high - low], axis=1)[kept] * scale
    areas = tile.areas[kept] * shares[kept] * scale**2
    return Tile(np.asarray(resized), boxes.astype(np.float32), tile.labels[kept], areas.astype(np.float32))
