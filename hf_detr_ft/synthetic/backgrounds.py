"""Backgrounds and distractors of a synthetic image, and the camera's effects on all of it."""

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_detr_ft.synthetic.canvas import (
    Array,
    Canvas,
    ellipse,
    mix,
    object_colour,
    pattern,
    random_colour,
    smooth_step,
    value_noise,
)

Size = tuple[int, int]
"""Height and width in pixels."""


def _muted(rng: np.random.Generator) -> Array:
    return random_colour(rng, (0.05, 0.6), (0.2, 0.95))


def _grid(size: Size) -> tuple[Array, Array]:
    """Coordinates x and y of the pixels, [height, width]; the short side is 2 long, the middle (0, 0)."""
    height, width = size
    scale = 2 / min(size)
    x = (np.arange(width, dtype=np.float32) - width / 2) * scale
    y = (np.arange(height, dtype=np.float32) - height / 2) * scale
    return np.meshgrid(x, y)


def _gradient(rng: np.random.Generator, size: Size) -> Array:
    corners = np.stack([_muted(rng) for _ in range(4)]).reshape(2, 2, 3)
    corners = corners.mean((0, 1)) + (corners - corners.mean((0, 1))) * rng.uniform(0.3, 1)
    smooth = cv2.resize(corners, size[::-1], interpolation=cv2.INTER_LINEAR)
    return smooth * (0.9 + 0.2 * value_noise(rng, size, (4, 4), 5))[..., None]


def _texture(rng: np.random.Generator, size: Size) -> Array:
    """Cloth, stone, wood, foliage: noise that may be drawn out along one direction."""
    coarse, stretch = rng.uniform(2, 16), rng.choice([1, 1, 4, 10])
    cells = (coarse * stretch, coarse) if rng.random() < 0.5 else (coarse, coarse * stretch)
    tones = value_noise(rng, size, cells, int(rng.integers(3, 6)))
    colour = _muted(rng)
    paint = mix(colour * rng.uniform(0.3, 0.8), np.minimum(colour * 1.3, 1), tones)
    if rng.random() < 0.5:
        patches = smooth_step(value_noise(rng, size, (coarse, coarse)) - 0.5, rng.uniform(0.02, 0.2))
        paint = mix(paint, _muted(rng), patches * rng.uniform(0.3, 1))
    return paint


def _plane(rng: np.random.Generator, size: Size) -> Array:
    """Stripes, checks, dots or bricks on a plane that is seen at an angle."""
    x, y = _grid(size)
    tilt, turn = rng.uniform(-0.4, 0.4, 2)
    depth = 1 + tilt * x / max(float(x.max()), 1) + turn * y / max(float(y.max()), 1)
    u, v = x / depth, y / depth
    if rng.random() < 0.45:
        rows = rng.uniform(4, 12)
        row = np.floor(v * rows)
        along = (u * rows / 2.2 + 0.5 * (row % 2)) % 1
        joint = np.minimum(np.minimum(along, 1 - along) * 2.2, np.minimum((v * rows) % 1, 1 - (v * rows) % 1))
        shade = np.sin(row * 12.9898 + np.floor(u * rows / 2.2 + 0.5 * (row % 2)) * 78.233)
        stone = _muted(rng) * (1 + 0.15 * shade)[..., None]
        paint = mix(_muted(rng), stone, smooth_step(joint - rng.uniform(0.04, 0.1), 0.05))
    else:
        colour = _muted(rng)
        other = colour * rng.uniform(0.5, 0.9) if rng.random() < 0.6 else _muted(rng)
        paint = mix(colour, other, pattern(rng, u, v, 2 / min(size)))
    return paint * (0.75 + 0.5 * value_noise(rng, size, (3, 3), 5))[..., None]


def _bokeh(rng: np.random.Generator, size: Size) -> Array:
    """Lights far out of focus."""
    paint = _gradient(rng, size) * rng.uniform(0.3, 0.9)
    tint, largest = random_colour(rng, (0.2, 0.9), (0.8, 1)), rng.uniform(0.05, 0.16)
    glow = np.zeros_like(paint)
    for _ in range(int(rng.integers(12, 45))):
        centre = [int(rng.uniform(0, side)) for side in size[::-1]]
        colour = mix(tint, random_colour(rng, (0.1, 0.9), (0.7, 1)), np.array(rng.random()))
        disc = np.zeros(size, np.uint8)
        cv2.circle(disc, centre, max(2, int(rng.uniform(0.3, 1) * largest * min(size))), 255, -1)
        box = cv2.boundingRect(disc)
        part = np.s_[box[1] : box[1] + box[3], box[0] : box[0] + box[2]]
        glow[part] += (disc[part] > 0)[..., None] * colour * np.float32(rng.uniform(0.08, 0.4))
    return paint + cv2.GaussianBlur(glow, (0, 0), float(rng.uniform(0.8, 3)))


