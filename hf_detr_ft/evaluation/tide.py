"""Errors of detections by kind, and what fixing each would be worth, as in TIDE (Bolya et al. 2020, arXiv:2008.08115).

A detection that counts and took no object (IoU 0.5) is one of five errors. With the IoU of the object that it overlaps
most, of its own class and of the others, the first that holds:

- Loc: 0.1 <= own < 0.5
- Cls: 0.5 <= other
- Dupe: 0.5 <= own, so another detection took that object
- Both: own < 0.1 and 0.1 <= other < 0.5
- Bkg: own < 0.1 and other < 0.1

The sixth, Miss, is an object that no detection took and that is not the one which a Cls or Loc error overlaps most.

Fixing a kind, the others left as they are: Cls and Loc errors take the class or the box of the object they overlap
most, and of all that then have this object the one with the best score is right and the others go; Dupe, Bkg and Both
go; missed objects go from the objects of their class. `docs/evaluation.md` lists where this differs from tidecv 1.0.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from hf_detr_ft.evaluation.average_precision import average_precision
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.evaluation.matching import IGNORED, IOUS, NEAR_IOU, UNMATCHED, MatchedDetections, Pairs
from hf_detr_ft.evaluation.truth import Predictions, Truth


class Outcome(IntEnum):
    """Outcome of a detection: right, left out, or one of TIDE's errors; `MISS` is an object's."""

    TP = 0
    """Right: took an object of its class."""
    IGNORED = 1
    """Neither right nor wrong: in a crowd region of its class, or beyond the best that count."""
    CLS = 2
    LOC = 3
    BOTH = 4
    DUPE = 5
    BKG = 6
    MISS = 7

    @property
    def word(self) -> str:
        """Name on the page and in metrics.json."""
        return _WORDS[self]


_WORDS = {
    Outcome.TP: "right",
    Outcome.IGNORED: "ignored",
    Outcome.CLS: "classification",
    Outcome.LOC: "localisation",
    Outcome.BOTH: "both",
    Outcome.DUPE: "duplicate",
    Outcome.BKG: "background",
    Outcome.MISS: "missed",
}
ERRORS = (Outcome.CLS, Outcome.LOC, Outcome.BOTH, Outcome.DUPE, Outcome.BKG, Outcome.MISS)
"""TIDE's six errors, in its order."""


@dataclass(frozen=True)
class ErrorKind:
    """Frequency and cost of one kind of error.

    Attributes:
        count: detections of any score, or objects missed by all of them, as in TIDE.
        kept: detections above the threshold, or objects missed by these.
        gain: AP50 with this kind fixed less AP50 as it is; None where there is no AP50 or no object is left.
    """

    count: int
    kept: int
    gain: float | None


@dataclass(frozen=True, eq=False)
class TideErrors:
    """Outcome of each detection and object, and the errors of all together.

    Attributes:
        outcome: [N] int64, an `Outcome` per detection.
        target: [N] int64, per detection: position in `Truth` of the object that it took or, if it is wrong, that it
            overlaps most, of its own class for Loc and Dupe, of another for Cls and Both; `UNMATCHED` for the others.
        missed: [M] bool, per annotation of `Truth`: an object that is missed with detections of any score.
        kinds: frequency and cost by the word of each of `ERRORS`, in their order.
        ap_50: AP50 that fixing starts from; None without objects.
        threshold: score above which detections count in `ErrorKind.kept`.
    """

    outcome: np.ndarray
    target: np.ndarray
    missed: np.ndarray
    kinds: dict[str, ErrorKind]
    ap_50: float | None
    threshold: float


def find_errors(matched: MatchedDetections, threshold: float) -> TideErrors:
    """Errors of all detections.

    Args:
        matched: truth and predictions.
        threshold: detections with a score above it are kept.
    """
    truth, predictions = matched.truth, matched.predictions
    outcome, target = _classify(matched)
    missed, kept = _find_missed(truth, outcome, target), is_above(predictions.score, threshold)
    counts = _count_errors(outcome, missed)
    kept_counts = _count_errors(outcome[kept], _find_missed(truth, outcome[kept], target[kept]))
    is_tp, counted = outcome == Outcome.TP, outcome != Outcome.IGNORED
    start = _ap_50(truth, predictions, predictions.category, is_tp, counted, ~truth.crowd)
    kinds = {}
    for error in ERRORS:
        fixed = _fix(truth, predictions, outcome, target, missed, error)
        gain = None if start is None or fixed is None else fixed - start
        kinds[error.word] = ErrorKind(counts[error], kept_counts[error], gain)
    return TideErrors(outcome, target, missed, kinds, start, threshold)


