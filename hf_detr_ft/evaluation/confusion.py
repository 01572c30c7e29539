"""Confusion of classes, with background as one more."""

from dataclasses import dataclass

import numpy as np

from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.evaluation.matching import IGNORED, IOUS, UNMATCHED, MatchedDetections, take_objects


@dataclass(frozen=True, eq=False)
class Confusion:
    """Objects and kept detections by true and predicted class.

    Attributes:
        counts: [C+1, C+1] int64. Row: the true class, last the background; column: the predicted class, last nothing.
            A row's sum is its class's objects, a column's the class's kept detections that count, and the diagonal
            holds COCO's matches, so precision and recall read from it are those of the threshold curves.
        names: the C classes' names.
        threshold: detections with a score above it are kept.
    """

    counts: np.ndarray
    names: list[str]
    threshold: float

    def confused_pairs(self) -> list[tuple[int, int, int]]:
        """Row, column and count of classes taken for others, the most frequent first; without background."""
        classes = self.counts[:-1, :-1].copy()
        np.fill_diagonal(classes, 0)
        rows, columns = np.nonzero(classes)
        order = np.argsort(-classes[rows, columns], kind="stable")
        triples = zip(
            rows[order].tolist(), columns[order].tolist(), classes[rows, columns][order].tolist(), strict=True
        )
        return list(triples)


def confuse_classes(matched: MatchedDetections, threshold: float) -> Confusion:
    """Confusion matrix at IoU 0.5.

    First detections take objects of their own class, as COCO lets them. Then those left over take, by score and then
    by IoU, objects of other classes that are left over. A second detection of an object that is taken is one of
    background.

    Crowd regions are treated as COCO treats them: a detection without an object that lies in a region of its own class
    does not count; in one of another class it is one of background; the region itself is no object.

    Args:
        matched: truth and predictions.
        threshold: detections with a score above it are kept.
    """
    truth, predictions, pairs = matched.truth, matched.predictions, matched.near_pairs
    matched_gt = np.where(is_above(predictions.score, threshold), matched.matched_gt, IGNORED)
    free = ~truth.crowd
    free[matched_gt[matched_gt >= 0]] = False
    loose = matched_gt == UNMATCHED
    can_take = (pairs.iou >= IOUS[0]) & loose[pairs.detection] & free[pairs.target]
    across = take_objects(truth, pairs.select(can_take), loose)
    matched_gt[across >= 0] = across[across >= 0]
    free[matched_gt[matched_gt >= 0]] = False
    counts, background = matched_gt != IGNORED, len(truth.names)
    target = np.where(matched_gt == UNMATCHED, len(truth.category), matched_gt)[counts]
    rows = np.concatenate([np.append(truth.category, background)[target], truth.category[free]])
    columns = np.concatenate([predictions.category[counts], np.full(int(free.sum()), background)])
    cells = np.bincount(rows * (background + 1) + columns, minlength=(background + 1) ** 2)
    return Confusion(cells.reshape(background + 1, background + 1), truth.names, threshold)
