"""Small COCO folders of plain rectangles and tiny DETRs, made on the fly; tests need no network and no files."""

import json
import socket
from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

from hf_detr_ft.model import detector
from hf_detr_ft.model.families.detr_masks import DETR_MASKS
from hf_detr_ft.model.stages import train_stages
from hf_detr_ft.recipe.sections import ModelConfig

CLASSES = ("mug", "cone")
"""Names by label; not in alphabetical order, so that names and ids can be told to go together."""
CATEGORIES = tuple({"id": id_, "name": name} for id_, name in zip((3, 7), CLASSES, strict=True))
"""Sparse category ids on purpose: a label is never equal to its category id."""
COLOURS = ((200, 40, 40), (40, 60, 200), (30, 160, 60), (220, 180, 30))
"""RGB of the rectangles of the first, second, … category; over again from the fifth."""
MOST_OBJECTS = 3
"""Rectangles on an image of which the caller says nothing; at least one."""


def draw_split(
    images_dir: Path,
    sizes: Sequence[tuple[int, int]],
    *,
    seed: int,
    categories: Sequence[dict] = CATEGORIES,
    objects: Sequence[int] | None = None,
) -> dict:
    """Draws one split and returns its COCO dict, in which the categories take turns.

    Args:
        images_dir: where the JPEGs go; made if it is not there.
        sizes: (height, width) of each image.
        seed: another one, other images.
        categories: COCO's, with sparse ids if need be.
        objects: rectangles on each image; 1 to 3 where not given.
    """
    images_dir.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    counts = generator.integers(1, MOST_OBJECTS + 1, len(sizes)).tolist() if objects is None else objects
    images: list[dict] = []
    annotations: list[dict] = []
    for (height, width), count in zip(sizes, counts, strict=True):
        image_id, file_name = 100 + len(images), f"{seed:02d}_{len(images):03d}.jpg"
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        turns = [(seed + len(annotations) + number) % len(categories) for number in range(count)]
        image, boxes_xywh_px = _draw_rectangles(
            height, width, [COLOURS[turn % len(COLOURS)] for turn in turns], generator
        )
        image.save(images_dir / file_name, quality=95)
        for turn, (x, y, w, h) in zip(turns, boxes_xywh_px, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": categories[turn]["id"],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    "iscrowd": 0,
                }
            )
    return {"images": images, "annotations": annotations, "categories": [dict(category) for category in categories]}


def write_coco_folder(
    root: Path,
    train_sizes: Sequence[tuple[int, int]] = ((96, 128), (128, 96), (96, 128), (96, 96)),
    val_sizes: Sequence[tuple[int, int]] = ((96, 128), (128, 96)),
    categories: Sequence[dict] = CATEGORIES,
    train_objects: Sequence[int] | None = None,
) -> Path:
    """Writes `annotations/custom_{train,val}.json`, `train2017/` and `val2017/` under `root`; returns `root`."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, sizes, seed, objects in (("train", train_sizes, 1, train_objects), ("val", val_sizes, 2, None)):
        coco = draw_split(root / f"{split}2017", sizes, seed=seed, categories=categories, objects=objects)
        (root / "annotations" / f"custom_{split}.json").write_text(json.dumps(coco))
    return root


def plain_image(height: int, width: int, seed: int) -> Image.Image:
    """An image of any size without its annotations; another seed, another image."""
    return _draw_rectangles(height, width, COLOURS[:2], np.random.default_rng(seed))[0]


def _draw_rectangles(
    height: int, width: int, colours: Sequence[tuple[int, int, int]], generator: np.random.Generator
) -> tuple[Image.Image, list[list[int]]]:
    """Grey noise with a rectangle of each colour, none over another; their boxes xywh in pixels.

    Every rectangle lies in a cell of its own of a grid and fills at least half of each side of it.
    """
    noise = generator.integers(90, 166, (height, width, 1), dtype=np.uint8)
    pixels = np.repeat(noise, 3, axis=2)
    columns = ceil(sqrt(len(colours)))
    rows = ceil(len(colours) / columns) if columns else 0
    boxes_xywh_px = []
    for cell, colour in zip(generator.permutation(rows * columns).tolist(), colours, strict=False):
        row, column = divmod(cell, columns)
        x, w = _place(column * width // columns, (column + 1) * width // columns, generator)
        y, h = _place(row * height // rows, (row + 1) * height // rows, generator)
        pixels[y : y + h, x : x + w] = colour
        boxes_xywh_px.append([x, y, w, h])
    return Image.fromarray(pixels), boxes_xywh_px


def _place(start: int, stop: int, generator: np.random.Generator) -> tuple[int, int]:
    """Start of a side between two pixels, and its length."""
    length = int(generator.integers((stop - start + 1) // 2, stop - start + 1))
    return int(generator.integers(start, stop - length + 1)), length


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


def tiny_config(labels: Sequence[str] = CLASSES, **overrides: object) -> DetrConfig:
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


def tiny_detr(labels: Sequence[str] = CLASSES, seed: int = 0, **overrides: object) -> DetrForObjectDetection:
    """Random weights, the same for the same seed; in evaluation mode."""
    torch.manual_seed(seed)
    return DetrForObjectDetection(tiny_config(labels, **overrides)).eval()


def trainable_tiny_detr(**overrides: object) -> detector.DetrForObjectDetection:
    """The tiny DETR with the package's loss; the same weights as `tiny_detr`."""
    torch.manual_seed(0)
    return detector.DetrForObjectDetection(tiny_config(**overrides)).eval()


