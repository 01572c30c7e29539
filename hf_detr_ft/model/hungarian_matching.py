"""Hungarian matching: which query answers for which object.

The costs are those of "End-to-End Object Detection with Transformers" (Carion et al. 2020, arXiv:2005.12872, equation
1) and of facebookresearch/detr (`models/matcher.py`), with the class cost of Deformable DETR (`models/matcher.py`
there) for the families that score classes by sigmoids. All decoder layers are matched in one pass, in fp32, with one
transfer to the host and one back; whether everything was finite and every label in range travels along with the costs
instead of costing a transfer of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from transformers import DetrConfig

from hf_detr_ft.boxes import cxcywh_to_xyxy


class UnusableBatchError(RuntimeError):
    """A batch cannot be trained on; the trainer turns this into a message with file names.

    Attributes:
        reason: "predictions are not finite", "boxes are not finite" or "labels are out of range".
        image_ids: the images concerned.
    """

    def __init__(self, reason: str, image_ids: list[int]) -> None:
        super().__init__(f"{reason} for the images with the ids {image_ids}")
        self.reason = reason
        self.image_ids = image_ids


@dataclass(frozen=True)
class MatchingCosts:
    """Weights of the costs of giving a query an object; the defaults are those of facebookresearch/detr."""

    class_cost: float = 1.0
    bbox_cost: float = 5.0
    giou_cost: float = 2.0
    sigmoid: bool = False
    """Classes have scores of their own, whose cost is the focal loss; else a softmax with "no object" last."""


@dataclass(frozen=True)
class CriterionWeights(MatchingCosts):
    """Weights of matching costs and losses; the defaults are those of facebookresearch/detr."""

    bbox_loss: float = 5.0
    giou_loss: float = 2.0
    no_object: float = 0.1
    """Weight of the no-object class in the cross entropy; objects weigh 1."""

    @classmethod
    def from_config(cls, config: DetrConfig) -> "CriterionWeights":
        """Weights that a Transformers config states."""
        return cls(
            class_cost=config.class_cost,
            bbox_cost=config.bbox_cost,
            giou_cost=config.giou_cost,
            bbox_loss=config.bbox_loss_coefficient,
            giou_loss=config.giou_loss_coefficient,
            no_object=config.eos_coefficient,
        )


@dataclass(frozen=True)
class Targets:
    """Labels of a batch, padded to its largest number of objects N (at least 1)."""

    class_labels: torch.Tensor
    """`[B, N]` int64, 0 in the padding."""
    boxes_cxcywh_rel: torch.Tensor
    """`[B, N, 4]`, the whole image in the padding."""
    counts: list[int]
    image_ids: list[torch.Tensor]
    """`[1]` each; read only where something is wrong."""


def pad_targets(labels: Sequence[dict], dtype: torch.dtype) -> Targets:
    """Labels of a batch as tensors, boxes as `dtype`."""
    counts = [len(target["class_labels"]) for target in labels]
    device = labels[0]["class_labels"].device
    class_labels = torch.zeros(len(labels), max(1, *counts), dtype=torch.int64, device=device)
    boxes = torch.full((*class_labels.shape, 4), 0.5, dtype=dtype, device=device)
    boxes[..., 2:] = 1.0
    for row, (target, count) in enumerate(zip(labels, counts, strict=True)):
        class_labels[row, :count] = target["class_labels"]
        boxes[row, :count] = target["boxes"].to(dtype)
    image_ids = [target.get("image_id", torch.tensor([-1])) for target in labels]
    return Targets(class_labels, boxes, counts, image_ids)


def paired_giou(boxes_xyxy: torch.Tensor, other_xyxy: torch.Tensor) -> torch.Tensor:
    """Generalised intersection over union (Rezatofighi et al. 2019, arXiv:1902.09630) of boxes that broadcast.

    Args:
        boxes_xyxy: `[..., 4]`, any frame, positive width and height.
        other_xyxy: `[..., 4]` in the same frame.

    Returns:
        `[...]`, in (-1, 1].
    """
    return paired_iou_and_giou(boxes_xyxy, other_xyxy)[1]


def paired_iou_and_giou(boxes_xyxy: torch.Tensor, other_xyxy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Intersection over union, and what `paired_giou` returns, `[...]` each."""
    x0, y0, x1, y1 = boxes_xyxy.unbind(-1)
    u0, v0, u1, v1 = other_xyxy.unbind(-1)
    intersection = (torch.minimum(x1, u1) - torch.maximum(x0, u0)).clamp(min=0) * (
        torch.minimum(y1, v1) - torch.maximum(y0, v0)
    ).clamp(min=0)
    union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - intersection
    iou = intersection / union
    hull = (torch.maximum(x1, u1) - torch.minimum(x0, u0)) * (torch.maximum(y1, v1) - torch.minimum(y0, v0))
    return iou, iou - (hull - union) / hull


