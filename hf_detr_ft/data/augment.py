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
from albumentations.core.type_definitions import Targets
from PIL import Image

from hf_detr_ft.recipe.sections import AugmentConfig

cv2.setNumThreads(0)  # the loader's workers are the parallelism; OpenCV's threads would fight them for the cores

DETR_EDGE = 800
"""Short side that the numbers of facebookresearch/detr (`datasets/coco.py`) belong to; others scale with it."""
DETR_SCALES = tuple(range(480, 801, 32))
DETR_CROP_SCALES = (400, 500, 600)
DETR_CROP = (384, 600)

PRESETS: dict[str, dict[str, float]] = {
    "detr": {"horizontal_flip": 0.5, "random_crop": 0.5, "multi_scale": True},
    "light": {"horizontal_flip": 0.5, "color_jitter": 0.2},
    "none": {},
}

PIXEL_SEED_OFFSET = 2**32
"""Added to a seed, which is below it, for the draws that do not change the shape."""

PRESET_FIELDS = ("horizontal_flip", "vertical_flip", "rotate", "random_crop", "multi_scale", "color_jitter")
"""Fields of the recipe's `augment` section that a preset decides where they are not set."""


@dataclass(frozen=True)
class CropParams:
    """Shape of one augmented image, drawn without its pixels."""

    window: tuple[float, float, float, float]
    """Window that is cut out, (left, top, right, bottom) in the image's pixels and parts of them."""
    size: tuple[int, int]
    """Size (height, width) that the window is resized to before the processor's resize."""
    shortest_edge: int
    """Short side in pixels that the processor resizes to."""


class RandomSizeCrop(A.DualTransform):
    """Cuts out the window of a `CropParams`, given as `crop`, and resizes that alone, however long the image."""

    _targets = (Targets.IMAGE, Targets.MASK, Targets.BBOXES)

    @property
    def targets_as_params(self) -> list[str]:
        """Arguments that the pipeline has to be called with besides image and boxes."""
        return ["crop"]

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Parameters of the methods below."""
        return {"window": data["crop"].window, "size": data["crop"].size}

    def apply(
        self, img: np.ndarray, window: tuple[float, float, float, float], size: tuple[int, int], **_: Any
    ) -> np.ndarray:
        """Crops and resizes, as Pillow does in the original."""
        height, width = img.shape[:2]
        if (window, size) == ((0, 0, width, height), (height, width)):
            return img
        return np.array(Image.fromarray(img).resize(size[::-1], Image.Resampling.BILINEAR, box=window))

    def apply_to_mask(
        self, mask: np.ndarray, window: tuple[float, float, float, float], size: tuple[int, int], **_: Any
    ) -> np.ndarray:
        """Crops and resizes, each pixel with the value of the nearest one."""
        return np.array(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST, box=window))

    def apply_to_bboxes(
        self, bboxes: np.ndarray, window: tuple[float, float, float, float], **params: Any
    ) -> np.ndarray:
        """Boxes xyxy relative to the image become relative to the window; in fp64, where albumentations takes fp32."""
        height, width = params["shape"][:2]
        left, top, right, bottom = window
        corners_px = bboxes[:, :4] * (width, height, width, height) - (left, top, left, top)
        corners = corners_px / (right - left, bottom - top, right - left, bottom - top)
        return np.concatenate([corners, bboxes[:, 4:]], axis=1)


@dataclass(frozen=True)
class Augmented:
    """One image after augmentation, before the processor's resize."""

    image: np.ndarray
    """Pixels `[h, w, 3]` uint8."""
    boxes_xywh_px: np.ndarray
    """Boxes `[k, 4]` float32, inside the image."""
    kept: np.ndarray
    """Indices `[k]` int64 of these among the boxes that were given."""
    shortest_edge: int
    """Short side in pixels that the processor resizes to."""
    masks: np.ndarray | None = None
    """Masks `[k, h, w]` uint8 of these boxes' objects, where masks were given."""


