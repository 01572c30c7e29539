"""Inference with the backbone in bf16 and the rest in fp32.

The backbone is where nearly all of the time goes. The transformer is where rounding hurts: in a DETR-R50 with random
weights, boxes on photos of 2048 pixels move by up to 0.2 pixels with the backbone in bf16, by up to 4 with all of it.
"""

from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_detr_ft.machine import MIN_SPEEDUP, best_seconds
from hf_detr_ft.model.families import family_of
from hf_detr_ft.model.families.family import map_encoder_of, maps_in_fp32

PROBE = 224
"""Least side of the image that is timed, in pixels."""
ROUNDS = 3


def choose_backbone_precision(model: PreTrainedModel, bf16: bool | None) -> None:
    """Uses the backbone in bf16 from now on, or leaves it as it is.

    Args:
        model: on the device that it runs on.
        bf16: None to use it where that is faster.
    """
    if bf16 or (bf16 is None and is_faster_in_bf16(model)):
        use_bf16_backbone(model)


def use_bf16_backbone(model: PreTrainedModel) -> None:
    """Lets the backbone compute in bf16 from now on, for inference; weights and what it returns stay in fp32."""
    backbone: Any = map_encoder_of(model)
    backbone.forward = MethodType(_forward_in_bf16, backbone)


def _forward_in_bf16(self: nn.Module, pixel_values: torch.Tensor, pixel_mask: torch.Tensor) -> Any:
    with torch.autocast(pixel_values.device.type, dtype=torch.bfloat16):
        maps = type(self).forward(self, pixel_values, pixel_mask)
    return maps_in_fp32(maps)


@torch.inference_mode()
def is_faster_in_bf16(model: PreTrainedModel) -> bool:
    """Times the backbone on a small image in fp32 and bf16, where it is, in some tenths of a second."""
    backbone = map_encoder_of(model)
    device = next(backbone.parameters()).device
    side = family_of(model).size.side(model.config, PROBE)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    image = image.to(device, memory_format=torch.channels_last)
    mask = torch.ones(1, side, side, dtype=torch.int64, device=device)

    def run(bf16: bool) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            backbone(image, mask)

    in_fp32, in_bf16 = (best_seconds(partial(run, bf16), device.type, ROUNDS) for bf16 in (False, True))
    return in_bf16 * MIN_SPEEDUP < in_fp32
