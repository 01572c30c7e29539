"""Losses of masks: the focal and the dice loss of facebookresearch/detr (`models/segmentation.py`, `models/detr.py`).

Both are of the logits brought to the size of the images by bilinear interpolation. As there, padding counts: the target
is nothing up to the largest height and width of the batch, and the focal loss is a mean over all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from hf_detr_ft.model.predictions import MaskPredictions, at_least_fp32

ALPHA, GAMMA = 0.25, 2.0
"""Weight of the object's pixels, and exponent, of the focal loss (Lin et al. 2017, arXiv:1708.02002)."""


@dataclass(frozen=True)
class MaskWeights:
    """Weights of both losses in the sum; the defaults are those of facebookresearch/detr."""

    mask_loss: float = 1.0
    dice_loss: float = 1.0

    @classmethod
    def from_config(cls, config: Any) -> "MaskWeights":
        """Weights that a Transformers config states."""
        return cls(config.mask_loss_coefficient, config.dice_loss_coefficient)


def mask_losses(
    masks: MaskPredictions, matched: torch.Tensor, labels: Sequence[dict], num_boxes: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Focal (`loss_mask`) and dice loss (`loss_dice`) of the masks of matched queries, without dimension.

    Args:
        masks: of the queries.
        matched: `[B, Q]`, the target of each query, -1 for none; see `match`.
        labels: per image `masks` `[n, h, w]` bool, at the size of the image without its padding.
        num_boxes: what the sums are divided by: boxes of the whole batch, at least 1.
    """
    images, queries = (matched >= 0).nonzero(as_tuple=True)
    if not len(images):
        zero = torch.zeros((), dtype=num_boxes.dtype, device=matched.device)
        return {"loss_mask": zero, "loss_dice": zero}
    height, width = (max(target["masks"].shape[axis] for target in labels if "masks" in target) for axis in (1, 2))
    logits = at_least_fp32(masks.logits(images, queries))
    with torch.autocast(logits.device.type, enabled=False):
        logits = F.interpolate(logits[:, None], masks.size, mode="bilinear", align_corners=False)
        logits = logits[:, 0, :height, :width]
        wanted = torch.zeros_like(logits)
        chosen = matched[images, queries]
        for place, (image, target) in enumerate(zip(images.tolist(), chosen.tolist(), strict=True)):
            mask = labels[image]["masks"][target]
            wanted[place, : mask.shape[0], : mask.shape[1]] = mask
        logits, wanted = logits.flatten(1), wanted.flatten(1)
        return {
            "loss_mask": focal_loss(logits, wanted).sum() / num_boxes,
            "loss_dice": dice_loss(logits, wanted).sum() / num_boxes,
        }


def focal_loss(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Focal loss `[N]` of logits `[N, P]`, a mean over their pixels, `wanted` being 1 on the object and 0 elsewhere."""
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    missing = (wanted - logits.sigmoid()).abs()
    weight = torch.where(wanted > 0, ALPHA, 1 - ALPHA)
    return (weight * missing**GAMMA * entropy).mean(1)


def dice_loss(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Dice loss `[N]` (Milletari et al. 2016, arXiv:1606.04797) of logits `[N, P]`; 1 is added above and below."""
    share = logits.sigmoid()
    return 1 - (2 * (share * wanted).sum(1) + 1) / (share.sum(1) + wanted.sum(1) + 1)
