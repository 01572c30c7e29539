"""Objects of one training image on another, so that each comes up in more places and beside others."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from hf_detr_ft.boxes import xywh_to_xyxy, xyxy_to_xywh
from hf_detr_ft.data.tile import Tile, is_enough

MOST = 10
"""Objects that are pasted onto an image, at most."""
SCALES = (0.5, 1.5)
"""Least and most of an object's size, in shares of the short side, that it is pasted with."""


class Piece(NamedTuple):
    """An object that was cut out, and where it goes."""

    source: int
    """Index of the object on its image."""
    pixels: np.ndarray
    """`[h, w, 3]` uint8."""
    opacity: np.ndarray
    """`[h, w]` uint8, 255 within the outline."""
    top: int
    left: int
    scale: float
    """Its size by that on its own image."""

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns that it takes."""
        height, width = self.opacity.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    @property
    def mask(self) -> np.ndarray:
        """`[h, w]` bool."""
        return self.opacity > 127


def paste_objects(tile: Tile, other: Tile, draws: np.random.Generator, min_visibility: float) -> Tile:
    """An image with objects of another one (Ghiasi et al. 2021, arXiv:2012.07177).

    Each is cut out along its mask, at half to one and a half times its size, mirrored or not, and lies anywhere within
    the image. Boxes of what it covers are drawn around the rest.

    Args:
        tile: with masks; the result has its size.
        other: with masks.
        draws: which objects, their sizes and their places.
        min_visibility: objects of which less of their area is left go.
    """
    count = len(other.labels)
    chosen = draws.permutation(count)[: draws.integers(1, min(MOST, count), endpoint=True)] if count else ()
    pieces = [piece for index in chosen if (piece := _cut(other, int(index), tile, draws)) is not None]
    if not pieces:
        return tile
    assert tile.masks is not None
    first, shape = len(tile.labels), tile.pixels.shape[:2]
    whole = np.concatenate([tile.masks, np.zeros((len(pieces), *shape), dtype=np.uint8)])
    pixels, visible = tile.pixels.copy(), whole.copy()
    for number, piece in enumerate(pieces, first):
        whole[number][piece.place] = visible[number][piece.place] = piece.mask
        visible[(slice(number), *piece.place)][:, piece.mask] = 0
        share = piece.opacity[..., None] / np.float32(255)
        pixels[piece.place] = (pixels[piece.place] * (1 - share) + piece.pixels * share).round()
    taken = [piece.source for piece in pieces]
    areas = other.areas[taken] * np.array([piece.scale**2 for piece in pieces], dtype=np.float32)
    boxes = np.concatenate([tile.boxes_xywh_px, _around(whole[first:])])
    labels, areas = np.concatenate([tile.labels, other.labels[taken]]), np.concatenate([tile.areas, areas])
    return _rests(Tile(pixels, boxes, labels, areas, visible), whole, min_visibility)


def _cut(other: Tile, index: int, tile: Tile, draws: np.random.Generator) -> Piece | None:
    """One object, with a size and a place on another image; None of an object without a pixel."""
    assert other.masks is not None
    (height, width), own = tile.pixels.shape[:2], other.pixels.shape[:2]
    scale = draws.uniform(*SCALES) * min(height, width) / min(own)
    is_mirrored, place = draws.random() < 0.5, draws.random(2)
    left, top, *sides = _around(other.masks[index : index + 1])[0].astype(int).tolist()
    if not min(sides):
        return None
    scale = min(scale, width / sides[0], height / sides[1])
    size = [min(most, max(1, round(side * scale))) for side, most in zip(sides, (width, height), strict=True)]
    window = slice(top, top + sides[1]), slice(left, left + sides[0])
    images = [Image.fromarray(part[window]) for part in (other.pixels, other.masks[index] * np.uint8(255))]
    parts = [np.asarray(image.resize((size[0], size[1]), Image.Resampling.BILINEAR)) for image in images]
    pixels, opacity = (part[:, ::-1] if is_mirrored else part for part in parts)
    top, left = (
        int(share * (side - part + 1)) for share, side, part in zip(place, (height, width), size[::-1], strict=True)
    )
    return Piece(index, pixels, opacity, top, left, scale)


def _rests(tile: Tile, whole: np.ndarray, min_visibility: float) -> Tile:
    """The objects of which enough is seen, with boxes around what is seen of them.

    Args:
        tile: with the boxes of whole objects, and masks of what is seen.
        whole: masks `[n, h, w]` of whole objects.
        min_visibility: least share of an object that is seen.
    """
    assert tile.masks is not None
    seen_pixels, all_pixels = (masks.sum(axis=(1, 2), dtype=np.int64) for masks in (tile.masks, whole))
    shares = np.where(all_pixels > 0, seen_pixels / np.maximum(all_pixels, 1), 1)
    covered = shares < 1
    boxes = tile.boxes_xywh_px.copy()
    seen, before = (xywh_to_xyxy(_around(masks[covered])) for masks in (tile.masks, whole))
    boxes[covered] = xyxy_to_xywh(np.where(seen == before, xywh_to_xyxy(boxes[covered]), seen))  # other sides stay
    kept = is_enough(shares, min_visibility)
    areas = (tile.areas * shares).astype(np.float32)
    return Tile(tile.pixels, boxes[kept], tile.labels[kept], areas[kept], tile.masks[kept])


def _around(masks: np.ndarray) -> np.ndarray:
    """Boxes `[n, 4]` xywh in pixels around masks `[n, h, w]`; of no size around none."""
    ends = []
    for axis in (1, 2):  # columns, rows
        along = np.asarray(masks.any(axis=axis))
        first, last = along.argmax(axis=1), along.shape[1] - along[:, ::-1].argmax(axis=1)
        ends.append((first, np.where(along.any(axis=1), last - first, 0)))
    (left, width), (top, height) = ends
    return np.stack([left, top, width, height], axis=1).astype(np.float32)
