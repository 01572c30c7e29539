"""Which class is taken for which, with background as one more."""

from dataclasses import dataclass

import numpy as np

from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.evaluation.matching import NOT_COUNTED, NOTHING, Pairs, take_objects
from hf_detr_ft.evaluation.truth import Found, Truth


@dataclass(frozen=True, eq=False)
class Confusion:
    """Objects and kept detections by true and predicted class.

    Attributes:
        counts: [C+1, C+1] int64. Row: the true class, last the background; column: the predicted class, last nothing.
            A row's sum is its class's objects, a column's the class's kept detections that count, and the diagonal
            holds COCO's matches, so precision and recall read from it are those of the threshold curves.
        names: of the C classes.
        threshold: detections with a score above it are kept.
    """

    counts: np.ndarray
    names: list[str]
    threshold: float

    def mistakes(self) -> list[tuple[int, int, int]]:
        """Row, column and count of what is taken for another class, the most frequent first; without background."""
        classes = self.counts[:-1, :-1].copy()
        np.fill_diagonal(classes, 0)
        rows, columns = np.nonzero(classes)
        order = np.argsort(-classes[rows, columns], kind="stable")
        triples = zip(
            rows[order].tolist(), columns[order].tolist(), classes[rows, columns][order].tolist(), strict=True
        )
        return list(triples)


def confuse_classes(truth: Truth, found: Found, pairs: Pairs, taken: np.ndarray, threshold: float) -> Confusion:
    """The matrix at IoU 0.5.

    First detections take objects of their own class, as COCO lets them. Then those left over take, by score and then
    by IoU, objects of other classes that are left over. A second detection of an object that is taken is one of
    background.

    Crowd regions are treated as COCO treats them: a detection without an object that lies in a region of its own class
    does not count; in one of another class it is one of background; the region itself is no object.

    Args:
        truth: the objects.
        found: the detections.
        pairs: of any class, from IoU 0.5 or less on.
        taken: [N], what `match_objects` returns.
        threshold: detections with a score above it are kept.
    """
    kept = is_above(found.score, threshold)
    matched = np.where(kept, taken, NOT_COUNTED)
    free = ~truth.crowd
    free[matched[matched >= 0]] = False
    loose = matched == NOTHING
    across = take_objects(truth, pairs.select((pairs.iou >= 0.5) & loose[pairs.detection] & free[pairs.target]), loose)
    matched[across >= 0] = across[across >= 0]
    free[matched[matched >= 0]] = False
    classes = len(truth.names)
    counted = matched != NOT_COUNTED
    target = matched[counted]
    true = np.append(truth.category, classes)[target]  # NOTHING, -1, is the last: the background
    rows = np.concatenate([true, truth.category[free]])
    columns = np.concatenate([found.category[counted], np.full(int(free.sum()), classes)])
    counts = np.bincount(rows * (classes + 1) + columns, minlength=(classes + 1) ** 2)
    return Confusion(counts.reshape(classes + 1, classes + 1), truth.names, threshold)
