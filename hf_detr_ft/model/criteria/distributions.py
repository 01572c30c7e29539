"""D-FINE's losses of box sides as distributions ("D-FINE", Peng et al. 2024, arXiv:2410.13842, sections 4.1 and 4.2).

A side's distance from the initial box is a distribution over bins that stand the closer the nearer they are to zero.
The fine-grained localisation loss (FGL) leads each layer's distribution to the two bins around the object's side, the
decoupled distillation focal loss (DDF) to the last layer's distribution.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from hf_detr_ft.model.criteria.matched_boxes import MatchedBoxes
from hf_detr_ft.model.hungarian_matching import to_corners
from hf_detr_ft.model.predictions import LayerPredictions

TEMPERATURE = 5.0
"""Temperature of both distributions in DDF."""


@dataclass(frozen=True)
class Bins:
    """Distances from the initial box's side that the bins of a distribution stand at."""

    count: int = 32
    """Number of bins less one."""
    scale: float = 4.0
    """Curvature: the larger, the more evenly the bins stand; also, distance 1 is 1 / scale of the box's side."""
    reach: float = 0.5
    """The outermost bins stand at `2 * reach * scale`."""

    def distances(self, like: torch.Tensor) -> torch.Tensor:
        """Distance of each bin, `[count + 1]`, rising, of the other tensor's kind (equation 3)."""
        bound = abs(self.reach) * abs(self.scale)
        step = (bound + 1) ** (2 / (self.count - 2))
        positive = [step**power - 1 for power in range(1, self.count // 2)]
        outside = 2 * bound
        return like.new_tensor([-outside, *(-value for value in reversed(positive)), 0.0, *positive, outside])


@dataclass(frozen=True)
class SideCounts:
    """Numbers of queries in the whole batch that DDF's means and weights are made of; tensors without dimension."""

    matched: torch.Tensor
    unmatched: torch.Tensor
    share: torch.Tensor
    """Weight of the matched queries' mean against the others', in [0, 1]."""


def share_of_matched(matched: torch.Tensor, unmatched: torch.Tensor) -> torch.Tensor:
    """Weight of the matched queries' loss in DDF: by the square roots of how many there are."""
    roots = matched.clamp(min=0).sqrt(), unmatched.clamp(min=0).sqrt()
    return roots[0] / (roots[0] + roots[1]).clamp(min=1)


def unite_matches(matched: torch.Tensor, num_targets: int) -> torch.Tensor:
    """Target of each query `[B, Q]` over all layers' matches `[L, B, Q]`, -1 for none; D-FINE's global matching.

    A query that has several gets the one that most layers give it, and of those the first. `num_targets` is the
    largest index of a target plus one.
    """
    targets = torch.arange(num_targets, device=matched.device)
    votes = (matched[..., None] == targets).sum(0)
    most, chosen = (votes * (num_targets + 1) - targets).max(-1)
    return chosen.where(most > 0, -1)


def wanted_bins(
    references_cxcywh: torch.Tensor, wanted_cxcywh: torch.Tensor, bins: Bins
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bin left of each side's distance, `[..., 4]` int64, and the weight of the bin right of it, in [0, 1].

    Args:
        references_cxcywh: boxes `[..., 4]` that distances are measured from.
        wanted_cxcywh: the objects' boxes `[..., 4]` in the same frame.
        bins: of the distributions.
    """
    centres, sizes = references_cxcywh[..., :2], references_cxcywh[..., 2:]
    low, high = to_corners(wanted_cxcywh).split(2, dim=-1)
    outwards = torch.cat([centres - low, high - centres], dim=-1)
    distance = outwards / (torch.cat([sizes, sizes], dim=-1) / bins.scale + 1e-16) - bins.scale / 2
    positions = bins.distances(distance)
    left = (torch.bucketize(distance, positions, right=True) - 1).clamp(0, bins.count - 1)
    weight = (distance - positions[left]) / (positions[left + 1] - positions[left])
    return left, weight.clamp(0, 1)


def fine_grained_loss(layers: LayerPredictions, boxes: MatchedBoxes, bins: Bins) -> torch.Tensor:
    """FGL of each layer, `[L]`, summed over the matched queries' sides and weighted with their boxes' overlaps."""
    assert layers.corners is not None and layers.reference_boxes is not None
    log_score = layers.corners.unflatten(-1, (4, bins.count + 1)).log_softmax(-1)
    left, weight = wanted_bins(layers.reference_boxes, boxes.wanted_cxcywh_rel, bins)
    at_left, at_right = (log_score.gather(-1, index[..., None])[..., 0] for index in (left, left + 1))
    entropy = -(at_left * (1 - weight) + at_right * weight).sum(-1)
    return (entropy * boxes.iou * boxes.is_object).flatten(1).sum(-1)


def distillation_loss(layers: LayerPredictions, boxes: MatchedBoxes, bins: Bins, counts: SideCounts) -> torch.Tensor:
    """DDF of each layer but the last one, which is their teacher, `[L - 1]`, as a share of the whole batch's.

    A matched query weighs as much as its box overlaps the object's, another as much as the teacher is sure of it.
    """
    assert layers.corners is not None
    distributions = layers.corners.unflatten(-1, (4, bins.count + 1)) / TEMPERATURE
    teacher = distributions[-1].detach().softmax(-1)
    divergence = F.kl_div(distributions[:-1].log_softmax(-1), teacher.expand_as(distributions[:-1]), reduction="none")
    sure = layers.logits[-1].detach().sigmoid().amax(-1)
    is_object = boxes.is_object[:-1]
    # Mean over a query's four sides.
    each = torch.where(is_object, boxes.iou[:-1], sure) * TEMPERATURE**2 * divergence.sum(-1).mean(-1)
    matched = (each * is_object).flatten(1).sum(-1) / counts.matched.clamp(min=1)
    unmatched = (each * ~is_object).flatten(1).sum(-1) / counts.unmatched.clamp(min=1)
    return counts.share * matched + (1 - counts.share) * unmatched
