"""The set criterion of all families that score classes by sigmoids.

What it adds to DETR's: a class loss of the family's choice, losses of the encoder's proposals, of D-FINE's initial
boxes and of denoising queries, groups of queries, and D-FINE's losses of distributions. As in `model.loss`, every sum
is divided by what the whole batch holds over all processes and accumulated micro-batches, and layers are matched in
one pass. A batch without objects has the losses of queries that should find nothing, and zeros that keep their graph.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from hf_detr_ft.model.criteria.class_losses import ClassLoss
from hf_detr_ft.model.criteria.distributions import (
    Bins,
    SideCounts,
    distillation_loss,
    fine_grained_loss,
    share_of_matched,
    unite_matches,
)
from hf_detr_ft.model.criteria.matched_boxes import compare_boxes
from hf_detr_ft.model.hungarian_matching import MatchingCosts, Targets, match, pad_targets
from hf_detr_ft.model.loss import count_items, matched_labels
from hf_detr_ft.model.predictions import DenoisingPredictions, LayerPredictions, Predictions, in_fp32

Losses = dict[str, torch.Tensor]
"""Losses of layers, `[L]` each, by name."""


@dataclass(frozen=True, kw_only=True)
class SigmoidWeights(MatchingCosts):
    """Class loss, costs and weights of a family; the costs are those that all these originals state."""

    class_cost: float = 2.0
    sigmoid: bool = True
    class_loss: ClassLoss
    loss_weights: Mapping[str, float]
    """Weights by the names of the parts, the class loss's first."""
    agnostic_encoder: bool = False
    """Every object is of class 0 to the encoder, whose proposals stand at all positions (two-stage Deformable DETR)."""
    bins: Bins | None = None
    """D-FINE's distributions; where there are any, the losses of boxes are over the union of all layers' matches."""


@dataclass(frozen=True)
class Matches:
    """Objects that queries are matched to, and what their losses are divided by."""

    classes: torch.Tensor
    """`[L, B, Q]` int64, the target whose class a query is to have, -1 for none."""
    boxes: torch.Tensor
    """Likewise for its box; another one in D-FINE alone."""
    num_classes: torch.Tensor
    """Matches of the whole batch, without dimension, at least 1."""
    num_boxes: torch.Tensor
    sides: SideCounts | None = None
    """Counts for DDF; None without distributions."""


