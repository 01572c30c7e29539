"""Boxes of queries beside those of the objects that they are matched to."""

from dataclasses import dataclass, fields

import torch

from hf_detr_ft.model.hungarian_matching import Targets, paired_iou_and_giou, to_corners


@dataclass(frozen=True)
class MatchedBoxes:
    """Comparison of L layers' boxes with their objects'; of no meaning where `is_object` is False, but finite."""

    is_object: torch.Tensor
    """`[L, B, Q]` bool."""
    wanted_cxcywh_rel: torch.Tensor
    """`[L, B, Q, 4]`."""
    distance: torch.Tensor
    """`[L, B, Q]`, sum of the absolute differences of the four coordinates."""
    iou: torch.Tensor
    """`[L, B, Q]` without gradient."""
    giou: torch.Tensor
    """`[L, B, Q]`."""

    def first(self, count: int) -> "MatchedBoxes":
        """Those of the first layers."""
        return MatchedBoxes(*(getattr(self, entry.name)[:count] for entry in fields(self)))

    def losses(self, num_boxes: torch.Tensor) -> dict[str, torch.Tensor]:
        """L1 and GIoU loss of each layer, `[L]` each, by name.

        Args:
            num_boxes: what they are divided by, without dimension: boxes of the whole batch, at least 1.
        """
        losses = {"loss_bbox": self.distance, "loss_giou": 1 - self.giou}
        return {name: (values * self.is_object).flatten(1).sum(-1) / num_boxes for name, values in losses.items()}


def compare_boxes(boxes_cxcywh_rel: torch.Tensor, matched: torch.Tensor, targets: Targets) -> MatchedBoxes:
    """Boxes `[L, B, Q, 4]` compared with those of `matched` `[L, B, Q]`, as `match` returns it."""
    rows = torch.arange(matched.shape[1], device=matched.device)[None, :, None]
    wanted = targets.boxes_cxcywh_rel[rows, matched.clamp(min=0)]
    iou, giou = paired_iou_and_giou(to_corners(boxes_cxcywh_rel), to_corners(wanted))
    distance = (boxes_cxcywh_rel - wanted).abs().sum(-1)
    return MatchedBoxes(matched >= 0, wanted, distance, iou.detach(), giou)
