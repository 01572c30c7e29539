"""Synthetic images: objects of a few classes, with exact masks, on busy backgrounds; no files and no network.

An image is a function of its seed and its index alone, so any number of processes makes the same data set, and a data
set needs no files. The same versions of NumPy and OpenCV make the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.synthetic.backgrounds import apply_camera, draw_background, draw_distractor
from hf_detr_ft.synthetic.scene import Placed, compose, draw_layer, place
from hf_detr_ft.synthetic.shapes import SHAPES

CLASSES = tuple(SHAPES)
SHORT_SIDE = (240, 320)
"""Least and largest short side of the images, in pixels."""
EXTENTS = (0.1, 0.8)
"""Geometric mean of an object's width and height, relative to the short side: least and largest, log-uniform."""
ASPECTS = ((1, 1), (3, 4), (2, 3), (9, 16), (4, 3), (4, 3), (3, 2), (3, 2), (16, 9))
"""Width and height of portraits, landscapes and squares."""
EMPTY_SHARE = 0.06
"""Share of the images without any object."""
MAX_OBJECTS = 8
MAX_DISTRACTORS = 3
VALIDATION_START = 10**9
"""Index of the first validation image; training's begin at 0."""


@dataclass(frozen=True)
class SyntheticObject:
    """One object, or rather what can be seen of it."""

    name: str
    """Class name."""
    polygons: list[list[float]]
    """Outlines [x, y, x, y, …] in pixels, several where something in front divides it; holes are left out."""
    box_xywh_px: tuple[int, int, int, int]
    """The smallest box around its visible pixels."""
    area: int
    """The number of its visible pixels."""
    visible_share: float
    """Share of its pixels that are in the image and that nothing covers."""


@dataclass(frozen=True)
class SyntheticImage:
    """An image and all there is to annotate in it."""

    image: NDArray[np.uint8]
    """RGB, [height, width, 3]."""
    objects: list[SyntheticObject]
    """Objects from back to front."""


def classes_fault(names: Sequence[str] | None) -> str | None:
    """Fault of the names, all classes where None: what was expected and what was found; None where all are classes."""
    unknown = [name for name in names or () if name not in SHAPES]
    if names is None or (names and not unknown):
        return None
    return f"expected some of {', '.join(CLASSES)}; found {', '.join(map(repr, unknown)) or 'none'}"


def select_classes(names: Sequence[str] | None) -> tuple[str, ...]:
    """The named classes in the order of `CLASSES`, all where none are given. Raises RecipeError for unknown names."""
    fault = classes_fault(names)
    if fault is not None:
        raise RecipeError(f"synthetic classes: {fault}")
    return tuple(name for name in CLASSES if names is None or name in names)


def render(
    index: int,
    *,
    seed: int = 0,
    classes: Sequence[str] = CLASSES,
    size: tuple[int, int] | None = None,
    short_side: tuple[int, int] = SHORT_SIDE,
) -> SyntheticImage:
    """Makes one image.

    Args:
        index: which of the endless row of images; not negative.
        seed: which row; not negative.
        classes: of the objects; those of other classes do not appear.
        size: (height, width) of the image; by default drawn at random.
        short_side: least and largest short side in pixels, where `size` is not given.

    Raises:
        RecipeError: a class is unknown.
    """
    classes = select_classes(classes)
    rng = np.random.default_rng([seed, index])
    height, width = _random_size(rng, short_side) if size is None else size
    angle = rng.uniform(0, 2 * np.pi)
    light = np.array([0.55 * np.cos(angle), 0.35 * np.sin(angle) - 0.45, 0.7])
    light /= np.linalg.norm(light)
    background = draw_background(rng, (height, width))
    placed: list[Placed] = []
    for name, extent in _draw_objects(rng, classes, min(height, width)):
        draw, lean = (draw_distractor, np.pi) if name is None else SHAPES[name]
        place(rng, placed, draw_layer(rng, draw, name, extent, lean, light), (height, width))
    image = apply_camera(rng, compose(rng, background, placed))
    return SyntheticImage(image, [_object(item) for item in placed if item.layer.name is not None])


def _random_size(rng: np.random.Generator, short_side: tuple[int, int]) -> tuple[int, int]:
    short = int(rng.integers(short_side[0], short_side[1] + 1))
    wide, high = ASPECTS[rng.integers(len(ASPECTS))]
    return round(short * high / min(wide, high)), round(short * wide / min(wide, high))


