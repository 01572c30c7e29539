"""COCO's AP from matches, for images that count any number of times each."""

import numpy as np

from hf_detr_ft.evaluation.curves import RECALLS
from hf_detr_ft.evaluation.matching import NOT_COUNTED
from hf_detr_ft.evaluation.truth import Found, Truth

_NUMBERS_AT_ONCE = 1_000_000
"""Detections times replicates whose running counts are held at once (about 50 bytes each)."""


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


def weighted_average_precision(truth: Truth, found: Found, taken: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AP per IoU and class if each image counted as often as its weight says.

    For integer weights this is COCO's AP of the data set that has each image so many times, the order of detections
    with equal scores in different images aside, which COCO takes from the order of the images.

    Args:
        truth: the objects.
        found: the detections.
        taken: [IoU, N], per IoU what `take_objects` returns.
        weights: [images, R], R replicates.

    Returns:
        [IoU, class, R], NaN where a class has no objects.
    """
    replicates = weights.shape[1]
    result = np.empty((len(taken), len(truth.names), replicates))
    order = np.lexsort((found.image, -found.score, found.category))  # of equal scores the earlier image, as COCO
    order = order[(taken[:, order] != NOT_COUNTED).any(axis=0)]
    start = np.searchsorted(found.category[order], np.arange(len(truth.names) + 1))
    objects_of = truth.image[~truth.crowd], truth.category[~truth.crowd]
    for category in range(len(truth.names)):
        own = order[start[category] : start[category + 1]]
        right = np.flatnonzero((taken[:, own] >= 0).any(axis=0))
        own = own[: right[-1] + 1 if len(right) else 0]  # what comes after the last right one changes nothing
        images = objects_of[0][objects_of[1] == category]
        block = max(1, _NUMBERS_AT_ONCE // max(1, len(own), len(images)))
        for first in range(0, replicates, block):
            chosen = weights[:, first : first + block]
            objects = chosen[images].sum(axis=0)
            result[:, category, first : first + block] = _of_class(taken[:, own], chosen[found.image[own]], objects)
    return result


def _of_class(taken: np.ndarray, weight: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """[IoU, R] from what the detections of a class took [IoU, N] and their weights [N, R], the best score first."""
    total = np.cumsum(weight, axis=0)
    result = np.empty((len(taken), len(objects)))
    for index, row in enumerate(taken):
        right, ignored = np.flatnonzero(row >= 0), np.flatnonzero(row == NOT_COUNTED)
        counted = total[right]
        if len(ignored):
            before = np.cumsum(np.insert(weight[ignored], 0, 0, axis=0), axis=0)
            counted -= before[np.searchsorted(ignored, right)]
        result[index] = average_precision(counted, np.cumsum(weight[right], axis=0), objects)
    return result
