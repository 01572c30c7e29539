"""DETR's Hungarian matching: which query answers for which object.

The costs are those of "End-to-End Object Detection with Transformers" (Carion et al. 2020, arXiv:2005.12872, equation
1) and of facebookresearch/detr (`models/matcher.py`). All decoder layers are matched in one pass, in fp32, with one
transfer to the host and one back; whether everything was finite and every label in range travels along with the costs
instead of costing a transfer of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
class CriterionWeights:
    """Weights of matching costs and losses; the defaults are those of facebookresearch/detr."""

    class_cost: float = 1.0
    bbox_cost: float = 5.0
    giou_cost: float = 2.0
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
    boxes = torch.tensor([0.5, 0.5, 1.0, 1.0], dtype=dtype, device=device).repeat(*class_labels.shape, 1)
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
    x0, y0, x1, y1 = boxes_xyxy.unbind(-1)
    u0, v0, u1, v1 = other_xyxy.unbind(-1)
    intersection = (torch.minimum(x1, u1) - torch.maximum(x0, u0)).clamp(min=0) * (
        torch.minimum(y1, v1) - torch.maximum(y0, v0)
    ).clamp(min=0)
    union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - intersection
    hull = (torch.maximum(x1, u1) - torch.minimum(x0, u0)) * (torch.maximum(y1, v1) - torch.minimum(y0, v0))
    return intersection / union - (hull - union) / hull


def matching_costs(
    logits: torch.Tensor, boxes_cxcywh_rel: torch.Tensor, targets: Targets, weights: CriterionWeights
) -> torch.Tensor:
    """Costs `[L, B, Q, N]` of giving query q of layer l in image b the target n."""
    layers, _, queries, _ = logits.shape
    safe_labels = targets.class_labels.clamp(0, logits.shape[-1] - 1)
    class_cost = -logits.softmax(-1).gather(-1, safe_labels[None, :, None].expand(layers, -1, queries, -1))
    predicted, wanted = boxes_cxcywh_rel[:, :, :, None], targets.boxes_cxcywh_rel[None, :, None]
    bbox_cost = (predicted - wanted).abs().sum(-1)
    giou_cost = -paired_giou(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(wanted))
    return weights.class_cost * class_cost + weights.bbox_cost * bbox_cost + weights.giou_cost * giou_cost


@torch.no_grad()
def match(
    logits: torch.Tensor, boxes_cxcywh_rel: torch.Tensor, targets: Targets, weights: CriterionWeights
) -> torch.Tensor:
    """Target of each query, `[L, B, Q]` int64, -1 for "no object"; the assignment of least total cost per image.

    Raises:
        UnusableBatchError: predictions or boxes are not finite, or labels are out of range.
    """
    layers, batch, queries, classes = logits.shape
    costs = matching_costs(logits, boxes_cxcywh_rel, targets, weights)
    labels = targets.class_labels
    bad_predictions = ~(logits.isfinite().all(-1) & boxes_cxcywh_rel.isfinite().all(-1)).all(-1).all(0)
    bad_boxes = ~targets.boxes_cxcywh_rel.isfinite().flatten(1).all(-1)
    bad_labels = ((labels < 0) | (labels >= classes - 1)).any(-1)
    flags = torch.stack([bad_labels, bad_boxes, bad_predictions]).to(costs.dtype)

    on_host = torch.cat([costs.flatten(), flags.flatten()]).cpu().numpy()
    for reason, flagged in zip(
        ("labels are out of range", "boxes are not finite", "predictions are not finite"),
        on_host[costs.numel() :].reshape(3, batch),
        strict=True,
    ):
        if flagged.any():
            raise UnusableBatchError(reason, [int(targets.image_ids[i]) for i in np.flatnonzero(flagged)])

    costs_on_host = on_host[: costs.numel()].reshape(costs.shape)
    matched = np.full((layers, batch, queries), -1, dtype=np.int64)
    for layer in range(layers):
        for image, count in enumerate(targets.counts):
            query_indices, target_indices = linear_sum_assignment(costs_on_host[layer, image, :, :count])
            matched[layer, image, query_indices] = target_indices
    return torch.from_numpy(matched).to(logits.device, non_blocking=True)
