"""The classes of the synthetic images: a function for each draws one object, different each time."""

from itertools import pairwise
from types import MappingProxyType

import numpy as np

from hf_detr_ft.synthetic.canvas import Canvas, Draw, ellipse, mirrored, mix, object_colour, random_colour

METALS = ((0.85, 0.68, 0.25), (0.75, 0.76, 0.8), (0.7, 0.45, 0.25), (0.4, 0.42, 0.46))


def draw_balloon(canvas: Canvas) -> None:
    """A bulb that tapers to a knot, with shading and a highlight; its string is drawn, but not annotated."""
    rng = canvas.rng
    rx, cy = rng.uniform(0.42, 0.55), -0.32
    ry = rx * rng.uniform(1.0, 1.3)
    t = np.linspace(0, 2 * np.pi, 96)
    low = np.maximum(-np.cos(t), 0)
    x = rx * np.sin(t) * (1 - rng.uniform(0.1, 0.4) * low**2)
    outline = np.stack([x, cy - ry * np.cos(t) * (1 + rng.uniform(0, 0.25) * low)], axis=1)
    bottom = outline[:, 1].max()
    colour = object_colour(rng)
    if rng.random() < 0.85:
        sway, turns = rng.uniform(0.01, 0.08), rng.uniform(2, 9)
        y = np.linspace(bottom, rng.uniform(bottom + 0.1, 1), 30)
        string = np.stack([sway * np.sin((y - bottom) * turns) + rng.uniform(-0.3, 0.3) * (y - bottom), y], axis=1)
        canvas.paint(canvas.line(string, 0.012), rng.uniform(0.2, 0.95) * np.ones(3), labelled=False)
    knot = rng.uniform(0.04, 0.07)
    ends = [(0, bottom - knot), (knot, bottom + 0.9 * knot), (0, bottom + 0.6 * knot), (-knot, bottom + 0.9 * knot)]
    canvas.paint(canvas.area(ends), colour * 0.7)

    nx, ny = canvas.x / rx, (canvas.y - cy) / ry
    rim = np.clip(np.hypot(nx, ny), 0, 1) ** 4
    paint = canvas.surface(colour, textured=0.22) * canvas.lit(nx, ny, rng.uniform(0.4, 0.65))[..., None]
    paint = mix(paint, paint * rng.uniform(0.5, 1), rim)
    if rng.random() < 0.2:  # metal foil reflects its surroundings in bands
        paint = mix(paint, paint * 0.3 + 0.6, 0.5 + 0.5 * np.sin(6 * ny + 3 * nx * nx + rng.uniform(0, 6)))
    paint = mix(paint, np.ones(3), rng.uniform(0.5, 0.95) * canvas.shine(0, cy, rx, ry, rng.uniform(0.08, 0.25)))
    glow = np.exp(-(((nx + 0.6 * canvas.light[0]) ** 2 + (ny + 0.6 * canvas.light[1]) ** 2) / 0.08))
    paint = mix(paint, np.minimum(colour * 1.4, 1), rng.uniform(0, 0.5) * glow)
    clear = rng.uniform(0.7, 0.92) if rng.random() < 0.3 else 1
    canvas.paint(canvas.area(outline), paint, opacity=clear + (1 - clear) * rim)


def draw_star(canvas: Canvas) -> None:
    """Five to seven points, faceted or puffed."""
    rng = canvas.rng
    points, inner = int(rng.choice([5, 5, 5, 6, 7])), rng.uniform(0.38, 0.52)
    angle = np.arange(2 * points) * np.pi / points - np.pi / 2
    radius = np.where(np.arange(2 * points) % 2 == 0, 0.9, 0.9 * inner)
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    surface, mask = canvas.surface(textured=0.35), canvas.area(outline)
    canvas.paint(mask, surface * canvas.bulge(mask, rng.uniform(0.15, 0.5))[..., None])
    if rng.random() < 0.5:
        for index in range(2 * points):
            a, b = outline[index], outline[(index + 1) % (2 * points)]
            normal = np.array([b[1] - a[1], a[0] - b[0]]) / np.hypot(*(b - a))
            light = 0.75 + 0.45 * float(normal @ canvas.light[:2])
            canvas.paint(canvas.area([a, b, (0, 0)]), surface * light)


