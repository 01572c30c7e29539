"""Which detections take which objects: COCO's greedy matching, at any IoU, which faster-coco-eval keeps to itself."""

from dataclasses import dataclass

import numpy as np

from hf_detr_ft.evaluation.truth import Found, Truth

_PAIRS_AT_ONCE = 1_000_000
"""Pairs of a detection and an object whose IoU is computed at once (about 150 bytes each)."""

NOTHING, NOT_COUNTED = -1, -2
"""Instead of an object's position: the detection took none; it lies in a crowd region or is one too many."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Detections and the objects and crowd regions that they overlap, in the order in which they are taken.

    Detections come by image and score, what one can take by IoU, crowd regions last; of equal scores the earlier
    detection, of equal IoUs the later object is first, as in COCO.

    Attributes:
        detection: [P], positions in `Found`.
        target: [P], positions in `Truth`.
        iou: [P], over the detection's own area where the target is a crowd region.
    """

    detection: np.ndarray
    target: np.ndarray
    iou: np.ndarray

    def select(self, chosen: np.ndarray) -> "Pairs":
        """Those of a mask [P]."""
        return Pairs(self.detection[chosen], self.target[chosen], self.iou[chosen])


def match(truth: Truth, found: Found, most: int) -> np.ndarray:
    """What becomes of the detections in `match_objects`.

    Returns:
        [N], per detection: 1 took an object, 0 nothing, -1 does not count (it lies in a crowd region or is not among
        the best `most` of its image and class).
    """
    return np.minimum(match_objects(truth, found, most), 0) + 1


def match_objects(truth: Truth, found: Found, most: int) -> np.ndarray:
    """COCO's matching at IoU 0.5.

    Within an image and class the detections choose in the order of their scores: each takes the free object that it
    overlaps most, else a crowd region, which is never used up.

    Returns:
        [N], per detection: the position in `truth` of the object that it took, `NOTHING` or `NOT_COUNTED`.
    """
    kept = best_of_class(truth, found, most)
    return take_objects(truth, find_pairs(truth, found, kept, 0.5), kept)


def best_of_class(truth: Truth, found: Found, most: int) -> np.ndarray:
    """[N] bool: the detection is among the best `most` of its image and class."""
    group = found.image * len(truth.category_ids) + found.category
    order = np.lexsort((-found.score, group))
    kept = np.zeros(len(order), dtype=bool)
    kept[order[np.arange(len(order)) - np.searchsorted(group[order], group[order]) < most]] = True
    return kept


def find_pairs(truth: Truth, found: Found, kept: np.ndarray, least_iou: float, any_class: bool = False) -> Pairs:
    """The detections with the objects and crowd regions of their image that they overlap.

    Args:
        truth: the objects.
        found: the detections.
        kept: [N] bool, the detections to pair.
        least_iou: pairs from this IoU on, which is above 0.
        any_class: pairs of different classes, too.
    """
    classes = 1 if any_class else len(truth.category_ids)
    found_group, truth_group = (b.image * classes + (0 if any_class else b.category) for b in (found, truth))
    chosen = np.flatnonzero(kept)
    order = chosen[np.lexsort((-found.score[chosen], found.image[chosen]))]
    by_group = np.argsort(truth_group, kind="stable")
    start, end = (np.searchsorted(truth_group[by_group], found_group[order], side) for side in ("left", "right"))
    parts = []
    for block in np.array_split(np.arange(len(order)), 1 + int((end - start).sum()) // _PAIRS_AT_ONCE):
        counts = end[block] - start[block]
        place = np.repeat(block, counts)
        target = by_group[start[place] + np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)]
        iou = _iou(found, order[place], truth, target)
        near = iou >= least_iou
        place, target, iou = place[near], target[near], iou[near]
        best_first = np.lexsort((-target, -iou, truth.crowd[target], place))
        parts.append((order[place[best_first]], target[best_first], iou[best_first]))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def take_objects(truth: Truth, pairs: Pairs, kept: np.ndarray) -> np.ndarray:
    """Each detection in turn takes the first free target of its pairs; a crowd region is never used up.

    Args:
        truth: the objects.
        pairs: all that can be taken: those from an IoU on.
        kept: [N] bool, the detections that count.

    Returns:
        [N], as `match_objects`.
    """
    taken = np.where(kept, NOTHING, NOT_COUNTED).tolist()
    free = bytearray(b"\1") * len(truth.area)
    triples = zip(pairs.detection.tolist(), pairs.target.tolist(), truth.crowd[pairs.target].tolist(), strict=True)
    for detection, target, crowd in triples:
        if taken[detection] == NOTHING and (crowd or free[target]):
            taken[detection] = NOT_COUNTED if crowd else target
            free[target] = 0
    return np.array(taken, dtype=np.int64)


def _iou(found: Found, detection: np.ndarray, truth: Truth, target: np.ndarray) -> np.ndarray:
    """IoU of pairs as COCO has it: over the detection's own area where the target is a crowd region."""
    a, b = found.boxes_xywh_px[detection], truth.boxes_xywh_px[target]
    sides = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    overlap = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    area = a[:, 2] * a[:, 3]
    union = np.where(truth.crowd[target], area, area + b[:, 2] * b[:, 3] - overlap)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)
