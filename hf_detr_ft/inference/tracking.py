"""Ids of objects over the frames of a video.

BYTE (Zhang et al., 2022, arXiv 2110.06864): certain detections first find the tracks that they go on, then uncertain
ones those that are left. supervision had it until 0.29; what took its place there, `trackers`, brings a second OpenCV.
"""

from dataclasses import replace

import numpy as np
import torch
from torchvision.ops import box_iou

from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.inference.detect import ImageDetections

LEAST_SCORE = 0.1
"""Score of an uncertain detection that can still go on with a track."""
LEAST_OVERLAP = 0.2
"""IoU of a certain detection and the place where a track's object is expected."""
LEAST_OVERLAP_UNCERTAIN = 0.5
SAME = 0.6
"""IoU of two detections of a class above which they are one object, whose id would else change."""
NEW_SHARE = 0.5
"""Weight of the newest movement in a track's movement from frame to frame."""


class Tracker:
    """Tracks of one video.

    Args:
        threshold: of detections that are certain; they begin tracks, and they alone are given back.
        patience: frames for which an object may be unseen and keep its id.
    """

    def __init__(self, threshold: float, patience: int) -> None:
        self._threshold = threshold
        self._patience = patience
        self._boxes = np.zeros((0, 4))
        self._movements = np.zeros((0, 4))
        self._labels = np.zeros(0, dtype=np.int64)
        self._ids = np.zeros(0, dtype=np.int64)
        self._missed = np.zeros(0, dtype=np.int64)
        self._next = 1

    def update(self, detections: ImageDetections) -> ImageDetections:
        """Detections of the next frame above the threshold, best first, each object once, with its track's id.

        Args:
            detections: of the frame, those of low scores, too.
        """
        ranked = detections.above(min(LEAST_SCORE, self._threshold)).without_overlaps(SAME)
        certain = np.flatnonzero(is_above(ranked.scores, self._threshold))
        uncertain = np.arange(len(certain), len(ranked))
        self._boxes = self._boxes + self._movements
        self._missed += 1
        tracks = np.full(len(ranked), -1)
        for chosen, least, free in (
            (certain, LEAST_OVERLAP, np.arange(len(self._ids))),
            (uncertain, LEAST_OVERLAP_UNCERTAIN, np.flatnonzero(self._missed == 1)),
        ):
            free = np.setdiff1d(free, tracks)
            rows, columns = self._match(ranked, chosen, free, least)
            tracks[chosen[rows]] = free[columns]
        seen = np.flatnonzero(tracks >= 0)
        self._go_on(tracks[seen], ranked.boxes_xyxy_px[seen])
        fresh = certain[tracks[certain] < 0]
        tracks[fresh] = len(self._ids) + np.arange(len(fresh))
        self._begin(ranked.boxes_xyxy_px[fresh], ranked.labels[fresh])
        found = replace(ranked.above(self._threshold), tracks=self._ids[tracks[certain]])
        self._forget(self._missed <= self._patience)
        return found

    def _match(
        self, detections: ImageDetections, chosen: np.ndarray, free: np.ndarray, least: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of places in `chosen` and in `free`, one to one, with the largest sum of overlaps."""
        from scipy.optimize import linear_sum_assignment

        boxes = detections.boxes_xyxy_px[chosen].astype(np.float64)
        overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(self._boxes[free])).numpy()
        overlaps[detections.labels[chosen][:, None] != self._labels[free]] = 0
        rows, columns = linear_sum_assignment(np.where(overlaps >= least, overlaps, 0), maximize=True)
        real = overlaps[rows, columns] >= least
        return rows[real], columns[real]

    def _go_on(self, tracks: np.ndarray, boxes_xyxy_px: np.ndarray) -> None:
        """Moves tracks to where their objects are; what a track has missed was spread over the frames between."""
        off = (boxes_xyxy_px - self._boxes[tracks]) / self._missed[tracks][:, None]
        self._movements[tracks] += NEW_SHARE * off
        self._boxes[tracks] = boxes_xyxy_px
        self._missed[tracks] = 0

    def _begin(self, boxes_xyxy_px: np.ndarray, labels: np.ndarray) -> None:
        count = len(labels)
        self._boxes = np.concatenate([self._boxes, boxes_xyxy_px])
        self._movements = np.concatenate([self._movements, np.zeros((count, 4))])
        self._labels = np.concatenate([self._labels, labels])
        self._ids = np.concatenate([self._ids, self._next + np.arange(count)])
        self._missed = np.concatenate([self._missed, np.zeros(count, dtype=np.int64)])
        self._next += count

    def _forget(self, kept: np.ndarray) -> None:
        for name in ("_boxes", "_movements", "_labels", "_ids", "_missed"):
            setattr(self, name, getattr(self, name)[kept])