class Augmentation:
    """Draws and applies one augmentation; the same seed on the same image gives the same result, everywhere.

    A crop is DETR's `RandomResize` and `RandomSizeCrop` in one: the image is thought of as resized to a short
    side drawn from `crop_edges`; a window of whole pixels of it, its sides drawn one by one from `crop_sides`, is
    what remains.

    Args:
        pipeline: of albumentations, for boxes in COCO's format with the label field `kept`, with a `RandomSizeCrop`
            where it crops.
        shortest_edges: short sides in pixels to draw the final size from.
        random_crop: probability.
        crop_edges: short sides in pixels.
        crop_sides: least and most pixels of a side of the window, where the resized image has them.
        mosaic: probability that an image is made part of a mosaic before, see `data/mosaic.py`.
        copy_paste: probability that objects of another image lie on it before, see `data/copy_paste.py`.
        min_visibility: boxes of which either leaves a smaller share go.
    """

    def __init__(
        self,
        pipeline: A.Compose,
        shortest_edges: Sequence[int],
        random_crop: float = 0.0,
        crop_edges: Sequence[int] = (),
        crop_sides: tuple[int, int] = (0, 0),
        mosaic: float = 0.0,
        copy_paste: float = 0.0,
        min_visibility: float = 0.0,
    ) -> None:
        self.pipeline = pipeline
        self.mosaic = mosaic
        self.copy_paste = copy_paste
        self.min_visibility = min_visibility
        self.shortest_edges = list(shortest_edges)
        self.random_crop = random_crop
        self.crop_edges = list(crop_edges)
        self.crop_sides = crop_sides

    @property
    def draws_shapes(self) -> bool:
        """True where an image's shape differs from epoch to epoch."""
        return len(set(self.shortest_edges)) > 1 or self.random_crop > 0

    def draw_crop(self, height: int, width: int, seed: int) -> CropParams:
        """The shape that `seed` draws for an image of so many pixels.

        Images that differ in size alone get windows that differ in size alone, so that the shape that the model sees
        follows, but for rounding, from the aspect ratio.
        """
        draws = random.Random(seed)
        shortest_edge = draws.choice(self.shortest_edges)
        if draws.random() >= self.random_crop:
            return CropParams((0, 0, width, height), (height, width), shortest_edge)
        crop_edge = draws.choice(self.crop_edges)
        drawn = [self._draw(draws, side, int(crop_edge * side / min(height, width))) for side in (height, width)]
        (top, bottom, new_height), (left, right, new_width) = drawn
        return CropParams((left, top, right, bottom), (new_height, new_width), shortest_edge)

    def _draw(self, draws: random.Random, side: int, resized: int) -> tuple[float, float, int]:
        """Begin and end of the window along one side of the image, and the pixels that it is resized to."""
        smallest, largest = self.crop_sides
        length = draws.randint(min(smallest, resized), min(largest, resized))
        offset = draws.randint(0, resized - length)
        return offset * side / resized, min((offset + length) * side / resized, side), length

    def __call__(
        self, image: np.ndarray, boxes_xywh_px: np.ndarray, seed: int, masks: np.ndarray | None = None
    ) -> Augmented:
        """Augments one image.

        Args:
            image: `[h, w, 3]` uint8.
            boxes_xywh_px: `[n, 4]`; boxes may touch or cross the border; those without an area inside it, or with
                numbers that are not finite, go.
            seed: of every random draw, 0 or more.
            masks: `[n, h, w]` uint8, of the boxes' objects.
        """
        boxes = np.asarray(boxes_xywh_px, dtype=np.float64).reshape(-1, 4)
        finite = np.flatnonzero(np.isfinite(boxes).all(axis=1))
        height, width = image.shape[:2]
        crop = self.draw_crop(height, width, seed)
        # One generator for all steps: `set_random_seed` would give each the same draws, and flip just what is cropped.
        self.pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed + PIXEL_SEED_OFFSET))
        given = (
            {} if masks is None or not len(masks) else {"masks": masks}
        )  # of none, albumentations would make no stack
        result = self.pipeline(image=image, bboxes=boxes[finite], kept=finite, crop=crop, **given)
        kept = np.asarray(result["kept"], dtype=np.float64).astype(np.int64)  # albumentations returns floats
        if masks is not None:
            shape = result["image"].shape[:2]
            masks = result["masks"][kept] if given else np.zeros((0, *shape), dtype=np.uint8)
        return Augmented(
            image=result["image"],
            boxes_xywh_px=np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, 4),
            kept=kept,
            shortest_edge=crop.shortest_edge,
            masks=masks,
        )


def build_augmentation(config: AugmentConfig, shortest_edge: int) -> Augmentation:
    """The augmentation of a recipe.

    Args:
        config: the recipe's `augment` section.
        shortest_edge: pixels of the short side in evaluation; the presets' sizes scale with it.
    """
    chosen = {
        name: PRESETS[config.preset].get(name, 0) if getattr(config, name) is None else getattr(config, name)
        for name in PRESET_FIELDS
    }

    def scaled(pixels: int) -> int:
        return max(1, round(pixels * shortest_edge / DETR_EDGE))

    jitter = dict.fromkeys(("brightness", "contrast", "saturation"), chosen["color_jitter"])
    steps = {
        "horizontal_flip": A.HorizontalFlip(p=chosen["horizontal_flip"]),
        "vertical_flip": A.VerticalFlip(p=chosen["vertical_flip"]),
        "rotate": A.Rotate(limit=chosen["rotate"], p=1.0),
        "random_crop": RandomSizeCrop(p=1.0),
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
    used = [step for name, step in steps.items() if chosen[name]]
    pipeline = A.Compose([A.NoOp(), *used], bbox_params=boxes)  # it warns where no step of it can move a box
    edges = [scaled(edge) for edge in DETR_SCALES] if chosen["multi_scale"] is True else [shortest_edge]
    return Augmentation(
        pipeline,
        edges,
        random_crop=chosen["random_crop"],
        crop_edges=[scaled(edge) for edge in DETR_CROP_SCALES],
        crop_sides=(scaled(DETR_CROP[0]), scaled(DETR_CROP[1])),
        mosaic=config.mosaic,
        copy_paste=config.copy_paste,
        min_visibility=config.min_visibility,
    )