def sigmoid_criterion(
    predictions: Predictions, labels: Sequence[dict], weights: SigmoidWeights, num_items: torch.Tensor | None
) -> tuple[torch.Tensor, Losses]:
    """Loss of all that a family predicts, and its parts without gradient; see `predictions.Criterion`.

    Parts of the last decoder layer have no suffix, those of earlier ones `_0`, `_1`, …, the encoder's `_enc`, those of
    D-FINE's initial boxes `_initial`, those of denoising queries `_dn_0`, …, `_dn_initial`.
    """
    with torch.autocast(predictions.layers.logits.device.type, enabled=False):
        predictions = in_fp32(predictions)
        decoder, groups = predictions.layers, predictions.groups
        items = count_items(labels, decoder.logits.shape[2] // groups) if num_items is None else num_items
        items = items.to(decoder.logits.device, decoder.logits.dtype, non_blocking=True)
        targets = pad_targets(labels, decoder.logits.dtype)
        extra = {"_initial": predictions.initial}
        if not weights.agnostic_encoder:
            extra["_enc"] = predictions.encoder
        layers, suffixes = stack_layers(decoder, "", extra)
        matched = match(layers.logits.detach(), layers.boxes_cxcywh_rel.detach(), targets, weights, groups)
        matches = count_matches(matched, targets, weights, items, groups, is_whole=num_items is None)
        pieces = [(layer_losses(layers, decoder, matches, targets, weights), suffixes)]
        if weights.agnostic_encoder and predictions.encoder is not None:
            pieces.append((proposal_losses(predictions.encoder, targets, weights, matches.num_classes), ["_enc"]))
        if predictions.denoising is not None:
            pieces.append(denoising_losses(predictions.denoising, matches.sides, targets, weights, items))
        total, parts = weigh(pieces, weights.loss_weights)
        return total, parts | rates(decoder.logits[-1], matched[len(decoder.logits) - 1], targets, items, groups)


def stack_layers(
    decoder: LayerPredictions, prefix: str, extra: Mapping[str, LayerPredictions | None]
) -> tuple[LayerPredictions, list[str]]:
    """Logits and boxes of all layers of the same queries, the decoder's first, and the suffixes of their parts."""
    there = {suffix: layers for suffix, layers in extra.items() if layers is not None}
    count = len(decoder.logits)
    last = f"{prefix}_{count - 1}" if prefix else ""
    suffixes = [*(f"{prefix}_{layer}" for layer in range(count - 1)), last, *(prefix + suffix for suffix in there)]
    every = [decoder, *there.values()]
    logits, boxes = [layers.logits for layers in every], [layers.boxes_cxcywh_rel for layers in every]
    return LayerPredictions(torch.cat(logits), torch.cat(boxes)), suffixes


def count_matches(
    matched: torch.Tensor, targets: Targets, weights: SigmoidWeights, items: torch.Tensor, groups: int, is_whole: bool
) -> Matches:
    """Matches of the queries, where there are distributions with boxes over the union of all layers.

    How many the union has is not known from labels alone. In training it is summed over the processes, and the
    micro-batches of a step are taken to have as many of them for each object.
    """
    num_boxes = (items[0] * groups).clamp(min=1)
    if weights.bins is None:
        return Matches(matched, matched, num_boxes, num_boxes)
    united = unite_matches(matched, targets.class_labels.shape[1])
    here = torch.stack([(united >= 0).sum().to(items), torch.tensor(sum(targets.counts)).to(items, non_blocking=True)])
    in_step = torch.is_grad_enabled() and not is_whole
    if in_step and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(here)
    num_united = items[0] * here[0] / here[1].clamp(min=1)
    others = items[2] * matched.shape[2] - num_united
    sides = SideCounts(num_united, others, share_of_matched(num_united, others))
    return Matches(matched, united.expand_as(matched), num_boxes, num_united.clamp(min=1), sides)


def layer_losses(
    layers: LayerPredictions, decoder: LayerPredictions, matches: Matches, targets: Targets, weights: SigmoidWeights
) -> Losses:
    """Losses of all layers, `[L]` each; those of distributions of the decoder's alone, with which `layers` begins."""
    boxes = compare_boxes(layers.boxes_cxcywh_rel, matches.boxes, targets)
    iou = boxes.iou
    if matches.classes is not matches.boxes:
        iou = compare_boxes(layers.boxes_cxcywh_rel.detach(), matches.classes, targets).iou
    wanted = matched_labels(matches.classes, targets, no_object=-1)
    name = next(iter(weights.loss_weights))
    losses = {
        name: weights.class_loss(layers.logits, wanted, iou) / matches.num_classes,
        **boxes.losses(matches.num_boxes),
    }
    if weights.bins is not None and matches.sides is not None and decoder.corners is not None:
        own = boxes.first(len(decoder.corners))
        losses["loss_fgl"] = fine_grained_loss(decoder, own, weights.bins) / matches.num_boxes
        losses["loss_ddf"] = distillation_loss(decoder, own, weights.bins, matches.sides)
    return losses


def proposal_losses(
    encoder: LayerPredictions, targets: Targets, weights: SigmoidWeights, num_boxes: torch.Tensor
) -> Losses:
    """Losses of two-stage Deformable DETR's proposals, to which every object is of class 0."""
    one_class = replace(targets, class_labels=torch.zeros_like(targets.class_labels))
    matched = match(encoder.logits.detach(), encoder.boxes_cxcywh_rel.detach(), one_class, weights)
    return layer_losses(encoder, encoder, Matches(matched, matched, num_boxes, num_boxes), one_class, weights)


def denoising_losses(
    denoising: DenoisingPredictions,
    sides: SideCounts | None,
    targets: Targets,
    weights: SigmoidWeights,
    items: torch.Tensor,
) -> tuple[Losses, list[str]]:
    """Losses of denoising queries and their suffixes; each object has a match in every group of this micro-batch."""
    layers, suffixes = stack_layers(denoising.layers, "_dn", {"_initial": denoising.initial})
    num_boxes = items[0] * denoising.groups
    if sides is not None:
        others = items[2] * denoising.targets.shape[1] - num_boxes
        sides = SideCounts(num_boxes, others, sides.share)
    matched = denoising.targets.expand(layers.logits.shape[:3])
    matches = Matches(matched, matched, num_boxes.clamp(min=1), num_boxes.clamp(min=1), sides)
    return layer_losses(layers, denoising.layers, matches, targets, weights), suffixes


def weigh(
    pieces: Sequence[tuple[Losses, Sequence[str]]], loss_weights: Mapping[str, float]
) -> tuple[torch.Tensor, Losses]:
    """Weighted sum of losses, and each layer's by name and suffix, unweighted and without gradient."""
    sums = [loss_weights[name] * values.sum() for losses, _ in pieces for name, values in losses.items()]
    parts = {
        f"{name}{suffix}": value
        for losses, suffixes in pieces
        for name, values in losses.items()
        for suffix, value in zip(suffixes, values.detach().unbind(), strict=False)
    }
    return torch.stack(sums).sum(), parts


@torch.no_grad()
def rates(logits: torch.Tensor, matched: torch.Tensor, targets: Targets, items: torch.Tensor, groups: int) -> Losses:
    """Percentage of matched objects with the wrong class, and the mean difference between objects found and present.

    A query finds an object if a score is above one half; of groups of queries, only the first counts there.

    Args:
        logits: `[B, Q, C]` of the last layer.
        matched: `[B, Q]` of the last layer.
        targets: objects of these images.
        items: `count_items` of the whole batch.
        groups: of queries.
    """
    wanted = matched_labels(matched[None], targets, no_object=-1)[0]
    wrong = ((logits.argmax(-1) != wanted) & (matched >= 0)).sum()
    found = (logits[:, : logits.shape[1] // groups].amax(-1) > 0).sum(-1)
    present = torch.tensor(targets.counts).to(logits.device, non_blocking=True)
    return {
        "class_error": 100 * wrong / (items[1] * groups).clamp(min=1),
        "cardinality_error": (found - present).abs().sum() / items[2],
    }