def _draw_objects(rng: np.random.Generator, classes: Sequence[str], side: int) -> list[tuple[str | None, float]]:
    """Class and extent in pixels of what to place, from back to front; no class for distractors."""
    count = 0 if rng.random() < EMPTY_SHARE else min(1 + int(rng.poisson(2.2)), MAX_OBJECTS)
    low, high = np.log(EXTENTS)
    # Some images show many of one kind, such as a bunch of balloons.
    pool = [classes[int(rng.integers(len(classes)))]] if rng.random() < 0.15 else list(classes)
    things: list[tuple[str | None, float]] = [
        (pool[int(rng.integers(len(pool)))], side * float(np.exp(rng.uniform(low, high)))) for _ in range(count)
    ]
    others = int(rng.integers(0, MAX_DISTRACTORS + 1))
    things += [(None, side * float(np.exp(rng.uniform(low, high)))) for _ in range(others)]
    # Large things tend to be behind small ones, else they would hide them.
    nearness = [-np.log(extent) + rng.normal(0, 0.7) - (name is None) for name, extent in things]
    return [things[i] for i in np.argsort(nearness, kind="stable")]


def _object(item: Placed) -> SyntheticObject:
    assert item.layer.name is not None, "distractors are no objects"
    visible = item.visible.view(np.uint8)
    left, top, width, height = (int(value) for value in cv2.boundingRect(visible))
    crop = visible[top : top + height, left : left + width]
    polygons = [(points + np.array([left, top])).ravel().tolist() for points in mask_outlines(crop)]
    return SyntheticObject(item.layer.name, polygons, (left, top, width, height), int(crop.sum()), item.share)


EXACT_BELOW = 400
"""Square pixels; outlines of smaller masks keep every corner of a pixel, larger ones cut across the steps."""


def mask_outlines(mask: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Polygons [N, 2] around a mask's pixels, each with its holes joined to it by a seam of no width."""
    # Twice as large, a contour through the centres of boundary pixels is a quarter pixel inside the pixels' outer
    # edges, and a hole's as much outside of the hole: rounding puts both on the edges.
    doubled = cv2.copyMakeBorder(mask.repeat(2, 0).repeat(2, 1), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    exact = int(mask.sum()) < EXACT_BELOW
    paths = [_simplified(_edges(contour[:, 0, :]), exact) for contour in contours]
    outlines = []
    for index, (_, _, hole, parent) in enumerate(hierarchy[0]):
        if parent >= 0:
            continue
        outline = paths[index]
        while hole >= 0:
            outline = _joined(outline, paths[hole])
            hole = hierarchy[0][hole][0]
        outlines.append(outline)
    return outlines


def _edges(contour: NDArray[Any]) -> NDArray[np.float64]:
    """The corners of pixels that a contour in the doubled mask goes along, in pixels of the mask."""
    corners = np.round((contour - 0.5) / 2)
    return corners[np.any(corners != np.roll(corners, 1, 0), axis=1)]


def _simplified(corners: NDArray[np.float64], exact: bool) -> NDArray[np.float64]:
    if exact:
        before, after = corners - np.roll(corners, 1, 0), np.roll(corners, -1, 0) - corners
        return corners[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    # The middles of the pixels' sides lie on both sides of the true outline alike, so nothing is gained or lost.
    middles = ((corners + np.roll(corners, 1, 0)) / 2).astype(np.float32)
    path = cv2.approxPolyDP(middles[:, None], 0.35, True)[:, 0].astype(np.float64)
    return path if len(path) >= 3 else corners


def _joined(outline: NDArray[np.float64], hole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Goes from the outline to the hole at the points nearest to each other, around it, and back."""
    distances = ((outline[:, None] - hole[None]) ** 2).sum(-1)
    at, start = np.unravel_index(int(distances.argmin()), distances.shape)
    around = np.concatenate([np.roll(hole, -int(start), 0), hole[start : start + 1]])
    return np.concatenate([outline[: at + 1], around, outline[at:]])


def coco_categories(classes: Sequence[str]) -> list[dict[str, Any]]:
    """COCO's `categories`: ids from 1, in the order of `CLASSES`."""
    return [{"id": id_, "name": name} for id_, name in enumerate(select_classes(classes), start=1)]


def coco_annotations(
    photo: SyntheticImage, image_id: int, classes: Sequence[str], first_id: int = 1
) -> list[dict[str, Any]]:
    """COCO's `annotations` of one image, numbered from `first_id`."""
    ids = {category["name"]: category["id"] for category in coco_categories(classes)}
    return [
        {
            "id": id_,
            "image_id": image_id,
            "category_id": ids[thing.name],
            "bbox": list(thing.box_xywh_px),
            "area": thing.area,
            "segmentation": thing.polygons,
            "iscrowd": 0,
        }
        for id_, thing in enumerate(photo.objects, start=first_id)
    ]
