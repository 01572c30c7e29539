"""A DETR with random weights whose boxes, unlike those of a fresh one, differ by query and by image."""

from pathlib import Path

import torch
from transformers import DetrForObjectDetection

from tests.fixtures import tiny_detr, write_run_folder


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
    return write_run_folder(run, lively_detr(**overrides))
