"""Which detections match an object at IoU 0.5, and the threshold of the best F1 that follows."""

import numpy as np

from hf_detr_ft.evaluation.result import BestF1
from hf_detr_ft.evaluation.truth import Found, Truth

_PAIRS_AT_ONCE = 1_000_000
"""Pairs of a detection and an object that the matching holds at once (about 150 bytes each)."""

NOTHING, NOT_COUNTED = -1, -2
"""Instead of an object's position: the detection took none; it lies in a crowd region or is one too many."""


def match(truth: Truth, found: Found, most: int) -> np.ndarray:
    """What becomes of the detections in `match_objects`.

    Returns:
        [N], per detection: 1 took an object, 0 nothing, -1 does not count (it lies in a crowd region or is not among
        the best `most` of its image and class).
    """
    return np.minimum(match_objects(truth, found, most), 0) + 1


def match_objects(truth: Truth, found: Found, most: int) -> np.ndarray:
    """COCO's greedy matching at IoU 0.5, which faster-coco-eval keeps to itself.

    Within an image and class the detections choose in the order of their scores: each takes the free object that it
    overlaps most, else a crowd region, which is never used up.

    Returns:
        [N], per detection: the position in `truth` of the object that it took, `NOTHING` or `NOT_COUNTED`.
    """
    classes = len(truth.category_ids)
    found_group, truth_group = (boxes.image * classes + boxes.category for boxes in (found, truth))
    order = np.lexsort((-found.score, found_group))
    rank = np.arange(len(order)) - np.searchsorted(found_group[order], found_group[order])
    order = order[rank < most]
    taken = np.full(len(found.score), NOT_COUNTED)
    taken[order] = NOTHING
    by_group = np.argsort(truth_group, kind="stable")
    start, end = (np.searchsorted(truth_group[by_group], found_group[order], side) for side in ("left", "right"))
    blocks = np.array_split(np.arange(len(order)), 1 + int((end - start).sum()) // _PAIRS_AT_ONCE)
    free = bytearray(b"\1") * len(truth.area)
    for block in blocks:
        counts = end[block] - start[block]
        chooser = np.repeat(block, counts)
        within = np.arange(len(chooser)) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = by_group[start[chooser] + within]
        iou = _iou(found, order[chooser], truth, chosen)
        near = iou >= 0.5
        chooser, chosen, iou = chooser[near], chosen[near], iou[near]
        best_first = np.lexsort((-chosen, -iou, truth.crowd[chosen], chooser))
        chooser, chosen = order[chooser[best_first]], chosen[best_first]
        pairs = zip(chooser.tolist(), chosen.tolist(), truth.crowd[chosen].tolist(), strict=True)
        for detection, target, crowd in pairs:
            if taken[detection] == NOTHING and (crowd or free[target]):
                taken[detection] = NOT_COUNTED if crowd else target
                free[target] = 0
    return taken


def _iou(found: Found, detection: np.ndarray, truth: Truth, target: np.ndarray) -> np.ndarray:
    """IoU of pairs as COCO has it: over the detection's own area where the target is a crowd region."""
    a, b = found.boxes_xywh_px[detection], truth.boxes_xywh_px[target]
    sides = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    overlap = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    area = a[:, 2] * a[:, 3]
    union = np.where(truth.crowd[target], area, area + b[:, 2] * b[:, 3] - overlap)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def best_f1(outcome: np.ndarray, score: np.ndarray, objects: int) -> BestF1:
    """The best F1 over all thresholds.

    Args:
        outcome: [N], what `match` returns.
        score: [N], the scores of the same detections.
        objects: objects without crowd.
    """
    counted = np.flatnonzero(outcome >= 0)
    order = counted[np.argsort(-score[counted], kind="stable")]
    hits, kept, scores = np.cumsum(outcome[order]), np.arange(1, len(order) + 1), score[order]
    if not len(order) or not hits[-1]:
        return BestF1(threshold=0.5, f1=0.0, precision=0.0, recall=0.0)
    f1 = 2 * hits / (kept + objects)
    f1[:-1][scores[1:] == scores[:-1]] = 0.0  # a threshold keeps all detections of one score or none
    best = int(np.argmax(f1))
    return BestF1(
        threshold=float(scores[best]),
        f1=float(f1[best]),
        precision=float(hits[best] / kept[best]),
        recall=float(hits[best] / objects),
    )
