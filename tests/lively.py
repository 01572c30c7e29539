"""A DETR with random weights whose boxes, unlike those of a fresh one, differ by query and by image."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import DetrForObjectDetection

from tests.synthetic import tiny_detr, tiny_processor


def lively_detr(seed: int = 0, **overrides: object) -> DetrForObjectDetection:
    """The tiny DETR with weights that keep signals alive from the input to the heads; in evaluation mode."""
    model = tiny_detr(seed=seed, **overrides)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "backbone" in name or parameter.dim() < 2:
                continue
            scale = 4.0 if "query_position" in name else 2.0 * parameter.shape[1] ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def write_lively_run(run: Path, **overrides: object) -> Path:
    """A run folder with the lively model, category ids 3 and 7 for labels 0 and 1."""
    model = lively_detr(**overrides)
    model.config.category_ids = [3, 7]
    model.save_pretrained(run)
    tiny_processor().save_pretrained(run)
    return run


def patches(height: int, width: int, seed: int) -> Image.Image:
    """Coloured rectangles; another seed, another picture."""
    colours = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST)
