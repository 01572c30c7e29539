"""Detections matched with objects, once per evaluation, as COCO matches them: greedily, by score and then by IoU.

faster-coco-eval can tell its matches (`extra_calc`), but calls a detection in a crowd region right, which is neither
right nor wrong, and knows neither pairs of different classes nor those below IoU 0.5, which TIDE and confusion need. So
AP comes from there, or from pycocotools, and all else from the matches here: one order of equal scores and equal IoUs.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hf_detr_ft.evaluation.coco_result import MAX_DETECTIONS
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.truth import Predictions, Truth, index_detections

IOUS = np.linspace(0.5, 0.95, 10)
"""IoUs that COCO's AP is the mean of; a match without further word is one at the first."""
NEAR_IOU = 0.1
"""IoU from which on a detection is near an object: less is background (TIDE)."""
UNMATCHED, IGNORED = -1, -2
"""Stand-ins for an object's position: none was taken; the detection does not count (crowd region, low rank)."""

_PAIRS_AT_ONCE = 1_000_000
"""Pairs of a detection and an object whose IoU is computed at once (about 150 bytes each)."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Detections and the objects and crowd regions that they overlap, in the order in which they are taken.

    Detections come by image and score, what one can take by IoU, what does not count last; of equal scores the earlier
    detection, of equal IoUs the later object is first, as in COCO.

    Attributes:
        detection: [P], positions in `Predictions`.
        target: [P], positions in `Truth`.
        iou: [P], over the detection's own area where the target is a crowd region.
    """

    detection: np.ndarray
    target: np.ndarray
    iou: np.ndarray

    def select(self, chosen: np.ndarray) -> "Pairs":
        """Pairs of a mask [P]."""
        return Pairs(self.detection[chosen], self.target[chosen], self.iou[chosen])


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """Truth and predictions of one evaluation with the objects that the predictions took; made by `match_detections`.

    What is not needed is not computed: AP and the best F1 take `matched_gt`, the analysis the rest.

    Attributes:
        truth: [M] objects and crowd regions.
        predictions: [N] detections.
        rank: [N], place of the detection in its image and class, 0 for the best score.
        max_detections: the best per image and class that count.
        area_range: the least and the largest area that counts; None for all.
    """

    truth: Truth
    predictions: Predictions
    rank: np.ndarray
    max_detections: int = MAX_DETECTIONS
    area_range: tuple[float, float] | None = None

    def of_size(self, least: float, most: float) -> "MatchedDetections":
        """COCO's matching for objects from an area to another, in square pixels, both included.

        Detections that take an object of another size do not count, nor those that take none and are of another size.
        """
        inside = (self.truth.area >= least) & (self.truth.area <= most)
        truth = replace(self.truth, ignored=self.truth.ignored | ~inside)
        return replace(self, truth=truth, area_range=(least, most))

    def of_coco(self) -> "MatchedDetections":
        """The same with no more detections than count in COCO's numbers."""
        few = self.max_detections <= MAX_DETECTIONS
        return self if few else replace(self, max_detections=MAX_DETECTIONS)

    @cached_property
    def in_rank(self) -> np.ndarray:
        """Detections among the best of their image and class that count, [N] bool."""
        return self.rank < self.max_detections

    @cached_property
    def matched_gt(self) -> np.ndarray:
        """Position in `truth` of the object that each detection took at IoU 0.5, `UNMATCHED` or `IGNORED`, [N]."""
        return self._take(self._own_pairs)

    @cached_property
    def matched_gt_by_iou(self) -> np.ndarray:
        """Objects taken as in `matched_gt`, at each of `IOUS`, [10, N]."""
        pairs = self._own_pairs
        return np.stack([self.matched_gt, *(self._take(pairs.select(pairs.iou >= iou)) for iou in IOUS[1:])])

    @cached_property
    def near_pairs(self) -> Pairs:
        """Pairs of any two classes from IoU 0.1 on."""
        return find_pairs(self.truth, self.predictions, self.in_rank, NEAR_IOU, any_class=True)

    @cached_property
    def _own_pairs(self) -> Pairs:
        return find_pairs(self.truth, self.predictions, self.in_rank, IOUS[0])

    def _take(self, pairs: Pairs) -> np.ndarray:
        matched = take_objects(self.truth, pairs, self.in_rank)
        if self.area_range is not None:
            area, (least, most) = self.predictions.area, self.area_range
            matched[(matched == UNMATCHED) & ((area < least) | (area > most))] = IGNORED
        return matched

    @property
    def counts(self) -> np.ndarray:
        """Detections that count: as right where `is_tp`, else as wrong, [N] bool."""
        return self.matched_gt != IGNORED

    @property
    def is_tp(self) -> np.ndarray:
        """True positives: detections that took an object of their class at IoU 0.5, [N] bool."""
        return self.matched_gt >= 0

    def found_objects(self, above: np.ndarray) -> np.ndarray:
        """Objects that one of the detections of a mask [N] took, [M] bool; never true for crowd regions."""
        found = np.zeros(len(self.truth.area), dtype=bool)
        found[self.matched_gt[above & self.is_tp]] = True
        return found


