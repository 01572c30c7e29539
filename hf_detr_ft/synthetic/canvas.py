"""Tools to draw the shapes of synthetic images with: noise, colours, textures, shading, and a canvas in parts.

Colours are RGB in [0, 1], arrays of floats are float32. A canvas is square, its coordinates run from -1 to 1, x to the
right and y down.
"""

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
"""Array of float32."""
Mask = NDArray[Any]
"""Array of uint8, 0 or 255."""
SUBPIXEL_BITS = 4
"""Fractional bits of the points that are given to OpenCV."""


def value_noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[float, float], octaves: int = 3) -> Array:
    """Smooth noise of several scales, mostly in [0, 1], shape [height, width].

    Args:
        rng: where the values come from.
        size: (height, width).
        cells: how many values the coarsest scale has down and across; each further one has twice as many.
        octaves: the number of scales, each of half the one before's strength.
    """
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        rows, columns = (max(2, min(round(n * 2**octave), side)) for n, side in zip(cells, size, strict=True))
        grid = rng.random((rows, columns), dtype=np.float32) - 0.5
        total += cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return np.clip(total * 0.75 + 0.5, 0, 1)


def random_colour(
    rng: np.random.Generator, saturation: tuple[float, float] = (0.35, 1), value: tuple[float, float] = (0.3, 1)
) -> Array:
    """A colour of any hue, shape [3]."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)), np.float32)


def object_colour(rng: np.random.Generator) -> Array:
    """A colour to paint an object in: vivid, pale, dark or grey."""
    kind = rng.random()
    if kind < 0.65:
        return random_colour(rng, (0.55, 1), (0.45, 1))
    if kind < 0.85:
        return random_colour(rng, (0.1, 0.5), (0.4, 1))
    return random_colour(rng, (0, 0.15), (0.08, 1))


def mix(first: ArrayLike, second: ArrayLike, share: Array) -> Array:
    """Blend from `first` where `share` is 0 to `second` where it is 1; colours broadcast over [height, width]."""
    first, second = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return first + (second - first) * share[..., None]


def smooth_step(values: Array, width: float) -> Array:
    """0 below -width, 1 above it, a ramp between."""
    return np.clip(values / (2 * width) + 0.5, 0, 1).astype(np.float32, copy=False)


def pattern(rng: np.random.Generator, x: Array, y: Array, pixel: float) -> Array:
    """Stripes, dots, checks, waves, a gradient or noise, in [0, 1]; `pixel` is the side of one in x and y."""
    angle = rng.uniform(0, np.pi)
    cosine, sine = math.cos(angle), math.sin(angle)
    u, v = x * cosine + y * sine, y * cosine - x * sine
    kind, count = rng.integers(6), rng.uniform(2, 7)
    edge = pixel * count * 2
    if kind == 0:
        return smooth_step(np.sin(u * count * np.pi) + rng.uniform(-0.6, 0.6), edge * 2)
    if kind == 1:
        far = np.hypot((u * count) % 1 - 0.5, (v * count) % 1 - 0.5)
        return smooth_step(rng.uniform(0.22, 0.4) - far, edge / 2)
    if kind == 2:
        return smooth_step(np.sin(u * count * np.pi) * np.sin(v * count * np.pi), edge * 2)
    if kind == 3:
        return smooth_step(np.sin((u + 0.12 * np.sin(v * rng.uniform(4, 12))) * count * np.pi), edge * 2)
    if kind == 4:
        return np.clip(u * rng.uniform(0.4, 1.2) + 0.5, 0, 1)
    return smooth_step(value_noise(rng, x.shape, (count, count)) - 0.5, rng.uniform(0.05, 0.5))


@dataclass
class Canvas:
    """An object that is drawn part by part, the later parts over the earlier ones."""

    side: int
    """Side in pixels."""
    light: tuple[float, float, float]
    """Unit vector towards the light; z points to the viewer."""
    rng: np.random.Generator

    def __post_init__(self) -> None:
        axis = ((np.arange(self.side, dtype=np.float32) + 0.5) / self.side) * 2 - 1
        self.x, self.y = np.meshgrid(axis, axis)
        self.colour: Array = np.zeros((self.side, self.side, 3), np.float32)
        self.opacity: Array = np.ones((self.side, self.side), np.float32)
        self.solid: Mask = np.zeros((self.side, self.side), np.uint8)
        """255 where anything of the object is, a balloon's string included."""
        self.labelled: Mask = np.zeros((self.side, self.side), np.uint8)
        """255 where what is annotated is."""

    def _pixels(self, points: ArrayLike) -> NDArray[np.int32]:
        pixels = (np.asarray(points, np.float64) + 1) / 2 * self.side - 0.5
        return np.round(pixels * 2**SUBPIXEL_BITS).astype(np.int32)

    def area(self, *outlines: ArrayLike) -> Mask:
        """255 inside outlines of shape [N, 2]; where two overlap, it is outside."""
        mask = np.zeros((self.side, self.side), np.uint8)
        cv2.fillPoly(mask, [self._pixels(outline) for outline in outlines], 255, cv2.LINE_8, SUBPIXEL_BITS)
        return mask

    def line(self, points: ArrayLike, width: float, closed: bool = False) -> Mask:
        """255 on a line of shape [N, 2]; `width` in canvas units, at least a pixel."""
        mask = np.zeros((self.side, self.side), np.uint8)
        thickness = max(1, round(width / 2 * self.side))
        cv2.polylines(mask, [self._pixels(points)], closed, 255, thickness, cv2.LINE_8, SUBPIXEL_BITS)
        return mask

    def paint(self, mask: Mask, colour: ArrayLike, labelled: bool = True, opacity: ArrayLike = 1.0) -> None:
        """Adds a part; `colour` is one colour or an array [side, side, 3]."""
        left, top, width, height = cv2.boundingRect(mask)
        box = np.s_[top : top + height, left : left + width]
        inside, colour, opacity = mask[box] > 0, np.asarray(colour, np.float32), np.asarray(opacity, np.float32)
        np.copyto(self.colour[box], colour[box] if colour.ndim == 3 else colour, where=inside[..., None])
        np.copyto(self.opacity[box], opacity[box] if opacity.ndim == 2 else opacity, where=inside)
        self.solid[box] |= mask[box]
        if labelled:
            self.labelled[box] |= mask[box]

    def surface(self, base: ArrayLike | None = None, textured: float = 0.5) -> Array:
        """A colour over the canvas, with a texture in a share `textured` of all cases; shape [side, side, 3]."""
        rng = self.rng
        base = object_colour(rng) if base is None else np.asarray(base, np.float32)
        flat = np.broadcast_to(base, self.colour.shape)
        if rng.random() < textured:
            other = object_colour(rng) if rng.random() < 0.7 else base * rng.uniform(0.45, 0.8)
            flat = mix(flat, other, pattern(rng, self.x, self.y, 2 / self.side))
        grain = value_noise(rng, self.x.shape, (6, 6), 4) - 0.5
        return flat * (1 + rng.uniform(0.05, 0.35) * grain[..., None])

    def lit(self, nx: Array, ny: Array, ambient: float = 0.45) -> Array:
        """Brightness [side, side] of a surface whose normal has these parts in the picture's plane."""
        flat = np.hypot(nx, ny)
        over = np.maximum(flat, 1)
        nz = np.sqrt(np.maximum(1 - flat * flat, 0))
        towards = (nx * self.light[0] + ny * self.light[1]) / over + nz * self.light[2]
        return ambient + (1.15 - ambient) * np.maximum(towards, 0)

    def bulge(self, mask: Mask, reach: float = 0.15) -> Array:
        """Brightness of a shape that is rounded off towards its outline over `reach` of the canvas."""
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3) / (reach / 2 * self.side)
        slope = cv2.blur(np.minimum(depth, 1), (3, 3))
        gx, gy = (cv2.Sobel(slope, cv2.CV_32F, *order, ksize=3) for order in ((1, 0), (0, 1)))
        scale = np.maximum(np.hypot(gx, gy), 1e-6)
        lean = np.cos(np.minimum(slope, 1) * np.pi / 2) * (depth < 1)
        return self.lit(-gx / scale * lean, -gy / scale * lean)

    def shine(self, cx: float, cy: float, rx: float, ry: float, size: float) -> Array:
        """A highlight in [0, 1] on a round body, on the side that the light comes from."""
        hx, hy = cx + 0.5 * self.light[0] * rx, cy + 0.5 * self.light[1] * ry
        turn = math.atan2(self.light[1], self.light[0])
        cosine, sine = math.cos(turn), math.sin(turn)
        dx, dy = (self.x - hx) / rx, (self.y - hy) / ry
        along, across = dx * cosine + dy * sine, dy * cosine - dx * sine
        return np.exp(-((along / size) ** 2 + (across / (1.7 * size)) ** 2))


Draw = Callable[[Canvas], None]
"""Draws one object in the middle of a canvas; varies it with the canvas's random numbers."""


def ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0, stop: float = 2 * np.pi) -> NDArray:
    """An arc's points [N, 2], clockwise on the screen from the right; a whole ellipse by default."""
    t = np.linspace(start, stop, 48)
    return np.stack([cx + rx * np.cos(t), cy + ry * np.sin(t)], axis=1)


def mirrored(half: Sequence[tuple[float, float]]) -> NDArray:
    """An outline that is symmetric about x = 0, from its right half from top to bottom."""
    right = np.array(half)
    return np.concatenate([right, right[::-1] * (-1, 1)])
