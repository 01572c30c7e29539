"""Augmentation: one table of random draws, handed to the original's transforms and to ours."""

import io
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
import torchvision
from PIL import Image
from transformers import DetrImageProcessor

from hf_detr_ft.data import augment, augmented
from hf_detr_ft.data.transform import DetrTransform
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import Recipe
from tests.parity.originals import Load

RECIPE = Path(__file__).parents[2] / "recipes" / "original.yaml"
AUGMENT_ANSWERS = Path(__file__).with_name("augment_answers.json")
COUNT = 200
"""Images, each with draws of its own."""
OBJECTS = 4
Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Draws:
    """All that is drawn at random for one image."""

    flip: bool
    edge: int
    crop: tuple[int, int, int, int, int] | None
    """Short side before the crop; height, top, width and left of the window."""


@dataclass(frozen=True)
class Case:
    """An image `[h, w, 3]` uint8, boxes xyxy in its pixels `[4, 4]`, and draws."""

    image: np.ndarray
    boxes_xyxy_px: np.ndarray
    draws: Draws


@dataclass(frozen=True)
class Answer:
    """What became of an image: `pixels` `[3, h, w]` normalised, boxes cxcywh `[k, 4]` and which ones of those given."""

    kept: list[int]
    boxes_cxcywh_rel: np.ndarray
    size: tuple[int, int]
    ranges: Ranges
    """Least and most of what each draw was taken from: final edge, edge before the crop, height, top, width, left."""
    pixels: torch.Tensor | None = None


@cache
def original_recipe() -> Recipe:
    """`recipes/original.yaml`."""
    return load_recipe(RECIPE)


def random_case(number: int) -> Case:
    """Image, objects and draws, the same on every machine; a third of the images are half again as elongated."""
    draw = np.random.RandomState(number)
    height, width = draw.randint(60, 480 if number % 3 else 320, 2).tolist()
    coarse = Image.fromarray(draw.randint(0, 256, (6, 8, 3)).astype(np.uint8))
    low = np.clip(draw.uniform(-0.1, 0.9, (OBJECTS, 2)), 0, 1)
    high = np.clip(low + draw.uniform(0.02, 0.7, (OBJECTS, 2)), 0, 1)
    corners = np.concatenate([low, high], axis=1) * (width, height, width, height)
    edge, crop = int(draw.choice(range(480, 801, 32))), None
    if draw.rand() < 0.6:
        before = int(draw.choice([400, 500, 600]))
        sides = [int(before * side / min(height, width)) for side in (height, width)]
        window = []
        for side in sides:
            length = int(draw.randint(384, min(side, 600) + 1))
            window += [length, int(draw.randint(0, side - length + 1))]
        crop = (before, *window)
    image = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return Case(image, corners.astype(np.float32), Draws(bool(draw.rand() < 0.5), edge, crop))  # type: ignore[arg-type]


