"""Class losses of the DETR family, one value for each query and class.

Each takes `logits` `[..., Q, C]`, `is_class` `[..., Q, C]` (True where the query answers for an object of the class),
and `iou` `[..., Q]`, the overlap of the query's box with its object's, without gradient, and returns `[..., Q, C]`.
"""

from typing import Protocol

import torch
import torch.nn.functional as F


class ClassLoss(Protocol):
    """See the module."""

    def __call__(self, logits: torch.Tensor, is_class: torch.Tensor, iou: torch.Tensor) -> torch.Tensor:
        """See the module."""


def focal_loss(
    logits: torch.Tensor, is_class: torch.Tensor, iou: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    """Focal loss (Lin et al. 2017, arXiv:1708.02002, equation 5); the overlap does not count."""
    wanted = is_class.to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    score = logits.sigmoid()
    missed = torch.where(is_class, 1 - score, score)
    return torch.where(is_class, alpha, 1 - alpha) * missed**gamma * entropy


def varifocal_loss(
    logits: torch.Tensor, is_class: torch.Tensor, iou: torch.Tensor, alpha: float = 0.75, gamma: float = 2.0
) -> torch.Tensor:
    """Cross entropy towards the overlap (Zhang et al. 2020, arXiv:2008.13367, equation 2): the score is to tell it."""
    wanted = iou[..., None] * is_class
    weight = torch.where(is_class, wanted, alpha * logits.detach().sigmoid() ** gamma)
    return weight * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def matchability_loss(
    logits: torch.Tensor,
    is_class: torch.Tensor,
    iou: torch.Tensor,
    alpha: float | None = None,
    gamma: float = 1.5,
) -> torch.Tensor:
    """Matchability-aware loss of DEIM (Huang et al. 2024, arXiv:2412.04234).

    A query whose box overlaps its object little weighs as much as one whose box overlaps it much.
    """
    wanted = (iou[..., None] * is_class) ** gamma
    elsewhere = (1.0 if alpha is None else alpha) * logits.detach().sigmoid() ** gamma
    weight = torch.where(is_class, 1.0, elsewhere)
    return weight * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def iou_aware_loss(
    logits: torch.Tensor, is_class: torch.Tensor, iou: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> torch.Tensor:
    """IoU-aware cross entropy of LW-DETR (Chen et al. 2024, arXiv:2406.03459), finite for scores of 0 and 1.

    The wanted score is the geometric mean of score and overlap, at least 0.01.
    """
    score = logits.sigmoid()
    quality = (score.detach() ** alpha * iou[..., None] ** (1 - alpha)).clamp(min=0.01)
    negative = torch.where(is_class, 1 - quality, score**gamma)
    return -(quality * is_class) * F.logsigmoid(logits) - negative * F.logsigmoid(-logits)