def to_corners(boxes_cxcywh: torch.Tensor) -> torch.Tensor:
    """Corners of boxes `[..., 4]`, of which a negative width or height, as D-FINE can predict, counts as 0."""
    return cxcywh_to_xyxy(torch.cat([boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:].clamp(min=0)], dim=-1))


def focal_cost(logits: torch.Tensor, alpha: float = 0.25, gamma: float = 2.0) -> torch.Tensor:
    """Focal loss of a class as an object's less that of it as none, of logits of any shape."""
    score = logits.sigmoid()
    positive = -alpha * (1 - score) ** gamma * (score + 1e-8).log()
    negative = -(1 - alpha) * score**gamma * (1 - score + 1e-8).log()
    return positive - negative


def matching_costs(
    logits: torch.Tensor, boxes_cxcywh_rel: torch.Tensor, targets: Targets, weights: MatchingCosts
) -> torch.Tensor:
    """Costs `[L, B, Q, N]` of giving query q of layer l in image b the target n."""
    layers, _, queries, _ = logits.shape
    safe_labels = targets.class_labels.clamp(0, logits.shape[-1] - 1)[None, :, None].expand(layers, -1, queries, -1)
    if weights.sigmoid:
        class_cost = focal_cost(logits.gather(-1, safe_labels))
    else:
        class_cost = -logits.softmax(-1).gather(-1, safe_labels)
    predicted, wanted = boxes_cxcywh_rel[:, :, :, None], targets.boxes_cxcywh_rel[None, :, None]
    bbox_cost = (predicted - wanted).abs().sum(-1)
    giou_cost = -paired_giou(to_corners(predicted), to_corners(wanted))
    return weights.class_cost * class_cost + weights.bbox_cost * bbox_cost + weights.giou_cost * giou_cost


@torch.no_grad()
def match(
    logits: torch.Tensor, boxes_cxcywh_rel: torch.Tensor, targets: Targets, weights: MatchingCosts, groups: int = 1
) -> torch.Tensor:
    """Target of each query, `[L, B, Q]` int64, -1 for "no object"; the assignment of least total cost per image.

    Args:
        logits: `[L, B, Q, C]`, or C+1 with "no object" last where scores are a softmax.
        boxes_cxcywh_rel: `[L, B, Q, 4]`.
        targets: objects of these images.
        weights: of costs.
        groups: of Q / groups neighbouring queries, each of which is matched with all targets (Group DETR).

    Raises:
        UnusableBatchError: predictions or boxes are not finite, or labels are out of range.
    """
    batch, classes = logits.shape[1], logits.shape[-1] - (not weights.sigmoid)
    costs = matching_costs(logits, boxes_cxcywh_rel, targets, weights)
    labels = targets.class_labels
    bad_predictions = ~(logits.isfinite().all(-1) & boxes_cxcywh_rel.isfinite().all(-1)).all(-1).all(0)
    bad_boxes = ~targets.boxes_cxcywh_rel.isfinite().flatten(1).all(-1)
    bad_labels = ((labels < 0) | (labels >= classes)).any(-1)
    flags = torch.stack([bad_labels, bad_boxes, bad_predictions]).to(costs.dtype)

    on_host = torch.cat([costs.flatten(), flags.flatten()]).cpu().numpy()
    for reason, flagged in zip(
        ("labels are out of range", "boxes are not finite", "predictions are not finite"),
        on_host[costs.numel() :].reshape(3, batch),
        strict=True,
    ):
        if flagged.any():
            raise UnusableBatchError(reason, [int(targets.image_ids[i]) for i in np.flatnonzero(flagged)])
    matched = assign(on_host[: costs.numel()].reshape(costs.shape), targets.counts, groups)
    return torch.from_numpy(matched).to(logits.device, non_blocking=True)


def assign(costs: np.ndarray, counts: Sequence[int], groups: int) -> np.ndarray:
    """Target of each query `[L, B, Q]` from costs `[L, B, Q, N]`; image b has the first `counts[b]` of N targets."""
    layers, batch, queries, _ = costs.shape
    matched = np.full((layers, batch, groups, queries // groups), -1, dtype=np.int64)
    of_groups = costs.reshape(*matched.shape, -1)
    for layer, (image, count), group in product(range(layers), enumerate(counts), range(groups)):
        query_indices, target_indices = linear_sum_assignment(of_groups[layer, image, group, :, :count])
        matched[layer, image, group, query_indices] = target_indices
    return matched.reshape(layers, batch, queries)
