"""Batch norms that are trained: right gradients for one image on a CPU, one norm for all processes on GPUs."""

from typing import Any

import torch
from torch import nn


def repair_gradients(model: nn.Module) -> None:
    """Lays out gradients as batch norms expect them, from now on and in place, where a batch has one image on a CPU.

    There, torch 2.15 takes a gradient whose channels lie together in memory (what a map flattened to a sequence sends
    back) for one whose channels lie apart, and returns wrong gradients of weight, bias and input, without a word.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(_expect_channels_apart)


def _expect_channels_apart(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
    if output.requires_grad and len(output) == 1 and output.device.type == "cpu":
        output.register_hook(_copy)


def _copy(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.clone(memory_format=torch.contiguous_format)


def share_statistics(model: nn.Module, device: str, processes: int) -> None:
    """Lets batch norms norm with the images of all processes, in place, as RT-DETR's, D-FINE's and LW-DETR's do.

    Args:
        model: keeps its tensors and their names.
        device: that it is trained on; only GPUs can.
        processes: number of them.
    """
    if device == "cuda" and processes > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
