"""Tiny models of every family with random weights."""

from collections.abc import Sequence
from typing import Any

import torch

from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.recipe.sections import ModelConfig
from tests.fixtures import CLASSES, SMALL_TRANSFORMER

EDGE = 64
"""Pixels of a side that every family takes."""
REAL_TIME = {
    **SMALL_TRANSFORMER,
    "num_denoising": 10,
    "hidden_expansion": 0.5,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "detr": SMALL_TRANSFORMER,
    "rt_detr": REAL_TIME,
    "rt_detr_v2": REAL_TIME,
    "d_fine": {**REAL_TIME, "depth_mult": 0.34},
    "deformable_detr": {**SMALL_TRANSFORMER, "num_feature_levels": 3},
    "conditional_detr": SMALL_TRANSFORMER,
}
"""Fields of a config by family."""


def new_section(family: str, **overrides: Any) -> ModelConfig:
    """The `model` section of a new tiny model; `overrides` are fields of its config."""
    settings = {**SETTINGS[family], **overrides}
    square = EDGE if FAMILIES[family].size.square else None
    return ModelConfig(checkpoint=None, backbone="test_resnet", family=family, config=settings, square_edge=square)


def tiny_model(family: str, labels: Sequence[str] = CLASSES, seed: int = 0, **overrides: Any) -> Detector:
    """A new model as a recipe builds it, in evaluation mode; the same for the same seed."""
    torch.manual_seed(seed)
    return build_model(new_section(family, **overrides), labels, range(len(labels))).eval()


def some_labels(*counts: int) -> list[dict[str, torch.Tensor]]:
    """Labels of images with so many objects each, of the classes in turn."""
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "class_labels": torch.arange(count) % len(CLASSES),
            "boxes": torch.rand(count, 4, generator=generator) * 0.2 + 0.3,
            "image_id": torch.tensor([image]),
        }
        for image, count in enumerate(counts)
    ]
