"""Calibration: scores compared with the share of detections that is right."""

from dataclasses import dataclass

import numpy as np

from hf_detr_ft.evaluation.detections import is_above

SCORE_BINS = 10
SCORE_EDGES = np.arange(SCORE_BINS + 1) / SCORE_BINS
"""Limits of the bins of scores."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Detections by score, in 10 bins of equal width, and how many of them took an object of their class at IoU 0.5.

    Attributes:
        edges: [11], of the bins; the last one includes 1.
        count: [10], detections that count.
        score: [10], their mean score, NaN where there is none.
        right: [10], the share of them that is right, NaN where there is none.
        expected_error: the mean over detections of |score - right| of their bins (Naeini et al. 2015), None without
            detections. With a model that gives every image many detections of low scores, these decide it.
        kept_error: the same for detections above the threshold, by the same edges.
        kept_score: their mean score, None where nothing is kept.
        kept_right: the share of them that is right.
        kept: how many they are.
        threshold: detections with a score above it are kept.
    """

    edges: np.ndarray
    count: np.ndarray
    score: np.ndarray
    right: np.ndarray
    expected_error: float | None
    kept_error: float | None
    kept_score: float | None
    kept_right: float | None
    kept: int
    threshold: float


def calibrate(score: np.ndarray, is_tp: np.ndarray, threshold: float) -> Calibration:
    """Calibration of detections with scores in [0, 1].

    Args:
        score: [N], of the detections that count.
        is_tp: [N] bool.
        threshold: detections with a score above it are kept.
    """
    count, mean_score, mean_right = _bin(score, is_tp)
    kept = is_above(score, threshold)
    return Calibration(
        edges=SCORE_EDGES,
        count=count,
        score=mean_score,
        right=mean_right,
        expected_error=_error(count, mean_score, mean_right),
        kept_error=_error(*_bin(score[kept], is_tp[kept])),
        kept_score=float(score[kept].mean()) if kept.any() else None,
        kept_right=float(is_tp[kept].mean()) if kept.any() else None,
        kept=int(kept.sum()),
        threshold=threshold,
    )


def _bin(score: np.ndarray, is_tp: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean score and share of true positives, [10] each."""
    place = np.clip(np.searchsorted(SCORE_EDGES, score, side="right") - 1, 0, SCORE_BINS - 1)
    count = np.bincount(place, minlength=SCORE_BINS)
    sums = (np.bincount(place, weights=values, minlength=SCORE_BINS) for values in (score, is_tp))
    mean_score, mean_right = (np.divide(s, count, out=np.full(SCORE_BINS, np.nan), where=count > 0) for s in sums)
    return count, mean_score, mean_right


def _error(count: np.ndarray, score: np.ndarray, right: np.ndarray) -> float | None:
    total = int(count.sum())
    return float(np.nansum(count * np.abs(score - right)) / total) if total else None
