"""DETR's mask head, for some queries of a batch, with each feature map projected once an image.

Transformers' `DetrMaskHeadSmallConv` copies the backbone's maps for every query before it projects them: at 800 x 1333
pixels the finest one of a ResNet-50 takes 6.8 GB for 100 queries. facebookresearch/detr (`models/segmentation.py`)
projects first, to 32 channels. The numbers are the same.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F

AT_ONCE = 25
"""Queries that go through the head together where no gradients are asked for."""


def mask_logits(
    head: Any, features: torch.Tensor, attention: torch.Tensor, maps: Sequence[torch.Tensor], images: torch.Tensor
) -> torch.Tensor:
    """Mask logits `[N, h, w]` of N queries, at the size of the last map.

    Args:
        head: Transformers' mask head.
        features: `[B, D, H, W]`, the projected map that the transformer reads.
        attention: `[N, heads, H, W]` of each query over it.
        maps: of the backbone, three `[B, C, h, w]`, from coarse to fine.
        images: `[N]` int64, the image of each query.
    """
    if not len(images):
        return features.new_zeros(0, *maps[-1].shape[-2:])
    projected = [stage.fpn_adapter(each) for stage, each in zip(head.fpn_stages, maps, strict=True)]
    if torch.is_grad_enabled():
        return _upsample(head, features, attention, projected, images)
    parts = zip(attention.split(AT_ONCE), images.split(AT_ONCE), strict=True)
    return torch.cat([_upsample(head, features, some, projected, places) for some, places in parts])


def _upsample(
    head: Any, features: torch.Tensor, attention: torch.Tensor, projected: list[torch.Tensor], images: torch.Tensor
) -> torch.Tensor:
    states = head.conv2(head.conv1(torch.cat([features[images], attention], dim=1)))
    for stage, each in zip(head.fpn_stages, projected, strict=True):
        states = stage.refine(each[images] + F.interpolate(states, size=each.shape[-2:], mode="nearest"))
    logits: torch.Tensor = head.output_conv(states)[:, 0]
    return logits


def project_once(head: Any) -> None:
    """Lets a mask head of Transformers compute the same from now on, in place, with the memory of `mask_logits`."""
    head.forward = MethodType(_forward, head)


def _forward(
    self: Any, features: torch.Tensor, attention_masks: torch.Tensor, fpn_features: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Forward pass of `DetrMaskHeadSmallConv`: logits `[B * Q, 1, h, w]` of attention `[B, Q, heads, H, W]`."""
    batch, queries = attention_masks.shape[:2]
    images = torch.arange(batch, device=features.device).repeat_interleave(queries)
    return mask_logits(self, features, attention_masks.flatten(0, 1), fpn_features, images)[:, None]