def draw_ring(canvas: Canvas) -> None:
    """A torus with a hole to look through, some with the icing and sprinkles of a doughnut."""
    rng = canvas.rng
    squash, hole = rng.uniform(0.55, 1), rng.uniform(0.35, 0.68)
    radius, middle = np.hypot(canvas.x, canvas.y / squash) / 0.9, (1 + hole) / 2
    lean = np.clip((radius - middle) / (1 - middle), -1, 1) * 0.95
    angle = np.arctan2(canvas.y / squash, canvas.x)
    light = canvas.lit(lean * np.cos(angle), lean * np.sin(angle))[..., None]
    mask = canvas.area(ellipse(0, 0, 0.9, 0.9 * squash), ellipse(0, 0, 0.9 * hole, 0.9 * hole * squash))
    canvas.paint(mask, canvas.surface(textured=0.4) * light)
    if rng.random() < 0.35:
        wavy = radius + 0.03 * np.sin(angle * rng.integers(5, 9) + rng.uniform(0, 6))
        icing = mask * (np.abs(wavy - middle) < 0.36 * (1 - hole)).astype(np.uint8)
        canvas.paint(icing, object_colour(rng) * light)
        for turn in rng.uniform(0, 2 * np.pi, 22):
            far, tilt = 0.9 * rng.uniform(middle - 0.1, middle + 0.1), rng.uniform(0, np.pi)
            centre = np.array([far * np.cos(turn), far * squash * np.sin(turn)])
            step = 0.035 * np.array([np.cos(tilt), np.sin(tilt)])
            canvas.paint(canvas.line([centre - step, centre + step], 0.03) & mask, random_colour(rng))