def match_detections(truth: Truth, detections: Detections, max_detections: int = MAX_DETECTIONS) -> MatchedDetections:
    """Matches detections with the truth, at IoU 0.5 now and at others when these are asked for.

    Within an image and class the detections choose in the order of their scores: each takes the free object that it
    overlaps most, else a crowd region, which is never used up.

    Args:
        truth: as `read_truth` gives it.
        detections: with ids and boxes of the same data set.
        max_detections: the best per image and class that count.

    Raises:
        DataError: as `index_detections`.
    """
    predictions = index_detections(truth, detections)
    return MatchedDetections(truth, predictions, rank_detections(truth, predictions), max_detections)


def rank_detections(truth: Truth, predictions: Predictions) -> np.ndarray:
    """Rank of each detection in its image and class, 0 for the best score, [N]."""
    group = predictions.image * len(truth.category_ids) + predictions.category
    order = np.lexsort((-predictions.score, group))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    return rank


def find_pairs(
    truth: Truth, predictions: Predictions, in_rank: np.ndarray, least_iou: float, any_class: bool = False
) -> Pairs:
    """Detections with the objects and crowd regions of their image that they overlap.

    Args:
        truth: the objects.
        predictions: the detections.
        in_rank: [N] bool, the detections to pair.
        least_iou: pairs from this IoU on, which is above 0.
        any_class: pairs of different classes, too.
    """
    classes = 1 if any_class else len(truth.category_ids)
    group, truth_group = (b.image * classes + (0 if any_class else b.category) for b in (predictions, truth))
    chosen = np.flatnonzero(in_rank)
    order = chosen[np.lexsort((-predictions.score[chosen], predictions.image[chosen]))]
    by_group = np.argsort(truth_group, kind="stable")
    start, end = (np.searchsorted(truth_group[by_group], group[order], side) for side in ("left", "right"))
    parts = []
    for block in np.array_split(np.arange(len(order)), 1 + int((end - start).sum()) // _PAIRS_AT_ONCE):
        counts = end[block] - start[block]
        place = np.repeat(block, counts)
        target = by_group[start[place] + np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)]
        iou = _iou(predictions, order[place], truth, target)
        near = iou >= least_iou
        place, target, iou = place[near], target[near], iou[near]
        best_first = np.lexsort((-target, -iou, truth.ignored[target], place))
        parts.append((order[place[best_first]], target[best_first], iou[best_first]))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def take_objects(truth: Truth, pairs: Pairs, counts: np.ndarray) -> np.ndarray:
    """Each detection in turn takes the first free target of its pairs; a crowd region is never used up.

    Args:
        truth: the objects.
        pairs: all that can be taken: those from an IoU on.
        counts: [N] bool, the detections that count.

    Returns:
        [N], the position in `truth` of the object that was taken, `UNMATCHED` or `IGNORED`.
    """
    matched = np.where(counts, UNMATCHED, IGNORED).tolist()
    free = bytearray(b"\1") * len(truth.area)
    flags = (truth.crowd[pairs.target].tolist(), truth.ignored[pairs.target].tolist())
    for detection, target, crowd, ignored in zip(pairs.detection.tolist(), pairs.target.tolist(), *flags, strict=True):
        if matched[detection] == UNMATCHED and (crowd or free[target]):
            matched[detection] = IGNORED if ignored else target
            free[target] = 0
    return np.array(matched, dtype=np.int64)


def _iou(predictions: Predictions, detection: np.ndarray, truth: Truth, target: np.ndarray) -> np.ndarray:
    """IoU of pairs as COCO has it: over the detection's own area where the target is a crowd region."""
    a, b = predictions.boxes_xywh_px[detection], truth.boxes_xywh_px[target]
    sides = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    overlap = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    area = a[:, 2] * a[:, 3]
    union = np.where(truth.crowd[target], area, area + b[:, 2] * b[:, 3] - overlap)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)
