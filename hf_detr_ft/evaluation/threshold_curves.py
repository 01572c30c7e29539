"""Precision against recall, and precision, recall and F1 against the score from which on detections are kept."""

from dataclasses import dataclass

import numpy as np

from hf_detr_ft.evaluation.coco_result import BestF1
from hf_detr_ft.evaluation.truth import Found, Truth

IOUS = np.linspace(0.5, 0.95, 10)
"""The IoUs that COCO's AP is the mean of."""
RECALLS = np.linspace(0, 1, 101)
"""COCO's levels of recall."""


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """COCO's own curves: the mean of a curve over its 101 levels is the AP of that IoU and class.

    Attributes:
        precision: [IoU, level, class], the best at this recall or a higher one; 0 at a recall that is not reached, NaN
            for a class without objects.
        names: of the classes.
        objects: [class], without crowd.
        iou: [IoU].
        recall: [level].
    """

    precision: np.ndarray
    names: list[str]
    objects: np.ndarray
    iou: np.ndarray
    recall: np.ndarray

    def mean(self) -> np.ndarray:
        """[IoU, level], the mean over the classes with objects; NaN where there is none."""
        defined = self.precision[:, :, ~np.isnan(self.precision[0, 0])]
        return defined.mean(axis=2) if defined.size else np.full(defined.shape[:2], np.nan)


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """One class at IoU 0.5, or all together.

    Attributes:
        precision: [T], NaN where nothing is kept.
        recall: [T], NaN without objects.
        f1: [T], NaN without objects.
        best: the highest F1 of all thresholds there are, not only of these; None without objects.
        objects: without crowd.
        detections: those that count, whatever their score.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    best: BestF1 | None
    objects: int
    detections: int


@dataclass(frozen=True, eq=False)
class ThresholdCurves:
    """What keeping `score >= threshold` gives, for all classes together and for each.

    Attributes:
        thresholds: [T], ascending: 0.00, 0.01 … 1.00, and the threshold of the best F1 of all.
        overall: every detection and object counted once, whatever its class, as in `CocoResult.best_f1`.
        classes: in the order of the category ids.
        names: of the classes.
    """

    thresholds: np.ndarray
    overall: ThresholdCurve
    classes: list[ThresholdCurve]
    names: list[str]


def trace_thresholds(truth: Truth, found: Found, outcome: np.ndarray) -> ThresholdCurves:
    """The curves of detections whose outcome [N] is that of `match`."""
    objects = np.bincount(truth.category[~truth.crowd], minlength=len(truth.names)).tolist()
    best = best_f1(outcome, found.score, sum(objects))
    thresholds = np.unique(np.append(np.arange(101) / 100, best.threshold))  # linspace's 0.7 is above 0.7
    own = [found.category == category for category in range(len(objects))]
    return ThresholdCurves(
        thresholds=thresholds,
        overall=_trace(outcome, found.score, sum(objects), thresholds),
        classes=[_trace(outcome[o], found.score[o], n, thresholds) for o, n in zip(own, objects, strict=True)],
        names=truth.names,
    )


def _trace(outcome: np.ndarray, score: np.ndarray, objects: int, thresholds: np.ndarray) -> ThresholdCurve:
    kept, hits = (
        (len(scores) - np.searchsorted(scores, thresholds)).astype(float)
        for scores in (np.sort(score[outcome >= 0]), np.sort(score[outcome == 1]))
    )
    undefined = np.full(len(thresholds), np.nan)
    return ThresholdCurve(
        precision=np.divide(hits, kept, out=undefined.copy(), where=kept > 0),
        recall=hits / objects if objects else undefined,
        f1=2 * hits / (kept + objects) if objects else undefined,
        best=best_f1(outcome, score, objects) if objects else None,
        objects=objects,
        detections=int((outcome >= 0).sum()),
    )


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