def draw_cube(canvas: Canvas) -> None:
    """A box seen on its edge: three faces of different brightness, some with a dice's pips."""
    rng = canvas.rng
    yaw, pitch, half = rng.uniform(0.35, 1.2), rng.uniform(0.3, 0.8), rng.uniform(0.48, 0.54)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    view = nod @ turn
    surface, pips = canvas.surface(textured=0.3), rng.integers(0, 6) if rng.random() < 0.45 else 0
    ink = np.ones(3) * (0.1 if surface.mean() > 0.4 else 0.95)
    for axis in range(3):
        normal = view[:, axis] * np.sign(view[2, axis])
        across, down = view[:, (axis + 1) % 3], view[:, (axis + 2) % 3]
        face = [half * (normal + i * across + j * down)[:2] for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        light = 0.3 + 0.85 * max(float(normal @ canvas.light), 0)
        canvas.paint(canvas.area(face), surface * light)
        canvas.paint(canvas.line(face, 0.015, closed=True), surface * light * 1.25)
        for i, j in ((0.5, 0.5), (-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0, 0))[: pips and (pips + axis) % 5 + 1]:
            circle = ellipse(i, j, 0.17, 0.17)
            canvas.paint(canvas.area(half * (normal[:2] + circle @ np.stack([across, down])[:, :2])), ink * light)


def draw_cone(canvas: Canvas) -> None:
    """A round cone with bands, some on the foot of a traffic cone."""
    rng = canvas.rng
    width, foot = rng.uniform(0.42, 0.65), rng.random() < 0.4
    tip, sag = rng.uniform(0, 0.08), width * rng.uniform(0.15, 0.3)
    surface, light_x = canvas.surface(textured=0.2), canvas.x / (width * np.clip((canvas.y + 0.95) / 1.6, 0.05, 1))
    if foot:
        plate = np.array([(-1.15, -0.5), (-1.4, 1.3), (1.4, 1.3), (1.15, -0.5)]) * (width, sag) + (0, 0.66)
        canvas.paint(canvas.area(plate), surface * 0.55)
    side = np.concatenate([[(-tip, -0.9), (tip, -0.9)], ellipse(0, 0.65, width, sag, 0, np.pi)])
    bands = np.sin((canvas.y - 0.3 * sag * np.sqrt(np.maximum(1 - light_x**2, 0))) * rng.uniform(6, 12) + 1)
    if rng.random() < 0.65:
        surface = mix(surface, object_colour(rng), (bands > rng.uniform(-0.2, 0.5)).astype(np.float32))
    canvas.paint(canvas.area(side), surface * canvas.lit(light_x * 0.95, -0.2 * np.ones_like(light_x))[..., None])


def draw_mug(canvas: Canvas) -> None:
    """A cylinder with a handle and a dark opening."""
    rng = canvas.rng
    wide, tall, lip = rng.uniform(0.45, 0.55), rng.uniform(0.5, 0.68), rng.uniform(0.08, 0.17)
    narrow = wide * rng.uniform(0.75, 1)
    surface = canvas.surface(textured=0.5)
    arc = ellipse(wide - 0.06, 0.05, rng.uniform(0.26, 0.36), tall * rng.uniform(0.45, 0.65), -np.pi / 2, np.pi / 2)
    handle = canvas.line(arc, rng.uniform(0.1, 0.15))
    canvas.paint(handle, surface * canvas.bulge(handle, 0.08)[..., None])
    body = np.concatenate([ellipse(0, tall, narrow, lip, 0, np.pi), [(-wide, -tall), (wide, -tall)]])
    canvas.paint(canvas.area(body), surface * canvas.lit(canvas.x / wide * 0.95, 0 * canvas.x)[..., None])
    canvas.paint(canvas.area(ellipse(0, -tall, wide, lip)), surface * 1.1)
    inside = surface * 0.35 if rng.random() < 0.5 else np.array([0.22, 0.12, 0.06]) * rng.uniform(0.5, 2.5)
    canvas.paint(canvas.area(ellipse(0, -tall + 0.015, wide * 0.9, lip * 0.82)), inside)


def draw_leaf(canvas: Canvas) -> None:
    """A pointed blade with veins and a stalk, its edge smooth or toothed."""
    rng = canvas.rng
    wide, bend = rng.uniform(0.26, 0.46), rng.uniform(-0.2, 0.2)
    s = np.linspace(0, 1, 60)
    teeth = 1 + rng.choice([0, 0.08, 0.14]) * (2 * ((s * rng.integers(8, 15)) % 1) - 1)
    half = wide * np.sin(np.pi * s ** rng.uniform(0.75, 1.3)) ** rng.uniform(0.8, 1.3) * teeth
    y = -0.9 + 1.45 * s
    middle = bend * np.sin(np.pi * s)
    hue = rng.choice([0, 1, 2], p=[0.6, 0.25, 0.15])
    green = np.array([rng.uniform(0.1, 0.5), rng.uniform(0.4, 0.75), rng.uniform(0.05, 0.25)])
    autumn = np.array([rng.uniform(0.6, 0.9), rng.uniform(0.2, 0.6), rng.uniform(0.05, 0.2)])
    base = (green, autumn, object_colour(rng))[hue]
    canvas.paint(canvas.line([(middle[-1], y[-1]), (-bend * 0.6, 0.92)], 0.045), base * 0.6)
    blade = np.concatenate([np.stack([middle + half, y], 1), np.stack([middle - half, y], 1)[::-1]])
    mask, surface = canvas.area(blade), canvas.surface(base, textured=0.08)
    fold = np.interp(canvas.y, y, middle).astype(np.float32)
    light = np.where(canvas.x > fold, 1 + 0.18 * canvas.light[0], 1 - 0.18 * canvas.light[0])
    canvas.paint(mask, surface * (light * canvas.bulge(mask, 0.08))[..., None])
    vein = np.clip(base * rng.choice([0.6, 1.5]), 0, 1)
    canvas.paint(canvas.line(np.stack([middle, y], 1), 0.03) & mask, vein)
    for at in np.arange(8, 56, 8):
        for side in (-1, 1):
            end = (middle[at] + side * half[at] * 0.85, y[at] - half[at] * 0.6)
            canvas.paint(canvas.line([(middle[at], y[at]), end], 0.015) & mask, vein)


def draw_fish(canvas: Canvas) -> None:
    """A body with tail, fins and an eye; looks to the left."""
    rng = canvas.rng
    deep, fork = rng.uniform(0.24, 0.42), rng.uniform(0.02, 0.2)
    s = np.linspace(0, 1, 40)
    half = deep * np.sin(np.pi * s ** rng.uniform(0.65, 0.9)) ** 0.8 + 0.06 * s
    x = -0.9 + 1.35 * s
    surface = canvas.surface(textured=0.75)
    fins = object_colour(rng) if rng.random() < 0.5 else surface * 0.75
    spread = rng.uniform(0.28, 0.42)
    canvas.paint(canvas.area([(0.35, 0), (0.9, -spread), (0.9 - fork, 0), (0.9, spread)]), fins)
    canvas.paint(canvas.area([(-0.35, -deep * 0.7), (0.0, -deep - 0.25), (0.3, -deep * 0.4)]), fins)
    canvas.paint(canvas.area([(-0.1, deep * 0.7), (0.2, deep + 0.2), (0.2, deep * 0.5)]), fins)
    mask = canvas.area(np.concatenate([np.stack([x, half], 1), np.stack([x, -half], 1)[::-1]]))
    canvas.paint(mask, surface * canvas.bulge(mask, deep * 1.2)[..., None])
    fin = canvas.area([(-0.2, 0.02), (0.12, 0.16), (0.02, -0.04)])
    canvas.paint(fin & mask, fins * 0.8)
    canvas.paint(canvas.line(ellipse(-0.62, 0, 0.2, deep * 0.8, -0.9, 0.9), 0.02) & mask, surface * 0.5)
    eye, y = rng.uniform(0.05, 0.075), -deep * 0.3
    canvas.paint(canvas.area(ellipse(-0.62, y, eye, eye)), np.ones(3) * 0.95)
    canvas.paint(canvas.area(ellipse(-0.63, y, eye * 0.55, eye * 0.55)), np.ones(3) * 0.05)


def draw_umbrella(canvas: Canvas) -> None:
    """A canopy in panels with a scalloped edge, a shaft and a hooked handle."""
    rng = canvas.rng
    panels, high = int(rng.integers(4, 8)), rng.uniform(0.5, 0.75)
    shaft = rng.choice([0.15, 0.5, 0.8]) * rng.uniform(0.7, 1.1) * np.ones(3)
    hook = ellipse(0.12, 0.75, 0.12, 0.14, 0, np.pi)
    canvas.paint(canvas.line([(0, -high - 0.3), (0, 0.77)], 0.05), shaft)
    canvas.paint(canvas.line(hook, 0.075), object_colour(rng) * 0.7)
    edges = 0.9 * np.sin(np.linspace(-np.pi / 2, np.pi / 2, panels + 1))
    surface, other = canvas.surface(textured=0.2), object_colour(rng)
    other = surface * rng.uniform(0.6, 1) if rng.random() < 0.5 else np.broadcast_to(other, surface.shape)
    light = canvas.lit(canvas.x / 0.95, (canvas.y + 0.1) / (high * 1.2), 0.5)[..., None]
    rise = np.linspace(0, np.pi / 2, 20)
    for index, (a, b) in enumerate(pairwise(edges)):
        left = np.stack([a * np.cos(rise), -high * np.sin(rise)], 1)
        right = np.stack([b * np.cos(rise), -high * np.sin(rise)], 1)[::-1]
        scallop = ellipse((a + b) / 2, 0, (b - a) / 2, 0.07, 0, np.pi)
        scallop[:, 1] *= -1
        outline = np.concatenate([left, right, scallop]) - (0, 0.1)
        canvas.paint(canvas.area(outline), (other if index % 2 else surface) * light)
        canvas.paint(canvas.line(left - (0, 0.1), 0.012), surface * light * 0.55)


def draw_key(canvas: Canvas) -> None:
    """A bow with a hole, a shaft and teeth; mostly of metal."""
    rng = canvas.rng
    bow, squash, shaft = rng.uniform(0.3, 0.38), rng.uniform(0.75, 1.15), rng.uniform(0.1, 0.15)
    base = np.array(METALS[rng.integers(4)]) if rng.random() < 0.7 else object_colour(rng)
    outer, hole = ellipse(0, -0.55, bow * squash, bow), ellipse(0, -0.55, bow * squash * 0.55, bow * 0.55)
    mask = canvas.area(outer)
    mask |= canvas.area([(-shaft / 2, -0.3), (shaft / 2, -0.3), (shaft / 2, 0.88), (0, 0.93), (-shaft / 2, 0.88)])
    for at in 0.85 - np.cumsum(rng.uniform(0.14, 0.2, rng.integers(2, 5))):
        reach, tall = rng.uniform(0.14, 0.3), rng.uniform(0.08, 0.12)
        mask |= canvas.area([(0, at), (reach, at), (reach, at + tall), (0, at + tall)])
    mask &= ~canvas.area(hole)
    surface = canvas.surface(base, textured=0.05)
    canvas.paint(mask, surface * canvas.bulge(mask, 0.07)[..., None] ** 1.5)


def draw_bottle(canvas: Canvas) -> None:
    """Body, shoulder, neck and cap, of clear or dark glass or plastic, mostly with a label."""
    rng = canvas.rng
    wide, neck = rng.uniform(0.25, 0.36), rng.uniform(0.08, 0.13)
    shoulder, start = rng.uniform(-0.25, 0.05), rng.uniform(-0.6, -0.4)
    s = np.linspace(0, 1, 14)
    slope = neck + (wide - neck) * (0.5 - 0.5 * np.cos(np.pi * s)) ** rng.uniform(0.6, 1.2)
    half = [(neck, -0.85), *zip(slope, start + (shoulder - start) * s, strict=True), (wide, 0.84), (wide * 0.9, 0.92)]
    mask, nx = canvas.area(mirrored(half)), canvas.x / wide
    paint = canvas.surface(textured=0.1) * canvas.lit(nx * 0.97, 0 * nx)[..., None]
    if rng.random() < 0.4:
        fill = rng.uniform(shoulder, 0.4)
        paint = mix(
            paint, object_colour(rng) * canvas.lit(nx * 0.97, 0 * nx)[..., None], (canvas.y > fill) * np.float32(0.8)
        )
    gleam = np.exp(-(((nx - 0.5 * np.sign(canvas.light[0] or 1)) / 0.12) ** 2)) * rng.uniform(0.3, 0.8)
    clear = rng.uniform(0.72, 0.9) if rng.random() < 0.3 else 1.0
    canvas.paint(mask, mix(paint, np.ones(3), gleam), opacity=clear)
    if rng.random() < 0.7:
        top, bottom = rng.uniform(shoulder + 0.05, 0.3), rng.uniform(0.45, 0.8)
        label = canvas.surface(textured=0.6) * canvas.lit(nx * 0.97, 0 * nx, 0.55)[..., None]
        canvas.paint(canvas.area([(-1, top), (1, top), (1, bottom), (-1, bottom)]) & mask, label)
    cap = neck * rng.uniform(1, 1.25)
    canvas.paint(canvas.area([(-cap, -0.95), (cap, -0.95), (cap, -0.78), (-cap, -0.78)]), object_colour(rng))


SHAPES: MappingProxyType[str, tuple[Draw, float]] = MappingProxyType(
    {
        "balloon": (draw_balloon, 0.45),
        "star": (draw_star, np.pi),
        "ring": (draw_ring, np.pi),
        "cube": (draw_cube, 0.3),
        "cone": (draw_cone, 0.35),
        "mug": (draw_mug, 0.35),
        "leaf": (draw_leaf, np.pi),
        "fish": (draw_fish, 0.5),
        "umbrella": (draw_umbrella, 0.6),
        "key": (draw_key, np.pi),
        "bottle": (draw_bottle, 0.4),
    }
)
"""Class name to what draws it, and how far it leans from upright in radians, mostly."""
