"""The affine blocks of HGNetV2, D-FINE's backbone, on a CPU: one pass over a map, in its own precision.

A block multiplies a map by one number and adds another, which are trained. Its numbers are tensors of one entry in
fp32, so under autocast all maps behind it are in fp32, and each convolution casts them to bf16 again.
"""

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hf_detr_ft.model.batch_norms import lay_out_gradient

NO_EPS = 1e-30
"""Too little to change a variance of 1; torch 2.11 refuses 0."""


def speed_up_affine_blocks(backbone: nn.Module) -> None:
    """Lets affine blocks compute in one pass from now on, in place."""
    for module in backbone.modules():
        if type(module).__name__ == "HGNetV2LearnableAffineBlock":
            module.forward = MethodType(_scale_and_shift, module)


def _scale_and_shift(self: Any, x: torch.Tensor) -> torch.Tensor:
    """The `forward` of a block: a batch norm of mean 0 and variance 1 has the one pass, also for gradients."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        plain: torch.Tensor = type(self).forward(self, x)
        return plain
    channels = x.shape[1]
    mean, variance = torch.zeros(channels, dtype=self.scale.dtype), torch.ones(channels, dtype=self.scale.dtype)
    result = F.batch_norm(x, mean, variance, self.scale.repeat(channels), self.bias.repeat(channels), eps=NO_EPS)
    lay_out_gradient(result)
    return result
