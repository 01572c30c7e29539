"""Interval of AP over other images of the kind, by bootstrap over the images there are."""

from dataclasses import dataclass

import numpy as np

from hf_detr_ft.evaluation.average_precision import weighted_average_precision
from hf_detr_ft.evaluation.matching import MatchedDetections

REPLICATES = 500
"""Number of data sets that are drawn."""
NORMAL_95 = 1.96
"""Standard deviations on either side that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Interval:
    """Limits of AP over all images such as these, with a confidence of 95 %."""

    low: float
    high: float


def bootstrap_intervals(matched: MatchedDetections) -> dict[str, Interval | None]:
    """Intervals of `map`, `map_50` and `map_75` over data sets drawn from the images with replacement.

    Images are drawn, not detections, since those of an image are not independent. As in COCO, a class without objects
    in a replicate is left out of that replicate's mean. Training is not repeated: the interval is about the images that
    the weights are tested on, not about other weights.

    It is the normal interval with the bias taken off (Efron and Tibshirani 1993, chapter 10): AP of few objects is too
    high, as the best precision from a recall on is taken, and that of a replicate is higher once more. From 13 images
    of 1 class, 30 of 3 and 100 of 10, drawn 150 times from constructed populations, it held the population's AP in 92,
    91 and 82 % of the cases, the percentile interval in 89, 81 and 61 %. It stays in [0, 1] and holds the AP measured.

    Args:
        matched: truth and predictions.

    Returns:
        None instead of an interval where drawing says nothing: fewer than two images with objects, or the same AP
        whatever is drawn, as where nothing is found.
    """
    matched = matched.of_coco()
    truth, images = matched.truth, len(matched.truth.image_ids)
    undefined: dict[str, Interval | None] = dict.fromkeys(("map", "map_50", "map_75"))
    if len(np.unique(truth.image[~truth.crowd])) < 2:
        return undefined
    values = weighted_average_precision(matched, draw_images(images))
    return {"map": _interval(values), "map_50": _interval(values[:1]), "map_75": _interval(values[5:6])}


def draw_images(images: int) -> np.ndarray:
    """Counts of each image, [images, 1 + R]: one in the first column, those of R draws with replacement behind it."""
    weights = np.ones((images, 1 + REPLICATES))
    drawn = np.random.default_rng(0).integers(images, size=(REPLICATES, images))
    for replicate, chosen in enumerate(drawn, start=1):
        weights[:, replicate] = np.bincount(chosen, minlength=images)
    return weights


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """COCO's mean of AP [IoU, class, 1 + R], over what is defined, [1 + R]; NaN where nothing is."""
    defined = (~np.isnan(values)).sum(axis=(0, 1))
    return np.where(defined > 0, np.nansum(values, axis=(0, 1)) / np.maximum(defined, 1), np.nan)


def _interval(values: np.ndarray) -> Interval | None:
    """Interval from AP [IoU, class, 1 + R]; replicates without any object are left out."""
    means = mean_of_defined(values)
    measured, *drawn = means[~np.isnan(means)].tolist()
    spread = NORMAL_95 * float(np.std(drawn))
    if spread < 1e-9:  # the rounding of one and the same AP
        return None
    unbiased = 2 * measured - float(np.mean(drawn))
    return Interval(max(0.0, min(unbiased - spread, measured)), min(1.0, max(unbiased + spread, measured)))
