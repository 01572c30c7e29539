"""DETR's set criterion.

The formulas are those of "End-to-End Object Detection with Transformers" (Carion et al. 2020, arXiv:2005.12872,
equation 2 and appendix A.2) and of facebookresearch/detr (`models/detr.py`). Two things differ in how they are
computed, none in what:

- Every sum is divided by what the *whole* batch holds, that is by the boxes and images of all processes and of all
  accumulated micro-batches (`count_items`), so that one gradient comes out however a batch is cut up. Transformers'
  own loss divides the box terms by the number of processes once too often.
- Losses are masked sums over all queries, so that shapes do not depend on how many objects an image has.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from hf_detr_ft.model.criteria.matched_boxes import compare_boxes
from hf_detr_ft.model.hungarian_matching import CriterionWeights, Targets, match, pad_targets


def count_items(labels: Sequence[dict], num_queries: int) -> torch.Tensor:
    """Counts that the criterion divides by: `[boxes, matched boxes, images]`, fp32, on the CPU.

    Add up the counts of all micro-batches and processes to get those of the whole batch. Fewer boxes are matched than
    there are where an image has more of them than the model has queries.
    """
    counts = [len(target["class_labels"]) for target in labels]
    matched = sum(min(count, num_queries) for count in counts)
    return torch.tensor([sum(counts), matched, len(counts)], dtype=torch.float32)


def set_criterion(
    logits: torch.Tensor,
    boxes_cxcywh_rel: torch.Tensor,
    labels: Sequence[dict],
    weights: CriterionWeights,
    num_items: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """DETR's loss over all decoder layers given; see `match_and_weigh`."""
    return match_and_weigh(logits, boxes_cxcywh_rel, labels, weights, num_items)[:2]


def match_and_weigh(
    logits: torch.Tensor,
    boxes_cxcywh_rel: torch.Tensor,
    labels: Sequence[dict],
    weights: CriterionWeights,
    num_items: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """DETR's loss over all decoder layers given, and what else is to be computed of the same matches needs.

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
        class). Parts of several processes or micro-batches add up to those of the whole batch. Then the target of each
        query, `[L, B, Q]`, as `match` gives it, and the boxes of the whole batch, at least 1, without dimension.

    Raises:
        UnusableBatchError: predictions or boxes are not finite, or labels are out of range.
    """
    with torch.autocast(logits.device.type, enabled=False):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits, boxes_cxcywh_rel = logits.to(dtype), boxes_cxcywh_rel.to(dtype)
        items = count_items(labels, logits.shape[2]) if num_items is None else num_items
        items = items.to(logits.device, dtype, non_blocking=True)
        targets = pad_targets(labels, dtype)
        matched = match(logits.detach(), boxes_cxcywh_rel.detach(), targets, weights)
        wanted = matched_labels(matched, targets, no_object=logits.shape[-1] - 1)
        loss_ce = class_loss(logits, wanted, items, weights)
        num_boxes = items[0].clamp(min=1)
        of_boxes = compare_boxes(boxes_cxcywh_rel, matched, targets).losses(num_boxes)
        loss = loss_ce + weights.bbox_loss * of_boxes["loss_bbox"] + weights.giou_loss * of_boxes["loss_giou"]
        losses = {"loss_ce": loss_ce, **of_boxes}
        return loss.sum(), loss_parts(losses, logits, wanted, targets.counts, items), matched, num_boxes


def matched_labels(matched: torch.Tensor, targets: Targets, no_object: int) -> torch.Tensor:
    """Class that each query should predict, `[L, B, Q]` int64; `no_object` without a target."""
    rows = torch.arange(matched.shape[1], device=matched.device)[None, :, None]
    return targets.class_labels[rows, matched.clamp(min=0)].where(matched >= 0, no_object)


def class_loss(
    logits: torch.Tensor, wanted: torch.Tensor, items: torch.Tensor, weights: CriterionWeights
) -> torch.Tensor:
    """Cross entropy of each layer, `[L]`, over the weight of all queries of the whole batch.

    Args:
        logits: `[L, B, Q, C+1]`.
        wanted: result of `matched_labels`.
        items: `count_items` of the whole batch.
        weights: of costs and losses.
    """
    _, num_matched, num_images = items.unbind()
    no_object = logits.shape[-1] - 1
    class_weight = torch.ones(no_object + 1, dtype=logits.dtype, device=logits.device)
    class_weight[no_object].fill_(weights.no_object)
    entropy = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), class_weight, reduction="none")
    total_weight = num_matched + weights.no_object * (num_images * logits.shape[2] - num_matched)
    return entropy.view(len(logits), -1).sum(-1) / total_weight


@torch.no_grad()
def loss_parts(
    losses: dict[str, torch.Tensor],
    logits: torch.Tensor,
    wanted: torch.Tensor,
    counts: Sequence[int],
    items: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Values to log: the losses of each layer by name, and two error rates; see `set_criterion`.

    Args:
        losses: `[L]` each, by name.
        logits: `[L, B, Q, C+1]`.
        wanted: result of `matched_labels`.
        counts: objects of each image.
        items: `count_items` of the whole batch.
    """
    _, num_matched, num_images = items.unbind()
    no_object = logits.shape[-1] - 1
    predicted = logits.argmax(-1)
    present = torch.tensor(counts).to(logits.device, non_blocking=True)
    cardinality = ((predicted != no_object).sum(-1) - present).abs().sum(-1) / num_images
    wrong = ((predicted[-1] != wanted[-1]) & (wanted[-1] != no_object)).sum()
    parts = {"class_error": 100 * wrong / num_matched.clamp(min=1)}
    for layer in range(len(logits)):
        suffix = "" if layer == len(logits) - 1 else f"_{layer}"
        for name, values in {**losses, "cardinality_error": cardinality}.items():
            parts[f"{name}{suffix}"] = values[layer].detach()
    return parts
