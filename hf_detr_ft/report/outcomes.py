"""What each prediction is: right, or which kind of error, as in TIDE (Bolya et al. 2020, arXiv:2008.08115)."""

from dataclasses import dataclass

import numpy as np

from hf_detr_ft.boxes import xywh_to_xyxy
from hf_detr_ft.evaluation.matching import NOT_COUNTED, match_objects
from hf_detr_ft.evaluation.truth import Found, Truth

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
MOST = 100
"""Detections that count per image and class, as in COCO."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of detections at IoU 0.5.

    Attributes:
        kind: `[N]` str, per detection: `right`, `ignored` (in a crowd region, or one too many), or an error of `WRONG`.
        taken: `[N]`, the position in `Truth` of the object that a right detection took, negative for all others.
    """

    kind: np.ndarray
    taken: np.ndarray


def find_outcomes(truth: Truth, found: Found) -> Outcomes:
    """The kind of each detection; it depends on no threshold, since matching goes by descending scores."""
    taken = match_objects(truth, found, MOST)
    own, other = np.zeros(len(taken)), np.zeros(len(taken))
    objects = np.flatnonzero(~truth.crowd)
    objects = objects[np.argsort(truth.image[objects], kind="stable")]
    detections = np.argsort(found.image, kind="stable")
    images = np.arange(len(truth.image_ids) + 1)
    object_starts = np.searchsorted(truth.image[objects], images)
    detection_starts = np.searchsorted(found.image[detections], images)
    for image in range(len(truth.image_ids)):
        there = objects[object_starts[image] : object_starts[image + 1]]
        here = detections[detection_starts[image] : detection_starts[image + 1]]
        if len(there) and len(here):
            iou = pairwise_iou(found.boxes_xywh_px[here], truth.boxes_xywh_px[there])
            same = found.category[here][:, None] == truth.category[there]
            own[here], other[here] = (iou * same).max(axis=1), (iou * ~same).max(axis=1)
    cases = [
        (taken >= 0, "right"),
        (taken == NOT_COUNTED, "ignored"),
        ((own >= BACKGROUND_IOU) & (own < FOREGROUND_IOU), "localisation"),
        (other >= FOREGROUND_IOU, "classification"),
        (own >= FOREGROUND_IOU, "duplicate"),
        (other >= BACKGROUND_IOU, "both"),
    ]
    kind = np.select([case for case, _ in cases], [name for _, name in cases], "background")
    return Outcomes(kind, taken)


def pairwise_iou(boxes_xywh_px: np.ndarray, others_xywh_px: np.ndarray) -> np.ndarray:
    """IoU of all pairs, `[N, 4]` and `[M, 4]` to `[N, M]`; 0 where both areas are."""
    a, b = xywh_to_xyxy(boxes_xywh_px)[:, None], xywh_to_xyxy(others_xywh_px)[None]
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    overlap = sides[..., 0] * sides[..., 1]
    union = boxes_xywh_px[:, None, 2:].prod(-1) + others_xywh_px[None, :, 2:].prod(-1) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
