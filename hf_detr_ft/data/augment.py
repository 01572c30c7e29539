"""Augmentation of training images, with albumentations; no other file imports it."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer version

import albumentations as A
import cv2
import numpy as np
from albumentations.augmentations.crops.transforms import BaseCrop
from albumentations.core.type_definitions import Targets

from hf_detr_ft.recipe import AugmentConfig

cv2.setNumThreads(0)  # the loader's workers are the parallelism; OpenCV's threads would fight them for the cores

ORIGINAL_EDGE = 800
"""Short side that the numbers of facebookresearch/detr (`datasets/coco.py`) belong to; others scale with it."""
ORIGINAL_SCALES = tuple(range(480, 801, 32))
ORIGINAL_CROP_SCALES = (400, 500, 600)
ORIGINAL_CROP = (384, 600)

PRESETS: dict[str, dict[str, float]] = {
    "detr": {"horizontal_flip": 0.5, "random_crop": 0.5, "multi_scale": 1},
    "light": {"horizontal_flip": 0.5, "color_jitter": 0.2},
    "none": {},
}

KNOBS = ("horizontal_flip", "vertical_flip", "rotate", "random_crop", "multi_scale", "color_jitter")
"""Fields of the recipe's `augment` section that a preset decides where they are not set."""


class ShrinkAndCrop(BaseCrop):
    """The original's `RandomResize` and `RandomSizeCrop` in one: the window alone is resized, however long the image.

    The image is thought of as resized to a short side drawn from `edges`; a window of it, its sides drawn one by one
    from `smallest` to `largest`, is what remains.

    Args:
        edges: short sides in pixels.
        smallest: least pixels of a side of the window, where the resized image has them.
        largest: most pixels of a side of the window.
        p: probability.
    """

    _targets = (Targets.IMAGE, Targets.BBOXES)

    class InitSchema(BaseCrop.InitSchema):
        """The arguments, as albumentations checks them."""

        edges: list[int]
        smallest: int
        largest: int

    def __init__(self, edges: list[int], smallest: int, largest: int, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.edges = edges
        self.smallest = smallest
        self.largest = largest

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draws the window, (left, top, right, bottom) in the image's pixels, and its new (height, width)."""
        height, width = params["shape"][:2]
        scale = self.py_random.choice(self.edges) / min(height, width)
        (top, bottom, new_height), (left, right, new_width) = (self._draw(side, scale) for side in (height, width))
        return {"crop_coords": (left, top, right, bottom), "size": (new_height, new_width)}

    def _draw(self, side: int, scale: float) -> tuple[int, int, int]:
        """Begin and end of the window along one side of the image, and the pixels that it is resized to."""
        resized = max(1, round(side * scale))
        length = self.py_random.randint(min(self.smallest, resized), min(self.largest, resized))
        offset = self.py_random.randint(0, resized - length)
        begin = min(round(offset / scale), side - 1)
        return begin, max(begin + 1, min(round((offset + length) / scale), side)), length

    def apply(
        self, img: np.ndarray, crop_coords: tuple[int, int, int, int], size: tuple[int, int], **_: Any
    ) -> np.ndarray:
        """Crops and resizes."""
        window = super().apply(img, crop_coords)
        shrinks = size[0] <= window.shape[0] and size[1] <= window.shape[1]
        return cv2.resize(window, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

    def apply_to_bboxes(self, bboxes: np.ndarray, crop_coords: tuple[int, int, int, int], **params: Any) -> np.ndarray:
        """Boxes xyxy relative to the image become relative to the window; in fp64, where albumentations takes fp32."""
        height, width = params["shape"][:2]
        left, top, right, bottom = crop_coords
        corners_px = bboxes[:, :4] * (width, height, width, height) - (left, top, left, top)
        corners = corners_px / (right - left, bottom - top, right - left, bottom - top)
        return np.concatenate([corners, bboxes[:, 4:]], axis=1)


@dataclass(frozen=True)
class Augmented:
    """One image after augmentation, before the processor's resize."""

    image: np.ndarray
    """`[h, w, 3]` uint8."""
    boxes_xywh_px: np.ndarray
    """`[k, 4]` float32, inside the image."""
    kept: np.ndarray
    """`[k]` int64: which of the boxes given these are."""
    shortest_edge: int
    """What the processor is to resize the short side to."""


class Augmentation:
    """Draws and applies one augmentation; the same seed on the same image gives the same result, everywhere.

    Args:
        pipeline: of albumentations, for boxes in COCO's format with the label field `kept`.
        shortest_edges: short sides in pixels to draw the final size from.
    """

    def __init__(self, pipeline: A.Compose, shortest_edges: Sequence[int]) -> None:
        self.pipeline = pipeline
        self.shortest_edges = list(shortest_edges)

    def __call__(self, image: np.ndarray, boxes_xywh_px: np.ndarray, seed: int) -> Augmented:
        """Augments one image.

        Args:
            image: `[h, w, 3]` uint8.
            boxes_xywh_px: `[n, 4]`; boxes may touch or cross the border; those without an area inside it, or with
                numbers that are not finite, go.
            seed: of every random draw, 0 or more.
        """
        boxes = np.asarray(boxes_xywh_px, dtype=np.float64).reshape(-1, 4)
        finite = np.flatnonzero(np.isfinite(boxes).all(axis=1))
        draws = random.Random(seed)
        # One generator for all steps: `set_random_seed` would give each the same draws, and flip just what is cropped.
        self.pipeline.set_random_state(np.random.default_rng(seed), draws)
        result = self.pipeline(image=image, bboxes=boxes[finite], kept=finite)
        return Augmented(
            image=result["image"],
            boxes_xywh_px=np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, 4),
            kept=np.asarray(result["kept"], dtype=np.float64).astype(np.int64),  # albumentations returns floats
            shortest_edge=draws.choice(self.shortest_edges),
        )


def build_augmentation(config: AugmentConfig, shortest_edge: int) -> Augmentation:
    """The augmentation of a recipe.

    Args:
        config: the recipe's `augment` section.
        shortest_edge: pixels of the short side in evaluation; the presets' sizes scale with it.
    """
    chosen = {
        knob: PRESETS[config.preset].get(knob, 0) if getattr(config, knob) is None else getattr(config, knob)
        for knob in KNOBS
    }

    def scaled(pixels: int) -> int:
        return max(1, round(pixels * shortest_edge / ORIGINAL_EDGE))

    smallest, largest = map(scaled, ORIGINAL_CROP)
    crop_scales = [scaled(edge) for edge in ORIGINAL_CROP_SCALES]
    jitter = dict.fromkeys(("brightness", "contrast", "saturation"), chosen["color_jitter"])
    steps = {
        "horizontal_flip": A.HorizontalFlip(p=chosen["horizontal_flip"]),
        "vertical_flip": A.VerticalFlip(p=chosen["vertical_flip"]),
        "rotate": A.Rotate(limit=chosen["rotate"], p=1.0),
        "random_crop": ShrinkAndCrop(crop_scales, smallest, largest, p=chosen["random_crop"]),
        "color_jitter": A.ColorJitter(**jitter, hue=0.0, p=0.8),
    }
    boxes = A.BboxParams(
        format="coco",
        label_fields=["kept"],
        clip=True,
        filter_invalid_bboxes=True,
        # Once, at the end, so that it is the share of what went in; after each step it would be of what came out of
        # the step before. The factor is for rounding: a box that is left whole has a share of 1. With a least share
        # of 0, albumentations would keep boxes wholly outside and then refuse them.
        check_each_transform=False,
        min_visibility=max(1e-9, config.min_visibility * (1 - 1e-6)),
    )
    used = [step for knob, step in steps.items() if chosen[knob]]
    pipeline = A.Compose([A.NoOp(), *used], bbox_params=boxes)  # it warns where no step of it can move a box
    edges = [scaled(edge) for edge in ORIGINAL_SCALES] if chosen["multi_scale"] else [shortest_edge]
    return Augmentation(pipeline, edges)
