"""Analysis of a model's detections on a validation split: curves, confusion, calibration, intervals, TIDE's errors.

`analyse_detections` is the entrance, or `analyse_matched` for detections that are matched already.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hf_detr_ft.evaluation.bootstrap import Interval, bootstrap_intervals
from hf_detr_ft.evaluation.calibration import Calibration, calibrate
from hf_detr_ft.evaluation.coco_eval import SIZE_NAMES, evaluate_with_curves, size_of
from hf_detr_ft.evaluation.coco_result import MAX_DETECTIONS, CocoResult
from hf_detr_ft.evaluation.confusion import Confusion, confuse_classes
from hf_detr_ft.evaluation.detections import Detections, is_above
from hf_detr_ft.evaluation.matching import MatchedDetections, match_detections
from hf_detr_ft.evaluation.threshold_curves import PrecisionRecall, ThresholdCurves, trace_thresholds
from hf_detr_ft.evaluation.tide import TideErrors, find_errors
from hf_detr_ft.evaluation.truth import read_truth

MOST_CONFUSED_PAIRS = 20
"""Pairs of confused classes in `Analysis.as_dict`."""


@dataclass(frozen=True)
class Recall:
    """Number of some objects, and of those found with the kept detections at IoU 0.5."""

    objects: int
    found: int


@dataclass(frozen=True, eq=False)
class Analysis:
    """Result of `analyse_detections`.

    Attributes:
        result: that of `evaluate_detections`.
        threshold: detections with a score above it are kept.
        recall: found objects by COCO's sizes.
        intervals: 95 % intervals of `map`, `map_50` and `map_75`; None where there is none.
        precision_recall: the curves behind AP.
        thresholds: precision, recall and F1 against the threshold.
        confusion: with the kept detections.
        calibration: scores of all detections against the share that is right.
        errors: TIDE's errors of all detections.
    """

    result: CocoResult
    threshold: float
    recall: dict[str, Recall]
    intervals: dict[str, Interval | None]
    precision_recall: PrecisionRecall
    thresholds: ThresholdCurves
    confusion: Confusion
    calibration: Calibration
    errors: TideErrors

    def as_dict(self) -> dict[str, Any]:
        """Values for JSON, None for what is undefined.

        Left out are the curves, what single detections and objects are, classes confused less often than the first 20
        pairs, and `result`, which metrics.json has.
        """
        names = self.confusion.names
        confused = self.confusion.confused_pairs()[:MOST_CONFUSED_PAIRS]
        classes = zip(self.result.per_class, self.thresholds.classes, strict=True)
        calibration = {key: _plain(value) for key, value in asdict(self.calibration).items()}
        return {
            "threshold": self.threshold,
            "recall": {size: asdict(recall) for size, recall in self.recall.items()},
            "intervals": {name: None if i is None else asdict(i) for name, i in self.intervals.items()},
            "best_f1_per_class": [
                {"category_id": row.category_id, "name": row.name, **({} if c.best is None else asdict(c.best))}
                for row, c in classes
            ],
            "mistaken": [{"true": names[a], "predicted": names[b], "count": count} for a, b, count in confused],
            "calibration": calibration,
            "errors": {name: asdict(kind) for name, kind in self.errors.kinds.items()},
        }


def analyse_detections(
    coco: dict, detections: Detections, threshold: float | None = None, max_detections: int = MAX_DETECTIONS
) -> Analysis:
    """Analyses detections against the truth of a COCO dict, over exactly the images it lists.

    Args:
        coco: the annotations as read, as `evaluate_detections` takes them.
        detections: ids are the data set's, boxes in pixels of the original upright image, scores in [0, 1].
        threshold: detections with a score above it are kept, for confusion, recall and counts; that of the best F1
            where not given.
        max_detections: the best per image and class that count; COCO's numbers and their intervals are of 100 always.

    Raises:
        DataError: as `evaluate_detections`.
    """
    return analyse_matched(match_detections(read_truth(coco), detections, max_detections), threshold)


def analyse_matched(matched: MatchedDetections, threshold: float | None = None) -> Analysis:
    """`analyse_detections` of detections that are matched already."""
    result, precision_recall = evaluate_with_curves(matched)
    if threshold is None:
        threshold = result.best_f1.threshold
    counts = matched.counts
    return Analysis(
        result=result,
        threshold=threshold,
        recall=_recall(matched, threshold),
        intervals=bootstrap_intervals(matched),
        precision_recall=precision_recall,
        thresholds=trace_thresholds(matched),
        confusion=confuse_classes(matched, threshold),
        calibration=calibrate(matched.predictions.score[counts], matched.is_tp[counts], threshold),
        errors=find_errors(matched, threshold),
    )


def _recall(matched: MatchedDetections, threshold: float) -> dict[str, Recall]:
    found, sizes = matched.found_objects(is_above(matched.predictions.score, threshold)), size_of(matched.truth.area)
    groups = (~matched.truth.crowd, found)
    counts = [[int((group & (sizes == size)).sum()) for group in groups] for size in range(len(SIZE_NAMES))]
    return {name: Recall(*count) for name, count in zip(SIZE_NAMES, counts, strict=True)}


def _plain(value: Any) -> Any:
    """Arrays to lists with None for NaN."""
    if not isinstance(value, np.ndarray):
        return value
    return [None if isinstance(v, float) and math.isnan(v) else v for v in value.tolist()]
