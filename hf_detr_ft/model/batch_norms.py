"""Batch norms that are trained: right gradients for one image on a CPU, one norm for all processes on GPUs."""

from functools import partial

import torch
from torch import nn


def repair_gradients(model: nn.Module) -> None:
    """Lays out gradients as batch norms expect them, from now on and in place, where a model computes on a CPU.

    torch 2.15 has two faults there, without a word of either. With one image it takes a gradient whose channels lie
    together in memory (what a map flattened to a sequence sends back) for one whose channels lie apart, and returns
    wrong gradients of weight, bias and input. With more, gradients that lie otherwise than the maps take ten times as
    long.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *call: lay_out_gradient(call[-1]))


def lay_out_gradient(output: torch.Tensor) -> None:
    """Lays out the gradient of a batch norm's output, which is yet to come."""
    if not output.requires_grad or output.device.type != "cpu":
        return
    if len(output) == 1:
        output.register_hook(partial(torch.clone, memory_format=torch.contiguous_format))
    elif output.is_contiguous(memory_format=torch.channels_last):
        output.register_hook(partial(torch.Tensor.contiguous, memory_format=torch.channels_last))
    else:
        output.register_hook(torch.Tensor.contiguous)


def share_statistics(model: nn.Module, device: str, processes: int) -> None:
    """Lets batch norms norm with the images of all processes, in place, as RT-DETR's, D-FINE's and LW-DETR's do.

    Args:
        model: keeps its tensors and their names.
        device: that it is trained on; only GPUs can.
        processes: number of them.
    """
    if device == "cuda" and processes > 1:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
