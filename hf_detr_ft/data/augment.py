"""Augmentation of a recipe: its presets and steps, made of albumentations."""

import os
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer version

import albumentations as A
import cv2
import numpy as np
from albumentations.core.type_definitions import Targets
from PIL import Image

from hf_detr_ft.data.augmented import Augmentation
from hf_detr_ft.recipe.augment_pipeline import build_pipeline
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

PRESET_FIELDS = ("horizontal_flip", "vertical_flip", "rotate", "random_crop", "multi_scale", "color_jitter")
"""Fields of the recipe's `augment` section that a preset decides where they are not set."""


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
    users = build_pipeline(config.pipeline)
    used = [step for name, step in steps.items() if chosen[name] or (users.steps and name == "random_crop")]
    pipeline = A.Compose(
        [A.NoOp(), *used, *users.steps], bbox_params=boxes
    )  # it warns where no step of it can move a box
    edges = [scaled(edge) for edge in DETR_SCALES] if chosen["multi_scale"] is True else [shortest_edge]
    return Augmentation(
        pipeline,
        edges,
        random_crop=chosen["random_crop"],
        crop_edges=[scaled(edge) for edge in DETR_CROP_SCALES],
        crop_sides=(scaled(DETR_CROP[0]), scaled(DETR_CROP[1])),
        mosaic=config.mosaic,
        copy_paste=config.copy_paste,
        steps=len(users.steps),
        reshapes=users.reshapes,
        min_visibility=config.min_visibility,
    )
