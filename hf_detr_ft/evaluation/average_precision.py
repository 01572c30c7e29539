"""COCO's AP from matches, for images that count any number of times each."""

import numpy as np
from scipy.sparse import csr_array

from hf_detr_ft.evaluation.matching import IGNORED, MatchedDetections
from hf_detr_ft.evaluation.threshold_curves import RECALLS

_NUMBERS_AT_ONCE = 2_000_000
"""Right detections times replicates that are computed at once (about 50 bytes each)."""


def average_precision(counted: np.ndarray, right: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """AP of one class at one IoU: the mean over COCO's 101 levels of recall of the best precision from there on.

    Only right detections raise recall, so only they are given, the best score first.

    Args:
        counted: [P, R], how many detections count up to each right one, itself included; R replicates of the data.
        right: [P, R], how many of those are right.
        objects: [R].

    Returns:
        [R], NaN without objects.
    """
    precision = np.maximum.accumulate((right / np.maximum(counted, 1))[::-1], axis=0)[::-1]
    recall = right / np.maximum(objects, 1)
    nearest = np.rint(recall * (len(RECALLS) - 1)).astype(np.int64)
    # Compared with the level as COCO's floats have it: 57/100 does not reach its 57th, which is 0.5700000000000001.
    reached = nearest + (RECALLS[nearest] <= recall)
    total = (precision * np.diff(reached, axis=0, prepend=0)).sum(axis=0)
    return np.where(objects > 0, total / len(RECALLS), np.nan)


def weighted_average_precision(matched: MatchedDetections, weights: np.ndarray) -> np.ndarray:
    """AP per IoU and class if each image counted as often as its weight says.

    For integer weights this is COCO's AP of the data set that has each image so many times, the order of detections
    with equal scores in different images aside, which COCO takes from the order of the images.

    Args:
        matched: truth and predictions.
        weights: [images, R], R replicates.

    Returns:
        [IoU, class, R], NaN where a class has no objects.
    """
    truth, predictions, matched_gt = matched.truth, matched.predictions, matched.matched_gt_by_iou
    replicates = weights.shape[1]
    result = np.empty((len(matched_gt), len(truth.names), replicates))
    # Of equal scores that in the earlier image comes first, as in COCO.
    order = np.lexsort((predictions.image, -predictions.score, predictions.category))
    order = order[(matched_gt[:, order] != IGNORED).any(axis=0)]
    start = np.searchsorted(predictions.category[order], np.arange(len(truth.names) + 1))
    for category in range(len(truth.names)):
        own = order[start[category] : start[category + 1]]
        objects = truth.image[~truth.ignored & (truth.category == category)]
        right = int((matched_gt[:, own] >= 0).any(axis=0).sum())
        block = max(1, _NUMBERS_AT_ONCE // max(1, right))
        for first in range(0, replicates, block):
            some = weights[:, first : first + block]
            result[:, category, first : first + block] = _average_precision_of_class(
                matched_gt[:, own], predictions.image[own], objects, some
            )
    return result


def _average_precision_of_class(
    matched_gt: np.ndarray, image: np.ndarray, objects: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """AP of one class, [IoU, R].

    Args:
        matched_gt: [IoU, N], of its detections, the best score first.
        image: [N], theirs.
        objects: the images of its objects.
        weights: [images, R].
    """
    number = weights[objects].sum(axis=0)
    stops = np.flatnonzero((matched_gt >= 0).any(axis=0))  # where a running count is needed
    before = image[: stops[-1] + 1] if len(stops) else image[:0]
    stretch = np.searchsorted(stops, np.arange(len(before)))
    # A row holds how many detections each image has from one stop to the next.
    steps = csr_array((np.ones(len(before)), (stretch, before)), shape=(len(stops), len(weights)))
    total = np.cumsum(steps @ np.ascontiguousarray(weights), axis=0)
    result = np.empty((len(matched_gt), weights.shape[1]))
    for index, row in enumerate(matched_gt):
        right, ignored = np.flatnonzero(row >= 0), np.flatnonzero(row == IGNORED)
        counted = total[np.searchsorted(stops, right)]
        if len(ignored):
            left_out = np.cumsum(np.insert(weights[image[ignored]], 0, 0, axis=0), axis=0)
            counted -= left_out[np.searchsorted(ignored, right)]
        result[index] = average_precision(counted, np.cumsum(weights[image[right]], axis=0), number)
    return result
