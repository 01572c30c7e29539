"""Attention for training on a CPU under autocast.

torch has one kernel for it there. In bf16 its way back takes two to six times as long as in fp32 for the small
matrices that DETR has in its decoder, and no less for those in the encoder of a large image.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, DetrForObjectDetection, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.detr.modeling_detr import DetrCrossAttention, DetrSelfAttention

NAME = "sdpa_in_fp32"


def attend_in_fp32(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' "sdpa"; where gradients are wanted on a CPU under autocast, with products in fp32."""
    device = query.device.type
    if device != "cpu" or not torch.is_grad_enabled() or not torch.is_autocast_enabled(device):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    with torch.autocast(device, enabled=False):
        return sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **kwargs)


class _View:
    """A model's config as it is at any time, but with `NAME` for "sdpa"."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config

    @property
    def _attn_implementation(self) -> str | None:
        name: str | None = self.config._attn_implementation
        return NAME if name == "sdpa" else name


def use_fp32_attention(model: DetrForObjectDetection) -> None:
    """Has `attend_in_fp32` used by the attention layers wherever "sdpa" is; the model's own config stays as it is."""
    AttentionInterface.register(NAME, attend_in_fp32)
    for module in model.modules():
        if isinstance(module, DetrSelfAttention | DetrCrossAttention):
            vars(module)["config"] = _View(model.config)  # of which attention reads nothing else