class Replay:
    """Stands for a module or a generator of random numbers and gives, one after the other, what is handed to it."""

    def __init__(self, values: list[float]) -> None:
        self.values, self.ranges = iter(values), list[tuple[int, int]]()

    def random(self) -> float:
        """A number from 0 to 1."""
        return next(self.values)

    def choice(self, options: list[int]) -> int:
        """One of the options."""
        self.ranges.append((min(options), max(options)))
        value = int(next(self.values))
        assert value in options
        return value

    def randint(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        self.ranges.append((low, high))
        value = int(next(self.values))
        assert low <= value <= high
        return value


def ask_original(load: Load, case: Case) -> Answer:
    """The original's transforms of training."""
    transforms: Any = load("datasets.coco").make_coco_transforms("train")
    draws, window = case.draws, case.draws.crop or (0, 0, 0, 0, 0)
    before, height, top, width, left = window
    flip, plain = (0.0 if yes else 0.9 for yes in (draws.flip, draws.crop is None))
    replay = Replay([flip, plain, *([] if draws.crop is None else [before, width, height]), draws.edge])

    def place(image: Image.Image, size: tuple[int, int]) -> tuple[int, int, int, int]:
        replay.ranges += [(0, image.height - size[0]), (0, image.width - size[1])]
        return top, left, *size

    boxes, classes = torch.from_numpy(case.boxes_xyxy_px), torch.arange(OBJECTS)
    target = {"boxes": boxes, "labels": classes, "area": boxes[:, 2], "iscrowd": classes * 0}
    of_torchvision = mock.patch.object(torchvision.transforms.RandomCrop, "get_params", staticmethod(place))
    with mock.patch.object(load("datasets.transforms"), "random", replay), of_torchvision:
        pixels, target = transforms(Image.fromarray(case.image), target)
    ranges = replay.ranges
    if draws.crop is not None:
        edges, widths, heights, tops, lefts, final = ranges
        ranges = [final, edges, heights, tops, widths, lefts]
    return Answer(target["labels"].tolist(), target["boxes"].numpy(), tuple(pixels.shape[1:]), ranges, pixels)


@contextmanager
def drawn(draws: Draws) -> Iterator[Replay]:
    """Hands the draws of the shape to ours; what only flips, albumentations draws for itself."""
    replay = Replay([draws.edge, 0.9] if draws.crop is None else [draws.edge, 0.0, *draws.crop])

    def make(seed: int) -> Any:
        return replay if seed < augmented.PIXEL_SEED_OFFSET else random.Random(seed)

    with mock.patch.object(augmented, "random", SimpleNamespace(Random=make)):
        yield replay


def ask_ours(case: Case, with_pixels: bool = True) -> Answer:
    """`recipes/original.yaml`, whose flip comes when it was drawn.

    Args:
        case: image, objects and draws.
        with_pixels: resize and normalise, too.
    """
    recipe = original_recipe()
    config = replace(recipe.augment, horizontal_flip=float(case.draws.flip))
    augmentation = augment.build_augmentation(config, recipe.model.shortest_edge)
    edges = {"shortest_edge": recipe.model.shortest_edge, "longest_edge": recipe.model.longest_edge}
    transform = DetrTransform(DetrImageProcessor(size=edges), augmentation)
    boxes = case.boxes_xyxy_px.copy()
    boxes[:, 2:] -= boxes[:, :2]
    if not with_pixels:
        with drawn(case.draws) as replay:
            result = augmentation(case.image, boxes, 0)
        height, width = result.image.shape[:2]
        size = transform.size.with_shortest_edge(result.shortest_edge).of(height, width)
        centred = result.boxes_xywh_px + np.concatenate([result.boxes_xywh_px[:, 2:] / 2] * 2, 1) * (1, 1, 0, 0)
        return Answer(result.kept.tolist(), centred / (width, height, width, height), size, replay.ranges)
    file = io.BytesIO()
    Image.fromarray(case.image).save(file, "PNG")
    objects = {"bbox": boxes.tolist(), "label": list(range(OBJECTS)), "area": [1.0] * OBJECTS}
    with drawn(case.draws) as replay:
        sample = transform.sample({"bytes": file.getvalue(), "path": "drawn.png"}, 0, objects)
    labels, pixels = sample["labels"], sample["pixel_values"]
    kept, found = labels["class_labels"].tolist(), labels["boxes"].numpy()
    return Answer(kept, found, tuple(pixels.shape[1:]), replay.ranges, pixels)


def box_difference(mine: Answer, theirs: Answer) -> float:
    """The largest difference of a box's number, relative to the image's sides; infinite between other objects."""
    if mine.kept != theirs.kept:
        return math.inf
    return float(np.abs(mine.boxes_cxcywh_rel - theirs.boxes_cxcywh_rel).max(initial=0))


def level_differences(mine: Answer, theirs: Answer) -> tuple[float, float]:
    """The largest difference of a pixel in levels of 8 bits, and the share of numbers that differ by a level."""
    assert mine.pixels is not None and theirs.pixels is not None
    levels = (mine.pixels - theirs.pixels).abs() * torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255
    return levels.max().item(), (levels > 0.5).float().mean().item()


def size_difference(mine: Answer, theirs: Answer) -> int:
    """Pixels by which a side of the final image differs."""
    return max(abs(one - other) for one, other in zip(mine.size, theirs.size, strict=True))
