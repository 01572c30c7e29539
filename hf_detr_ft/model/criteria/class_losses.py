"""Class losses of the DETR family: what each class of each query costs.

A loss has two sides: that of a class which the query should not find, and that of the class of its object. Both take
logits of any shape; the object's side also takes `iou`, the overlap of the query's box with the object's, of the same
shape and without gradient. Both return the loss of each logit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class ClassLoss:
    """Two sides of a loss; see the module."""

    absent: Callable[[torch.Tensor], torch.Tensor]
    present: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def __call__(self, logits: torch.Tensor, wanted: torch.Tensor, iou: torch.Tensor) -> torch.Tensor:
        """Sum of a layer's losses, `[L]`.

        Args:
            logits: `[L, B, Q, C]`.
            wanted: `[L, B, Q]` int64, class of each query's object; -1 for none.
            iou: `[L, B, Q]`.
        """
        # The objects' classes are few: they are taken back out of what all classes cost.
        chosen = logits.gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
        of_objects = (self.present(chosen, iou) - self.absent(chosen)) * (wanted >= 0)
        return self.absent(logits).flatten(1).sum(-1) + of_objects.flatten(1).sum(-1)


def focal_loss(alpha: float = 0.25, gamma: float = 2.0) -> ClassLoss:
    """Focal loss (Lin et al. 2017, arXiv:1708.02002, equation 5); the overlap does not count."""
    return ClassLoss(
        lambda logits: (1 - alpha) * logits.sigmoid() ** gamma * F.softplus(logits),
        lambda logits, iou: alpha * (-logits).sigmoid() ** gamma * F.softplus(-logits),
    )


def varifocal_loss(alpha: float = 0.75, gamma: float = 2.0) -> ClassLoss:
    """Cross entropy towards the overlap (Zhang et al. 2020, arXiv:2008.13367, equation 2): the score is to tell it."""
    return ClassLoss(
        lambda logits: alpha * logits.detach().sigmoid() ** gamma * F.softplus(logits),
        lambda logits, iou: iou * F.binary_cross_entropy_with_logits(logits, iou, reduction="none"),
    )


def matchability_loss(alpha: float | None = None, gamma: float = 1.5) -> ClassLoss:
    """Matchability-aware loss of DEIM (Huang et al. 2024, arXiv:2412.04234).

    A query whose box overlaps its object little weighs as much as one whose box overlaps it much.
    """
    weight = 1.0 if alpha is None else alpha
    return ClassLoss(
        lambda logits: weight * logits.detach().sigmoid() ** gamma * F.softplus(logits),
        lambda logits, iou: F.binary_cross_entropy_with_logits(logits, iou**gamma, reduction="none"),
    )


def iou_aware_loss(alpha: float = 0.25, gamma: float = 2.0) -> ClassLoss:
    """IoU-aware cross entropy of LW-DETR (Chen et al. 2024, arXiv:2406.03459), finite for scores of 0 and 1.

    The wanted score is the geometric mean of score and overlap, at least 0.01.
    """

    def present(logits: torch.Tensor, iou: torch.Tensor) -> torch.Tensor:
        quality = (logits.detach().sigmoid() ** alpha * iou ** (1 - alpha)).clamp(min=0.01)
        return F.binary_cross_entropy_with_logits(logits, quality, reduction="none")

    return ClassLoss(lambda logits: logits.sigmoid() ** gamma * F.softplus(logits), present)
