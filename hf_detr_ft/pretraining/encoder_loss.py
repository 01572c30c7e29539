"""A loss on the encoder's output, for a DETR that starts without a trained transformer.

Each position of the feature map is asked for the object that it lies in, by the same heads that the queries go
through. A detection transformer alone learns this last: its loss is about a few queries, which attend to everything at
first, and position embeddings reach only the attention's weights, never its values. Many positions for each object,
from the first step on, teach the backbone and the encoder what is where; the queries then learn from features that say
it. Co-DETR (Zong et al. 2023, arXiv:2211.12860) supervises the encoder densely for the same reason, with heads of its
own.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from hf_detr_ft.boxes import cxcywh_to_xyxy
from hf_detr_ft.model.hungarian_matching import CriterionWeights, pad_targets, paired_giou
from hf_detr_ft.model.loss import count_items

CORE = 0.5
"""Side of the middle of a box whose positions stand for the object, relative to the box."""


def position_centres(mask: torch.Tensor) -> torch.Tensor:
    """Centres `[B, h * w, 2]` of a feature map's positions, x and y in [0, 1] of each image without its padding.

    Args:
        mask: `[B, h, w]`, true on the image; rectangles at the top left.
    """
    height, width = mask[:, :, 0].sum(1), mask[:, 0].sum(1)
    y = (torch.arange(mask.shape[1], device=mask.device) + 0.5) / height[:, None]
    x = (torch.arange(mask.shape[2], device=mask.device) + 0.5) / width[:, None]
    grid = torch.stack([x[:, None].expand(-1, mask.shape[1], -1), y[:, :, None].expand(-1, -1, mask.shape[2])], dim=-1)
    return grid.flatten(1, 2)


def assign_positions(boxes_cxcywh_rel: torch.Tensor, present: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Object of each position, `[B, h * w]` int64, -1 where there is none.

    An object has the positions in the middle of its box, at least the one it is centred on; of two objects the smaller
    one, which is in front or would have none.

    Args:
        boxes_cxcywh_rel: `[B, N, 4]`.
        present: `[B, N]`, false in the padding.
        mask: `[B, h, w]`, true on the image.
    """
    centres = position_centres(mask)[:, :, None]
    size = torch.stack([mask[:, 0].sum(1), mask[:, :, 0].sum(1)], dim=-1)[:, None]
    reach = torch.maximum(boxes_cxcywh_rel[..., 2:] * CORE / 2, 0.5001 / size)[:, None]
    inside = ((centres - boxes_cxcywh_rel[:, None, :, :2]).abs() <= reach).all(-1)
    inside &= present[:, None] & mask.flatten(1)[..., None]
    area = boxes_cxcywh_rel[..., 2:].prod(-1)[:, None].expand_as(inside).where(inside, torch.inf)
    smallest, index = area.min(-1)
    return index.where(smallest.isfinite(), -1)


def encoder_criterion(
    logits: torch.Tensor,
    boxes_cxcywh_rel: torch.Tensor,
    mask: torch.Tensor,
    labels: Sequence[dict],
    weights: CriterionWeights,
    num_queries: int,
    num_items: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of the encoder's positions.

    Every object counts the same however many positions it has, and the positions without one count together as much as
    the queries without one do in `set_criterion`.

    Args:
        logits: `[B, h * w, C+1]`, class C is "no object".
        boxes_cxcywh_rel: `[B, h * w, 4]` in [0, 1] of the unpadded image.
        mask: `[B, h, w]`, true on the image.
        labels: as `set_criterion` takes them.
        weights: weights of the losses.
        num_queries: queries of the model.
        num_items: `count_items` of the whole batch; None: these images are the whole batch.

    Returns:
        The weighted sum, and its parts without gradient: `loss_encoder_ce`, `loss_encoder_bbox`, `loss_encoder_giou`.
    """
    with torch.autocast(logits.device.type, enabled=False):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits, boxes_cxcywh_rel = logits.to(dtype), boxes_cxcywh_rel.to(dtype)
        items = count_items(labels, num_queries) if num_items is None else num_items
        num_boxes, _, num_images = items.to(logits.device, dtype, non_blocking=True).unbind()
        background = weights.no_object * num_queries
        targets = pad_targets(labels, dtype)
        counts = torch.tensor(targets.counts, device=logits.device)
        present = torch.arange(targets.class_labels.shape[1], device=logits.device) < counts[:, None]
        index = assign_positions(targets.boxes_cxcywh_rel, present, mask)
        share, empty_share = _shares(index, mask, present.shape[1], background, dtype)

        is_object, safe = index >= 0, index.clamp(min=0)
        wanted = targets.class_labels.gather(1, safe).where(is_object, logits.shape[-1] - 1)
        wanted_boxes = targets.boxes_cxcywh_rel.gather(1, safe[..., None].expand(-1, -1, 4))
        entropy = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(share)
        loss_ce = (entropy * (share + empty_share)).sum() / (num_boxes + background * num_images)
        absolute = (boxes_cxcywh_rel - wanted_boxes).abs().sum(-1)
        loss_bbox = (absolute * share).sum() / num_boxes.clamp(min=1)
        giou = paired_giou(cxcywh_to_xyxy(boxes_cxcywh_rel), cxcywh_to_xyxy(wanted_boxes))
        loss_giou = ((1 - giou) * share).sum() / num_boxes.clamp(min=1)
    parts = {"loss_encoder_ce": loss_ce, "loss_encoder_bbox": loss_bbox, "loss_encoder_giou": loss_giou}
    loss = loss_ce + weights.bbox_loss * loss_bbox + weights.giou_loss * loss_giou
    return loss, {name: part.detach() for name, part in parts.items()}


def _shares(
    index: torch.Tensor, mask: torch.Tensor, slots: int, background: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of positions with and without an object, `[B, h * w]` each, zero elsewhere.

    Args:
        index: result of `assign_positions`.
        mask: `[B, h, w]`, true on the image.
        slots: objects of an image at most.
        background: sum of the weights of an image's positions without an object.
        dtype: that of the loss.
    """
    is_object, safe = index >= 0, index.clamp(min=0)
    owners = F.one_hot(safe, slots).to(dtype) * is_object[..., None]
    share = is_object / owners.sum(1).gather(1, safe).clamp(min=1)
    is_empty = mask.flatten(1) & ~is_object
    return share, is_empty * background / is_empty.sum(1, keepdim=True).clamp(min=1)
