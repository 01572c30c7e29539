"""Precision against recall, and precision, recall and F1 against the threshold of the score."""

from dataclasses import dataclass

import numpy as np

from hf_detr_ft.evaluation.coco_result import MAX_DETECTIONS, BestF1
from hf_detr_ft.evaluation.matching import MatchedDetections

RECALLS = np.linspace(0, 1, 101)
"""COCO's levels of recall."""
THRESHOLDS = np.arange(1000) / 1000
"""Thresholds that the best F1 is searched over: 0.000, 0.001 … 0.999, so that it is written with three decimals."""


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision-recall curves of COCO: the mean of a curve over its 101 levels is the AP of that IoU and class.

    Attributes:
        precision: [IoU, level, class], the best at this recall or a higher one; 0 at a recall that is not reached, NaN
            for a class without objects.
        names: the classes' names.
        objects: [class], without crowd.
        iou: [IoU].
        recall: [level].
        max_detections: the best per image and class that count; COCO's AP is of 100.
    """

    precision: np.ndarray
    names: list[str]
    objects: np.ndarray
    iou: np.ndarray
    recall: np.ndarray
    max_detections: int = MAX_DETECTIONS

    def mean(self) -> np.ndarray:
        """Mean over the classes with objects, [IoU, level]; NaN where there is none."""
        defined = self.precision[:, :, ~np.isnan(self.precision[0, 0])]
        return defined.mean(axis=2) if defined.size else np.full(defined.shape[:2], np.nan)


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Curve of one class at IoU 0.5, or of all together.

    Attributes:
        precision: [T], NaN where nothing is kept.
        recall: [T], NaN without objects.
        f1: [T], NaN without objects.
        best: the highest F1 over `THRESHOLDS`; None without objects.
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
    """Precision, recall and F1 of keeping `score > threshold`, for all classes together and for each.

    Attributes:
        thresholds: [T], ascending: 0.00, 0.01 … 1.00, and the threshold of the best F1 of all.
        overall: every detection and object counted once, whatever its class, as in `CocoResult.best_f1`.
        classes: in the order of the category ids.
        names: the classes' names.
    """

    thresholds: np.ndarray
    overall: ThresholdCurve
    classes: list[ThresholdCurve]
    names: list[str]


def trace_thresholds(matched: MatchedDetections) -> ThresholdCurves:
    """Curves of all detections that count."""
    truth, predictions, counts = matched.truth, matched.predictions, matched.counts
    is_tp, score, category = matched.is_tp[counts], predictions.score[counts], predictions.category[counts]
    objects = np.bincount(truth.category[~truth.crowd], minlength=len(truth.names)).tolist()
    best = best_f1(is_tp, score, sum(objects))
    thresholds = np.unique(np.append(np.arange(101) / 100, best.threshold))  # linspace's 0.7 is above 0.7
    own = [category == index for index in range(len(objects))]
    return ThresholdCurves(
        thresholds=thresholds,
        overall=_trace(is_tp, score, sum(objects), thresholds),
        classes=[_trace(is_tp[o], score[o], n, thresholds) for o, n in zip(own, objects, strict=True)],
        names=truth.names,
    )


def _trace(is_tp: np.ndarray, score: np.ndarray, objects: int, thresholds: np.ndarray) -> ThresholdCurve:
    kept, hits = _count_above(score, thresholds), _count_above(score[is_tp], thresholds)
    undefined = np.full(len(thresholds), np.nan)
    return ThresholdCurve(
        precision=np.divide(hits, kept, out=undefined.copy(), where=kept > 0),
        recall=hits / objects if objects else undefined,
        f1=2 * hits / (kept + objects) if objects else undefined,
        best=best_f1(is_tp, score, objects) if objects else None,
        objects=objects,
        detections=len(score),
    )


def best_f1(is_tp: np.ndarray, score: np.ndarray, objects: int) -> BestF1:
    """Best F1 over `THRESHOLDS`; of several thresholds that give it, the highest.

    Args:
        is_tp: [N] bool, of the detections that count.
        score: [N], of the same detections.
        objects: objects without crowd.
    """
    kept, hits = _count_above(score, THRESHOLDS), _count_above(score[is_tp], THRESHOLDS)
    if not hits.any():
        return BestF1(threshold=0.5, f1=0.0, precision=0.0, recall=0.0)
    f1 = 2 * hits / (kept + objects)
    best = int(np.flatnonzero(f1 == f1.max())[-1])
    return BestF1(
        threshold=float(THRESHOLDS[best]),
        f1=float(f1[best]),
        precision=float(hits[best] / kept[best]),
        recall=float(hits[best] / objects),
    )


def _count_above(score: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Number of scores above each threshold as `is_above` has it, [T] float."""
    ascending = np.sort(score.astype(np.float32))
    return (len(score) - np.searchsorted(ascending, thresholds.astype(np.float32), side="right")).astype(float)
