"""Small COCO folders and tiny DETRs, made on the fly; tests need no network and no files of their own."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

PALETTE = ((220, 40, 40), (40, 180, 60), (50, 80, 220), (230, 200, 40), (180, 60, 200))
CATEGORIES = ({"id": 3, "name": "disc"}, {"id": 7, "name": "box"})
"""Sparse category ids on purpose: a label is never equal to its category id."""


def draw_split(
    images_dir: Path,
    sizes: Sequence[tuple[int, int]],
    *,
    seed: int,
    categories: Sequence[dict] = CATEGORIES,
    objects: Sequence[int] | None = None,
) -> dict:
    """Draws one split and returns its COCO dict. `sizes` are (height, width); `objects` the count per image."""
    rng = np.random.default_rng(seed)
    images_dir.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index, (height, width) in enumerate(sizes):
        pixels = rng.integers(90, 150, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        draw = ImageDraw.Draw(image)
        name = f"{seed:02d}_{index:03d}.jpg"
        images.append({"id": 100 + index, "file_name": name, "height": height, "width": width})
        count = objects[index] if objects is not None else int(rng.integers(1, 4))
        for _ in range(count):
            which = int(rng.integers(len(categories)))
            w, h = (int(rng.integers(max(4, side // 8), side // 2)) for side in (width, height))
            x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
            shape = draw.ellipse if categories[which]["name"] == "disc" else draw.rectangle
            shape((x, y, x + w - 1, y + h - 1), fill=PALETTE[which % len(PALETTE)])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + index,
                    "category_id": categories[which]["id"],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        image.save(images_dir / name, quality=95)
    return {"images": images, "annotations": annotations, "categories": [dict(c) for c in categories]}


def write_coco_folder(
    root: Path,
    train_sizes: Sequence[tuple[int, int]] = ((96, 128), (128, 96), (96, 128), (96, 96)),
    val_sizes: Sequence[tuple[int, int]] = ((96, 128), (128, 96)),
    categories: Sequence[dict] = CATEGORIES,
) -> Path:
    """Writes `annotations/custom_{train,val}.json`, `train2017/` and `val2017/` under `root`; returns `root`."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, sizes, seed in (("train", train_sizes, 1), ("val", val_sizes, 2)):
        coco = draw_split(root / f"{split}2017", sizes, seed=seed, categories=categories)
        (root / "annotations" / f"custom_{split}.json").write_text(json.dumps(coco))
    return root


SMALL_TRANSFORMER = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 12,
}
"""Fields of a `DetrConfig`."""


def tiny_config(labels: Sequence[str] = ("disc", "box"), **overrides: object) -> DetrConfig:
    """A DETR of about 0.5 million parameters on timm's `test_resnet` (stages layer1 … layer4, plain batch norms)."""
    settings: dict = {
        "backbone_config": {
            "model_type": "timm_backbone",
            "backbone": "test_resnet",
            "features_only": True,
            "use_pretrained_backbone": False,
            "out_indices": [1, 2, 3, 4],
        },
        **SMALL_TRANSFORMER,
        "id2label": dict(enumerate(labels)),
        "label2id": {name: label for label, name in enumerate(labels)},
    }
    return DetrConfig(**{**settings, **overrides})


def tiny_detr(labels: Sequence[str] = ("disc", "box"), seed: int = 0, **overrides: object) -> DetrForObjectDetection:
    """Random weights, the same for the same seed; in evaluation mode."""
    torch.manual_seed(seed)
    return DetrForObjectDetection(tiny_config(labels, **overrides)).eval()


def tiny_processor(shortest_edge: int = 96, longest_edge: int = 160) -> DetrImageProcessor:
    """The processor that goes with the tiny model."""
    return DetrImageProcessor(size={"shortest_edge": shortest_edge, "longest_edge": longest_edge})


def write_run_folder(run: Path, labels: Sequence[str] = ("disc", "box"), category_ids: Sequence[int] = (3, 7)) -> Path:
    """A run folder's weights, `config.json` (with `category_ids`) and `preprocessor_config.json`; random weights."""
    model = tiny_detr(labels)
    model.config.category_ids = list(category_ids)
    model.save_pretrained(run)
    tiny_processor().save_pretrained(run)
    return run
