"""Tiny models of every family with random weights."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.detector import Detector, detector_class
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.model.stages import train_stages
from hf_detr_ft.recipe.sections import ModelConfig
from tests.fixtures import CLASSES, SMALL_TRANSFORMER, as_flags

EDGE = 64
"""Pixels of a side that every family takes."""
REAL_TIME = {
    **SMALL_TRANSFORMER,
    "num_denoising": 10,
    "hidden_expansion": 0.5,
}
GROUPS = {
    "d_model": 32,
    "decoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_self_attention_heads": 4,
    "decoder_cross_attention_heads": 4,
    "num_queries": 12,
    "group_detr": 3,
    "dropout": 0.0,
}
VISION_TRANSFORMER = {
    "image_size": EDGE,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 16,
    "mlp_ratio": 2,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "detr": SMALL_TRANSFORMER,
    "rt_detr": REAL_TIME,
    "rt_detr_v2": REAL_TIME,
    "d_fine": {**REAL_TIME, "depth_mult": 0.34},
    "rf_detr": {
        **GROUPS,
        "backbone_config": {
            "model_type": "rf_detr_dinov2",
            **VISION_TRANSFORMER,
            "num_windows": 2,
            "num_register_tokens": 0,
            "out_features": ["stage1", "stage2"],
        },
    },
    "lw_detr": {
        **GROUPS,
        "projector_scale_factors": [1.0],
        "backbone_config": {
            "model_type": "lw_detr_vit",
            **VISION_TRANSFORMER,
            "num_windows": 4,
            "window_block_indices": [0],
            "out_indices": [1, 2],
        },
    },
    "deformable_detr": {**SMALL_TRANSFORMER, "num_feature_levels": 3},
    "conditional_detr": SMALL_TRANSFORMER,
    "table-transformer": SMALL_TRANSFORMER,
    "dab-detr": {
        **{name: value for name, value in SMALL_TRANSFORMER.items() if name != "d_model"},
        "hidden_size": SMALL_TRANSFORMER["d_model"],
    },
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
    if FAMILIES[family].timm_backbone:
        return build_model(new_section(family, **overrides), labels, range(len(labels))).eval()
    names = dict(enumerate(labels))
    config = FAMILIES[family].config_class(**{**SETTINGS[family], **overrides}, id2label=names)
    model = detector_class(FAMILIES[family])(config)
    train_stages(model, None)
    return model.eval()


def write_checkpoint(folder: Path, family: str, labels: Sequence[str] = CLASSES, **overrides: Any) -> Path:
    """A tiny model with its processor, as a run folder has them; `overrides` are fields of its config."""
    tiny_model(family, labels, **overrides).save_pretrained(folder)
    processor = getattr(transformers, FAMILIES[family].processor)
    square = FAMILIES[family].size.square
    edges = {"height": EDGE, "width": EDGE} if square else {"shortest_edge": EDGE, "longest_edge": 107}
    processor(size=edges).save_pretrained(folder)
    return folder


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


def training(family: str, root: Path, run: Path) -> list[str]:
    """Arguments of a training of two epochs, of micro-batches of one image, without a report."""
    start: dict[str, Any] = {"model.checkpoint": root / family}
    if FAMILIES[family].timm_backbone:
        start = {
            "model.checkpoint": "null",
            "model.backbone": "test_resnet",
            "model.family": family,
            "model.config": json.dumps(SETTINGS[family]),
        }
    elif not (root / family).exists():
        write_checkpoint(root / family, family)
    square = FAMILIES[family].size.square
    edges = {"square_edge": EDGE} if square else {"shortest_edge": EDGE, "longest_edge": 107}
    settings = {
        **start,
        **{f"model.{name}": edge for name, edge in edges.items()},
        "data.root": root,
        "augment.random_crop": 0,
        "training.num_train_epochs": 2,
        "training.logging_steps": 1,
        "training.per_device_train_batch_size": 1,
        "training.gradient_accumulation_steps": 2,
        "training.save_total_limit": 3,
        "training.bf16": "false",
        "training.use_cpu": "true",
        "training.disable_tqdm": "true",
        "training.output_dir": run,
        "report.enabled": "false",
    }
    return ["train", *as_flags(settings)]