def _landscape(rng: np.random.Generator, size: Size) -> Array:
    """Sky with clouds, hills or houses, and ground."""
    height, width = size
    horizon = rng.uniform(0.3, 0.75) * height
    rows = np.arange(height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    low = np.array([rng.uniform(0.6, 0.95), rng.uniform(0.7, 0.9), rng.uniform(0.75, 1)], np.float32)
    high = np.array([rng.uniform(0.15, 0.55), rng.uniform(0.35, 0.65), rng.uniform(0.6, 0.95)], np.float32)
    paint = mix(high, low, np.clip(rows / horizon, 0, 1)) * rng.uniform(0.5, 1.05)
    clouds = smooth_step(value_noise(rng, size, (5, 3), 5) - rng.uniform(0.4, 0.75), 0.2)
    paint = mix(paint, np.ones(3) * rng.uniform(0.6, 1), clouds * rng.uniform(0.2, 0.9))
    for step in range(int(rng.integers(0, 3))):
        colour = mix(_muted(rng), low, np.array(0.45 - 0.2 * step)) * 0.8
        if rng.random() < 0.5:
            ridge = value_noise(rng, (2, width), (2, rng.uniform(3, 9)), 4)[0]
            top = horizon - height * (0.3 - 0.1 * step) * ridge
        else:
            steps = rng.random(int(rng.integers(5, 16)))
            top = horizon - height * rng.uniform(0.1, 0.4) * np.repeat(steps, width // len(steps) + 1)[:width]
        covered = smooth_step(rows - top[None], 1.0)
        paint = mix(paint, colour * (0.85 + 0.3 * value_noise(rng, size, (20, 20), 2))[..., None], covered)
    near = np.maximum(rows - horizon, 0) / height
    ground = _texture(rng, size) * (0.7 + 0.6 * near)[..., None]
    return mix(paint, ground, smooth_step(rows - horizon, 1.5))


def _room(rng: np.random.Generator, size: Size) -> Array:
    """A wall with frames or windows above a table or floor."""
    height, width = size
    paint = (_gradient if rng.random() < 0.6 else _plane)(rng, size)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(-0.1, 0.9) * width, rng.uniform(-0.1, 0.5) * height
        w, h = rng.uniform(0.12, 0.4, 2) * min(size)
        outer = np.s_[max(0, int(y)) : max(0, int(y + h)), max(0, int(x)) : max(0, int(x + w))]
        paint[outer] = _muted(rng)
        edge = 0.08 * min(w, h)
        inner = np.s_[
            max(0, int(y + edge)) : max(0, int(y + h - edge)), max(0, int(x + edge)) : max(0, int(x + w - edge))
        ]
        paint[inner] = _gradient(rng, size)[inner] * rng.uniform(0.5, 1.4)
    edge = rng.uniform(0.5, 0.9) * height
    table = (_plane if rng.random() < 0.5 else _texture)(rng, size)
    rows = np.arange(height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    dark = 1 - 0.35 * np.exp(-np.abs(rows - edge) / (0.04 * height))
    return mix(paint, table, smooth_step(rows - edge, 1.0)) * dark[..., None]


def _heap(rng: np.random.Generator, size: Size) -> Array:
    """Foliage, gravel, a crowded shelf: very many flat shapes on one another."""
    paint, colour = _gradient(rng, size) * rng.uniform(0.3, 0.8), _muted(rng)
    spread, largest = float(rng.choice([0.04, 0.08, 0.16])), rng.uniform(0.04, 0.2) * min(size)
    corners, count = int(rng.integers(3, 9)), int(rng.integers(80, 300))
    angles = np.sort(rng.uniform(0, 2 * np.pi, (count, corners)), axis=1)
    radii = largest * rng.uniform(0.3, 1, (count, 1)) * rng.uniform(0.7, 1.2, (count, corners))
    shapes = np.stack([radii * np.cos(angles), rng.uniform(0.4, 1) * radii * np.sin(angles)], -1)
    shapes += (rng.random((count, 2)) * size[::-1])[:, None]
    inks = np.clip(colour + rng.normal(0, spread, (count, 3)) + rng.normal(0, 0.1, (count, 1)), 0, 1)
    for shape, ink in zip(np.round(shapes * 16).astype(np.int32), inks, strict=True):
        cv2.fillPoly(paint, [shape], ink.tolist(), cv2.LINE_8, 4)
    return paint * (0.7 + 0.6 * value_noise(rng, size, (5, 5), 4))[..., None]


BACKGROUNDS: tuple[Callable[[np.random.Generator, Size], Array], ...] = (
    _gradient,
    _texture,
    _plane,
    _heap,
    _bokeh,
    _landscape,
    _room,
)


def draw_background(rng: np.random.Generator, size: Size) -> Array:
    """One of the kinds, with or without clutter of lines over it, in or out of focus; float [height, width, 3]."""
    paint: Array = np.ascontiguousarray(BACKGROUNDS[rng.integers(len(BACKGROUNDS))](rng, size), dtype=np.float32)
    if rng.random() < 0.25:
        colour, spread = _muted(rng), float(rng.choice([0.04, 0.1, 0.2]))
        for _ in range(int(rng.integers(3, 40))):
            start, direction = rng.uniform(0, 1, 2) * size[::-1], rng.normal(0, 0.12 * min(size), 2)
            steps = direction + rng.normal(0, 0.3 * np.hypot(*direction), (int(rng.integers(2, 7)), 2))
            points = np.round((start + np.cumsum(steps, 0)) * 16).astype(np.int32)
            ink = np.clip(colour + rng.normal(0, spread, 3), 0, 1)
            cv2.polylines(paint, [points], False, ink.tolist(), int(rng.integers(1, 5)), cv2.LINE_8, 4)
    if rng.random() < 0.5:
        paint = cv2.GaussianBlur(paint, (0, 0), float(rng.uniform(0.5, 0.02 * min(size))))
    return paint


def draw_distractor(canvas: Canvas) -> None:
    """An object of no class: a panel, a blob, a flat disc, a cross, an arrow, a crescent, a pole, scribbled letters."""
    rng = canvas.rng
    kind = rng.integers(8)
    if kind == 0:
        w, h = rng.uniform(0.3, 0.9, 2)
        mask = canvas.area(np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) + rng.normal(0, 0.04, (4, 2)))
    elif kind == 1:
        t = np.linspace(0, 2 * np.pi, 60)
        radius = 0.6 + sum(rng.uniform(-0.14, 0.14) * np.sin(k * t + rng.uniform(0, 6)) for k in range(2, 6))
        mask = canvas.area(np.stack([radius * np.cos(t), radius * np.sin(t)], 1))
    elif kind == 2:
        mask = canvas.area(ellipse(0, 0, 0.7, rng.uniform(0.25, 0.7), 0, rng.choice([np.pi, 2 * np.pi])))
    elif kind == 3:
        wide = rng.uniform(0.2, 0.4)
        mask = canvas.line([(-0.7, 0), (0.7, 0)], wide) | canvas.line([(0, -0.7), (0, 0.7)], wide)
    elif kind == 4:
        mask = canvas.area([(-0.8, -0.12), (0.2, -0.12), (0.2, -0.4), (0.8, 0), (0.2, 0.4), (0.2, 0.12), (-0.8, 0.12)])
    elif kind == 5:
        mask = canvas.area(ellipse(0, 0, 0.7, 0.7)) & ~canvas.area(ellipse(rng.uniform(0.2, 0.5), 0, 0.65, 0.65))
    elif kind == 6:
        wide = rng.uniform(0.03, 0.12)
        mask = canvas.area([(-wide, -1), (wide, -1), (wide, 1), (-wide, 1)])
    else:
        mask = np.zeros_like(canvas.solid)
        for column in np.linspace(-0.65, 0.65, int(rng.integers(2, 5))):
            strokes = rng.integers(0, 3, (int(rng.integers(3, 5)), 2)) * (0.16, 0.3) + (column - 0.16, -0.3)
            mask |= canvas.line(strokes, 0.09)
    if kind != 2 and rng.random() < 0.5:
        light = canvas.bulge(mask, rng.uniform(0.05, 0.3))
    else:  # a disc stays flat: rounded off, it would be a balloon from below
        light = np.clip(0.9 + 0.2 * (canvas.light[0] * canvas.x + canvas.light[1] * canvas.y), 0, 1.2)
    canvas.paint(mask, canvas.surface(object_colour(rng), textured=0.5) * light[..., None], labelled=False)


def apply_camera(rng: np.random.Generator, scene: Array) -> NDArray[np.uint8]:
    """Light that falls off, a colour cast, contrast, vignette, blur and noise; uint8 [height, width, 3]."""
    size = scene.shape[0], scene.shape[1]
    x, y = _grid(size)
    angle, fall = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    far = float(np.hypot(x.max(), y.max()))
    light = (
        1 + fall * (math.cos(angle) * x + math.sin(angle) * y) / far - rng.uniform(0, 0.35) * ((x * x + y * y) / far**2)
    )
    cast = 1 + rng.normal(0, 0.06, 3).astype(np.float32)
    photo = scene * (light[..., None] * cast) * np.float32(rng.uniform(0.85, 1.35))
    if rng.random() < 0.5:
        photo = cv2.GaussianBlur(photo, (0, 0), float(rng.uniform(0.3, 0.9)))
    contrast, haze = rng.uniform(0.85, 1.2), rng.uniform(-0.03, 0.08)
    photo = (photo - 0.5) * np.float32(contrast) + np.float32(0.5 + haze)
    noise = rng.standard_normal(photo.shape, dtype=np.float32)
    photo += noise * np.float32(0.002 + 0.028 * rng.random() ** 2)
    return (np.clip(photo, 0, 1) * 255 + 0.5).astype(np.uint8)
