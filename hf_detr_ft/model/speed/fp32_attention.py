"""Attention for training on a CPU under autocast.

torch has one kernel for it there. In bf16 its backward pass takes two to six times as long as in fp32 for the small
matrices that DETRs have in their decoders, and no less for those in the encoder of a large image.

Transformers looks up the function "sdpa" in a table that all models share. It is replaced there by one that does the
same, but for attention layers that are marked here: so a model's config goes on to say "sdpa", and whoever asks for
another attention gets that.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from hf_detr_ft.model.families.family import backbone_of

MARK = "products_in_fp32"
"""Attribute of the attention layers that this is used for."""


def use_fp32_attention(model: PreTrainedModel) -> None:
    """Computes the products of attention in fp32 from now on, where the model is trained on a CPU under autocast."""
    AttentionInterface.register("sdpa", attend)
    of_backbone = set(backbone_of(model).modules())
    for module in model.modules():
        if type(module).__name__.endswith("Attention") and module not in of_backbone:
            setattr(module, MARK, True)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' "sdpa"; in marked layers, where gradients are wanted on a CPU under autocast, in fp32."""
    device = query.device.type
    trains = torch.is_grad_enabled() and torch.is_autocast_enabled(device)
    if device != "cpu" or not trains or not getattr(module, MARK, False):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    with torch.autocast(device, enabled=False):
        return sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **kwargs)