def _classify(matched: MatchedDetections) -> tuple[np.ndarray, np.ndarray]:
    """Outcome and target of each detection, [N] each."""
    truth, predictions, pairs, matched_gt = matched.truth, matched.predictions, matched.near_pairs, matched.matched_gt
    objects = pairs.select(~truth.crowd[pairs.target])
    same = predictions.category[objects.detection] == truth.category[objects.target]
    own_iou, own = _nearest(objects.select(same), len(matched_gt))
    other_iou, other = _nearest(objects.select(~same), len(matched_gt))
    cases = [
        (matched_gt >= 0, Outcome.TP, matched_gt),
        (matched_gt == IGNORED, Outcome.IGNORED, np.full(len(matched_gt), UNMATCHED)),
        ((own_iou >= NEAR_IOU) & (own_iou < IOUS[0]), Outcome.LOC, own),
        (other_iou >= IOUS[0], Outcome.CLS, other),
        (own_iou >= IOUS[0], Outcome.DUPE, own),
        (other_iou >= NEAR_IOU, Outcome.BOTH, other),
    ]
    conditions, outcomes, targets = zip(*cases, strict=True)
    return np.select(conditions, outcomes, Outcome.BKG), np.select(conditions, targets, UNMATCHED)


def _nearest(pairs: Pairs, detections: int) -> tuple[np.ndarray, np.ndarray]:
    """IoU and position of the object that each detection overlaps most, [N] each; 0 and `UNMATCHED` where none."""
    iou, target = np.zeros(detections), np.full(detections, UNMATCHED)
    first = np.flatnonzero(np.diff(pairs.detection, prepend=-1))  # the pairs of a detection come by IoU
    iou[pairs.detection[first]], target[pairs.detection[first]] = pairs.iou[first], pairs.target[first]
    return iou, target


def _find_missed(truth: Truth, outcome: np.ndarray, target: np.ndarray) -> np.ndarray:
    missed = ~truth.crowd
    missed[target[np.isin(outcome, (Outcome.TP, Outcome.CLS, Outcome.LOC))]] = False
    return missed


def _count_errors(outcome: np.ndarray, missed: np.ndarray) -> dict[Outcome, int]:
    return {**{error: int((outcome == error).sum()) for error in ERRORS}, Outcome.MISS: int(missed.sum())}


def _fix(
    truth: Truth,
    predictions: Predictions,
    outcome: np.ndarray,
    target: np.ndarray,
    missed: np.ndarray,
    error: Outcome,
) -> float | None:
    """AP50 with one kind of error fixed; None where no object is left."""
    is_tp, counted = outcome == Outcome.TP, outcome != Outcome.IGNORED
    if error == Outcome.MISS:
        return _ap_50(truth, predictions, predictions.category, is_tp, counted, ~truth.crowd & ~missed)
    wrong = outcome == error
    if error not in (Outcome.CLS, Outcome.LOC):
        return _ap_50(truth, predictions, predictions.category, is_tp, counted & ~wrong, ~truth.crowd)
    claimed = np.flatnonzero(wrong | (is_tp & np.isin(target, target[wrong])))
    by_object = claimed[np.lexsort((-predictions.score[claimed], target[claimed]))]
    best = by_object[np.flatnonzero(np.diff(target[by_object], prepend=-1))]
    is_tp[claimed], counted[claimed] = False, False
    is_tp[best], counted[best] = True, True
    category = predictions.category.copy()
    category[best] = truth.category[target[best]]
    return _ap_50(truth, predictions, category, is_tp, counted, ~truth.crowd)


def _ap_50(
    truth: Truth,
    predictions: Predictions,
    category: np.ndarray,
    is_tp: np.ndarray,
    counted: np.ndarray,
    objects: np.ndarray,
) -> float | None:
    """AP50 as COCO has it, the mean over the classes with objects.

    Args:
        truth: the objects.
        predictions: the detections.
        category: [N], of the detections as they are fixed.
        is_tp: [N] bool.
        counted: [N] bool; the others are left out.
        objects: [M] bool, annotations that count as objects.
    """
    classes = len(truth.names)
    number = np.bincount(truth.category[objects], minlength=classes)
    order = np.lexsort((predictions.image, -predictions.score, category))
    order = order[counted[order]]
    start = np.searchsorted(category[order], np.arange(classes + 1))
    values = []
    for index in np.flatnonzero(number):
        hits = is_tp[order[start[index] : start[index + 1]]]
        up_to = np.flatnonzero(hits)[:, None] + 1.0
        running = np.arange(1.0, len(up_to) + 1)[:, None]
        values.append(average_precision(up_to, running, number[index : index + 1])[0])
    return float(np.mean(values)) if values else None
