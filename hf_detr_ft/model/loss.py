"""DETR's set criterion and its Hungarian matching.

The formulas are those of "End-to-End Object Detection with Transformers" (Carion et al. 2020, arXiv:2005.12872,
equations 1 and 2 and appendix A.2) and of the authors' code (facebookresearch/detr, `models/detr.py` and
`models/matcher.py`). Three things differ in how they are computed, none in what:

- Every sum is divided by what the *whole* batch holds, that is by the boxes and images of all processes and of all
  accumulated micro-batches (`count_items`), so that one gradient comes out however a batch is cut up. Transformers'
  own loss divides the box terms by the number of processes once too often.
- All decoder layers are matched in one pass, in fp32, with one transfer to the host and one back; whether everything
  was finite and every label in range travels along with the costs instead of costing a transfer of its own.
- Losses are masked sums over all queries, so that shapes do not depend on how many objects an image has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
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
    """Weights of matching costs and losses; the defaults are the original DETR's."""

    class_cost: float = 1.0
    bbox_cost: float = 5.0
    giou_cost: float = 2.0
    bbox_loss: float = 5.0
    giou_loss: float = 2.0
    no_object: float = 0.1
    """Weight of the no-object class in the cross entropy; objects weigh 1."""

    @classmethod
    def from_config(cls, config: DetrConfig) -> "CriterionWeights":
        """The weights that a Transformers config states."""
        return cls(
            class_cost=config.class_cost,
            bbox_cost=config.bbox_cost,
            giou_cost=config.giou_cost,
            bbox_loss=config.bbox_loss_coefficient,
            giou_loss=config.giou_loss_coefficient,
            no_object=config.eos_coefficient,
        )


def count_items(labels: Sequence[dict], num_queries: int) -> torch.Tensor:
    """What the criterion divides by: `[boxes, matched boxes, images]`, fp32, on the CPU.

    Add up the counts of all micro-batches and processes to get those of the whole batch. Fewer boxes are matched than
    there are where an image has more of them than the model has queries.
    """
    counts = [len(target["class_labels"]) for target in labels]
    matched = sum(min(count, num_queries) for count in counts)
    return torch.tensor([sum(counts), matched, len(counts)], dtype=torch.float32)


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


@dataclass(frozen=True)
class Targets:
    """The batch's labels, padded to its largest number of objects N (at least 1)."""

    class_labels: torch.Tensor
    """`[B, N]` int64, 0 in the padding."""
    boxes_cxcywh_rel: torch.Tensor
    """`[B, N, 4]`, the whole image in the padding."""
    counts: list[int]
    image_ids: list[torch.Tensor]
    """`[1]` each; read only where something is wrong."""


def pad_targets(labels: Sequence[dict], dtype: torch.dtype) -> Targets:
    """The labels of a batch as tensors, boxes as `dtype`."""
    counts = [len(target["class_labels"]) for target in labels]
    device = labels[0]["class_labels"].device
    class_labels = torch.zeros(len(labels), max(1, *counts), dtype=torch.int64, device=device)
    boxes = torch.tensor([0.5, 0.5, 1.0, 1.0], dtype=dtype, device=device).repeat(*class_labels.shape, 1)
    for row, (target, count) in enumerate(zip(labels, counts, strict=True)):
        class_labels[row, :count] = target["class_labels"]
        boxes[row, :count] = target["boxes"].to(dtype)
    image_ids = [target.get("image_id", torch.tensor([-1])) for target in labels]
    return Targets(class_labels, boxes, counts, image_ids)