HEADS_FOR_MASKS = {"encoder_attention_heads": 8, "decoder_attention_heads": 8}
"""Heads whose number and the tiny model's width make a multiple of 8, as a mask head wants it."""


def tiny_detr_with_masks() -> detector.Detector:
    """A tiny DETR that finds something everywhere, with a new mask head, which alone is trained."""
    boxes = tiny_detr_with_spread_weights(dropout=0.0, **HEADS_FOR_MASKS)
    torch.manual_seed(0)
    model: Any = detector.detector_class(DETR_MASKS)(boxes.config)
    model.detr.load_state_dict(boxes.state_dict())
    train_stages(model, None)
    return model.eval()


def new_model(**settings: Any) -> ModelConfig:
    """The `model` section of a new DETR, which takes no checkpoint."""
    return ModelConfig(checkpoint=None, backbone="resnet18", **settings)


def tiny_processor(shortest_edge: int = 96, longest_edge: int = 160) -> DetrImageProcessor:
    """The processor that goes with the tiny model."""
    return DetrImageProcessor(size={"shortest_edge": shortest_edge, "longest_edge": longest_edge})


def write_run_folder(
    run: Path, model: DetrForObjectDetection | None = None, category_ids: Sequence[int] = (3, 7)
) -> Path:
    """A run folder's weights, `config.json` (with `category_ids`) and `preprocessor_config.json`; random weights."""
    model = model or tiny_detr()
    model.config.category_ids = list(category_ids)
    model.save_pretrained(run)
    tiny_processor().save_pretrained(run)
    return run


def tiny_detr_with_spread_weights(seed: int = 0, **overrides: object) -> DetrForObjectDetection:
    """A DETR whose boxes, unlike those of a fresh one, differ by query and by image; in evaluation mode.

    Its random weights keep signals alive from the input to the heads.
    """
    model = tiny_detr(seed=seed, **overrides)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "backbone" in name or parameter.dim() < 2:
                continue
            scale = 4.0 if "query_position" in name else 2.0 * parameter.shape[1] ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def write_run_with_spread_weights(run: Path, **overrides: object) -> Path:
    """A run folder with category ids 3 and 7 for labels 0 and 1."""
    return write_run_folder(run, tiny_detr_with_spread_weights(**overrides))


def write_short_job(folder: Path) -> dict[str, object]:
    """Data and model of a training of three epochs of three steps, with dropout and every augmentation: its fields."""
    root = write_coco_folder(folder / "data", train_sizes=[(96, 128), (128, 96), (96, 96)] * 4)
    tiny_detr(["other", "names", "there"], dropout=0.1).save_pretrained(folder / "model")
    return {
        "data.root": root,
        "data.name": "drawn",
        "model.checkpoint": folder / "model",
        "augment.copy_paste": 0.5,
        "augment.pipeline": "[{RandomRotate90: {p: 0.3}}, {OneOf: {transforms: [GaussNoise, {Affine: {rotate: 9}}]}}]",
        "model.shortest_edge": 64,
        "model.longest_edge": 107,
        "training.num_train_epochs": 3,
        "training.per_device_train_batch_size": 4,
        "training.logging_steps": 1,
        "training.bf16": "false",
        "training.use_cpu": "true",
        "training.disable_tqdm": "true",
    }


def as_flags(settings: Mapping[str, object]) -> list[str]:
    """Flags of the command line by a recipe's fields, such as `training.seed`."""
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def free_port() -> int:
    """A port of this machine that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
