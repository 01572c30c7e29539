"""Objects of a synthetic image as layers: turned and scaled onto its pixels, put where enough of each can be seen."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_detr_ft.synthetic.canvas import Array, Canvas, Draw

MIN_VISIBLE_SHARE = 0.3
MIN_VISIBLE_PIXELS = 20
"""An object that would leave less of any object to be seen is not placed: nothing is shown without its annotation."""
TRIES = 10
"""Places that are tried for an object, until it is left out."""

Pixels = NDArray[np.bool_]


@dataclass
class Layer:
    """An object on the image's pixels, in a patch of its own; its masks hold pixels at least half covered."""

    name: str | None
    """The class; None for what is not annotated."""
    colour: Array
    """Premultiplied by `alpha`, [h, w, 3]."""
    alpha: Array
    solid: Pixels
    labelled: Pixels


@dataclass
class Placed:
    """A layer in the image."""

    layer: Layer
    left: int
    top: int
    visible: Pixels
    """Mask [height, width] of the labelled pixels in the image that nothing covers."""

    @property
    def share(self) -> float:
        """Visible share of the whole object."""
        return float(self.visible.sum() / max(int(self.layer.labelled.sum()), 1))


def draw_layer(
    rng: np.random.Generator, draw: Draw, name: str | None, extent: float, lean: float, light: NDArray[np.float64]
) -> Layer:
    """Draws an object, turns, stretches, mirrors and blurs it.

    Args:
        rng: where the variation comes from.
        draw: draws it upright.
        name: its class.
        extent: geometric mean of its width and height, in pixels.
        lean: how far it is turned at most, in radians; one in eight is turned anyhow.
        light: unit vector towards the light of the image.
    """
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.125 else lean * rng.uniform(-1, 1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.exp(rng.uniform(-0.12, 0.12))
    shape = np.array([[stretch * rng.choice([-1, 1]), rng.uniform(-0.12, 0.12)], [0, 1 / stretch]])
    matrix = turn @ shape
    local = np.linalg.solve(matrix, light[:2])
    local *= np.hypot(*light[:2]) / np.hypot(*local)
    side = int(np.clip(extent * 2.3, 56, 400))
    canvas = Canvas(side, (float(local[0]), float(local[1]), float(light[2])), rng)
    draw(canvas)
    _, _, width, height = cv2.boundingRect(canvas.labelled if name else canvas.solid)
    matrix *= extent / np.sqrt(width * height)
    return _onto_pixels(canvas, matrix, name, _blur(rng, extent))


def _blur(rng: np.random.Generator, extent: float) -> float:
    """Standard deviation in pixels: most objects are sharp, some out of focus, small ones never beyond recognition."""
    return float(min(rng.uniform(0.5, 2.5), 0.03 * extent) if rng.random() < 0.25 else 0)


def _onto_pixels(canvas: Canvas, matrix: NDArray[np.float64], name: str | None, blur: float) -> Layer:
    left, top, width, height = cv2.boundingRect(canvas.solid)
    corners = np.array([(left, top), (left + width, top), (left, top + height), (left + width, top + height)])
    ends = (corners - canvas.side / 2) @ matrix.T
    margin = int(3 * blur) + 2
    low = np.floor(ends.min(0)).astype(int) - margin
    size = np.ceil(ends.max(0)).astype(int) + margin - low
    # OpenCV's coordinates are those of pixel centres, half a pixel from ours on both sides.
    middle = (canvas.side - 1) / 2
    shift = -matrix @ (middle, middle) - low - 0.5
    affine = np.concatenate([matrix, shift[:, None]], 1)
    alpha = canvas.opacity * (canvas.solid > 0)
    parts: Array = np.dstack([canvas.colour * alpha[..., None], alpha])
    cover: Array = np.dstack([canvas.solid, canvas.labelled]).astype(np.float32) / 255
    shrink = np.sqrt(abs(np.linalg.det(matrix)))
    if shrink < 0.55:  # so that no thin line falls between the pixels
        parts, cover = (cv2.GaussianBlur(array, (0, 0), float(0.35 / shrink)) for array in (parts, cover))
    parts, cover = (cv2.warpAffine(array, affine, (int(size[0]), int(size[1]))) for array in (parts, cover))
    if blur > 0:
        parts = cv2.GaussianBlur(parts, (0, 0), blur)
    return Layer(name, parts[..., :3], parts[..., 3], cover[..., 0] >= 0.5, cover[..., 1] >= 0.5)


def _window(
    layer: Layer, left: int, top: int, size: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of an image of (height, width) and of the patch that lie on each other."""
    height, width = layer.alpha.shape
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, size[1]), min(top + height, size[0])
    x1, y1 = max(x0, x1), max(y0, y1)
    return np.s_[y0:y1, x0:x1], np.s_[y0 - top : y1 - top, x0 - left : x1 - left]


def place(rng: np.random.Generator, placed: list[Placed], layer: Layer, size: tuple[int, int]) -> bool:
    """Puts a layer in front of the others, where it hides none of them too much and enough of it is seen itself.

    Args:
        rng: where the places to try come from.
        placed: the layers behind it, from back to front; gets it, and their `visible` what it covers.
        layer: the new one.
        size: (height, width) of the image.

    Returns:
        Whether there was such a place.
    """
    patch = np.array(layer.alpha.shape)
    for _ in range(TRIES):
        kind = rng.random()
        if placed and kind < 0.25:  # beside another one, which it then often covers in part
            other = placed[rng.integers(len(placed))]
            middle = np.array([other.top, other.left]) + np.array(other.layer.alpha.shape) * rng.uniform(-0.1, 1.1, 2)
        elif kind < 0.65:  # as wholly in the image as it can be
            room = np.maximum(np.array(size) - patch, 0)
            middle = (np.array(size) - room) / 2 + room * rng.random(2)
        else:
            middle = np.array(size) * rng.uniform(0, 1, 2)
        top, left = (int(value) for value in np.round(middle - patch / 2))
        on_photo, on_patch = _window(layer, left, top, size)
        new = Placed(layer, left, top, np.zeros(size, bool))
        new.visible[on_photo] = layer.labelled[on_patch]
        if layer.name is not None and not _enough(new.visible.sum(), layer):
            continue
        hidden = [int((behind.visible[on_photo] & layer.solid[on_patch]).sum()) for behind in placed]
        if all(
            behind.layer.name is None or not lost or _enough(behind.visible.sum() - lost, behind.layer)
            for behind, lost in zip(placed, hidden, strict=True)
        ):
            for behind, lost in zip(placed, hidden, strict=True):
                if lost:
                    behind.visible[on_photo] &= ~layer.solid[on_patch]
            placed.append(new)
            return True
    return False


def _enough(pixels: int, layer: Layer) -> bool:
    return pixels >= MIN_VISIBLE_PIXELS and pixels >= MIN_VISIBLE_SHARE * int(layer.labelled.sum())


def compose(rng: np.random.Generator, background: Array, placed: list[Placed]) -> Array:
    """Paints the layers over the background, some with a soft shadow on what is behind them."""
    size = background.shape[0], background.shape[1]
    sun, dark = rng.uniform(-0.15, 0.15, 2), rng.uniform(0.2, 0.6)
    shadows = rng.random() < 0.5
    for item in placed:
        layer = item.layer
        if shadows:
            extent = float(np.sqrt(layer.alpha.size))
            soft = cv2.GaussianBlur(layer.alpha, (0, 0), max(0.03 * extent, 0.5), borderType=cv2.BORDER_CONSTANT)
            dx, dy = (int(value) for value in np.round(sun * extent))
            on_photo, on_patch = _window(layer, item.left + dx, item.top + abs(dy), size)
            background[on_photo] *= 1 - np.float32(dark) * soft[on_patch][..., None]
        on_photo, on_patch = _window(layer, item.left, item.top, size)
        background[on_photo] *= 1 - layer.alpha[on_patch][..., None]
        background[on_photo] += layer.colour[on_patch]
    return background