def _matching_costs(
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
    """The target of each query, `[L, B, Q]` int64, -1 for "no object"; the assignment of least total cost per image.

    Raises:
        UnusableBatchError: predictions or boxes are not finite, or labels are out of range.
    """
    layers, batch, queries, classes = logits.shape
    costs = _matching_costs(logits, boxes_cxcywh_rel, targets, weights)
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


def set_criterion(
    logits: torch.Tensor,
    boxes_cxcywh_rel: torch.Tensor,
    labels: Sequence[dict],
    weights: CriterionWeights,
    num_items: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """DETR's loss over all decoder layers given.

    Args:
        logits: `[L, B, Q, C+1]`, class C is "no object"; the last of the L layers is the model's output.
        boxes_cxcywh_rel: `[L, B, Q, 4]` in [0, 1], relative to each image without its padding.
        labels: per image `class_labels` `[n]` in 0..C-1 and `boxes` `[n, 4]` in the frame above; `image_id` for errors.
        weights: of costs and losses.
        num_items: `count_items` of the whole batch; None: these images are the whole batch.

    Returns:
        The weighted sum of the losses, and its unweighted parts without gradient: `loss_ce`, `loss_bbox`, `loss_giou`
        and `cardinality_error` (mean difference between objects predicted and present) of the last layer, with the
        suffix `_0`, `_1`, … of the layers before it, and `class_error` (percentage of matched objects with the wrong
        class). Parts of several processes or micro-batches add up to those of the whole batch.

    Raises:
        UnusableBatchError: predictions or boxes are not finite, or labels are out of range.
    """
    with torch.autocast(logits.device.type, enabled=False):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits, boxes_cxcywh_rel = logits.to(dtype), boxes_cxcywh_rel.to(dtype)
        items = count_items(labels, logits.shape[2]) if num_items is None else num_items
        num_boxes, num_matched, num_images = items.to(logits.device, dtype, non_blocking=True).unbind()
        num_boxes = num_boxes.clamp(min=1)

        targets = pad_targets(labels, dtype)
        matched = match(logits.detach(), boxes_cxcywh_rel.detach(), targets, weights)
        is_object = matched >= 0
        rows = torch.arange(len(labels), device=logits.device)[None, :, None]
        no_object = logits.shape[-1] - 1
        wanted = targets.class_labels[rows, matched.clamp(min=0)].where(is_object, no_object)
        wanted_boxes = targets.boxes_cxcywh_rel[rows, matched.clamp(min=0)]

        class_weight = torch.ones(no_object + 1, dtype=dtype, device=logits.device)
        class_weight[no_object] = weights.no_object
        entropy = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), class_weight, reduction="none")
        total_weight = num_matched + weights.no_object * (num_images * logits.shape[2] - num_matched)
        loss_ce = entropy.view(len(logits), -1).sum(-1) / total_weight
        absolute = (boxes_cxcywh_rel - wanted_boxes).abs().sum(-1)
        loss_bbox = (absolute * is_object).flatten(1).sum(-1) / num_boxes
        giou = paired_giou(cxcywh_to_xyxy(boxes_cxcywh_rel), cxcywh_to_xyxy(wanted_boxes))
        loss_giou = ((1 - giou) * is_object).flatten(1).sum(-1) / num_boxes
        loss = (loss_ce + weights.bbox_loss * loss_bbox + weights.giou_loss * loss_giou).sum()

        with torch.no_grad():
            predicted = logits.argmax(-1)
            present = torch.tensor(targets.counts, device=logits.device)
            cardinality = ((predicted != no_object).sum(-1) - present).abs().sum(-1) / num_images
            wrong = ((predicted[-1] != wanted[-1]) & is_object[-1]).sum()
            parts = {"class_error": 100 * wrong / num_matched.clamp(min=1)}
            for layer in range(len(logits)):
                suffix = "" if layer == len(logits) - 1 else f"_{layer}"
                parts[f"loss_ce{suffix}"] = loss_ce[layer].detach()
                parts[f"loss_bbox{suffix}"] = loss_bbox[layer].detach()
                parts[f"loss_giou{suffix}"] = loss_giou[layer].detach()
                parts[f"cardinality_error{suffix}"] = cardinality[layer]
    return loss, parts
