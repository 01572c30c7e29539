"""Errors by kind, and what fixing each would be worth, as in TIDE (Bolya et al. 2020, arXiv:2008.08115).

A detection that counts and took no object (IoU 0.5) is one of five kinds. With the IoU of the object that it overlaps
most, of its own class and of the others, the first that holds:

- localisation: 0.1 <= own < 0.5
- classification: 0.5 <= other
- duplicate: 0.5 <= own, so another detection took that object
- background: own < 0.1 and other < 0.1
- both: the rest, so own < 0.1 and 0.1 <= other < 0.5

The sixth is an object that no detection took and that is not the one which a classification or localisation error
overlaps most: it was missed.

Fixing a kind, the others left as they are: detections that are classification or localisation errors take the class or
the box of the object they overlap most, and of all that then have this object the one with the best score is right and
the others go; duplicates, background and both go; missed objects go from the objects of their class.

It differs from the program published with the paper, tidecv 1.0, where that departs from the paper or from COCO:

- An object that is already taken: there the corrected detection goes whatever its score, here, as the paper has it,
  the one with the lower score goes.
- Crowd regions, equal scores, the 100 detections per image and class (there: per image) and the mean over classes with
  objects are COCO's here, so the AP50 that fixing starts from is `map_50`. There a class with detections but without
  objects has AP 0 in the mean. So here a class of which all objects are missed leaves the mean when that is fixed.
- An IoU of exactly 0.1 or 0.5 belongs to the range above; there to both, and the first kind in the list is taken.
- Gains are as they come; there a negative one is set to 0.
"""

from dataclasses import dataclass

import numpy as np

from hf_detr_ft.evaluation.average_precision import average_precision
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.evaluation.matching import NOT_COUNTED, NOTHING, Pairs
from hf_detr_ft.evaluation.truth import Found, Truth

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(len(KINDS))
RIGHT, IGNORED = -1, -2
"""Instead of a kind: the detection took an object; it does not count."""
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1


@dataclass(frozen=True)
class KindOfError:
    """How often an error is made, and what it costs.

    Attributes:
        count: detections of any score, or objects missed by all of them, as in TIDE.
        kept: detections above the threshold, or objects missed by these.
        gain: AP50 with this kind fixed less AP50 as it is; None where there is no AP50 or no object is left.
    """

    count: int
    kept: int
    gain: float | None


@dataclass(frozen=True, eq=False)
class Errors:
    """What is wrong with each detection and object, and with all together.

    Attributes:
        kind: [N] int64, per detection: position in `KINDS`, `RIGHT` or `IGNORED`.
        target: [N] int64, per detection: position in `Truth` of the object that it took or, if it is wrong, that it
            overlaps most, of its own class for localisation errors and duplicates, of another for classification and
            both; `NOTHING` for the others.
        missed: [M] bool, per annotation of `Truth`: an object that is missed with detections of any score.
        kinds: by name, in the order of `KINDS`.
        ap_50: that fixing starts from; None without objects.
        threshold: of `KindOfError.kept`.
    """

    kind: np.ndarray
    target: np.ndarray
    missed: np.ndarray
    kinds: dict[str, KindOfError]
    ap_50: float | None
    threshold: float


def find_errors(truth: Truth, found: Found, pairs: Pairs, taken: np.ndarray, threshold: float) -> Errors:
    """Errors of all detections.

    Args:
        truth: the objects.
        found: the detections.
        pairs: of any class, from IoU 0.1 on.
        taken: [N], what `match_objects` returns.
        threshold: detections with a score above it are kept.
    """
    kind, target = _classify(truth, found, pairs, taken)
    missed, kept = _missed(truth, kind, target), is_above(found.score, threshold)
    missed_kept = _missed(truth, kind[kept], target[kept])
    counts, kept_counts = (
        np.bincount(kinds[kinds >= 0], minlength=len(KINDS)) + np.eye(len(KINDS), dtype=int)[MISSED] * int(lost.sum())
        for kinds, lost in ((kind, missed), (kind[kept], missed_kept))
    )
    start = _ap_50(truth, found, found.category, kind == RIGHT, kind != IGNORED, ~truth.crowd)
    kinds = {}
    for number, name in enumerate(KINDS):
        fixed = _fix(truth, found, kind, target, missed, number)
        gain = None if start is None or fixed is None else fixed - start
        kinds[name] = KindOfError(int(counts[number]), int(kept_counts[number]), gain)
    return Errors(kind, target, missed, kinds, start, threshold)


def _classify(truth: Truth, found: Found, pairs: Pairs, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kind and target of each detection, [N] each."""
    objects = pairs.select(~truth.crowd[pairs.target])
    same = found.category[objects.detection] == truth.category[objects.target]
    own_iou, own = _nearest(objects.select(same), len(taken))
    other_iou, other = _nearest(objects.select(~same), len(taken))
    wrong = [
        ((own_iou >= BACKGROUND_IOU) & (own_iou < FOREGROUND_IOU), LOCALISATION, own),
        (other_iou >= FOREGROUND_IOU, CLASSIFICATION, other),
        (own_iou >= FOREGROUND_IOU, DUPLICATE, own),
        (other_iou >= BACKGROUND_IOU, BOTH, other),
    ]
    cases = [taken >= 0, taken == NOT_COUNTED, *(condition for condition, _, _ in wrong)]
    kind = np.select(cases, [RIGHT, IGNORED, *(number for _, number, _ in wrong)], BACKGROUND)
    nothing = np.full(len(taken), NOTHING)
    return kind, np.select(cases, [taken, nothing, *(nearest for _, _, nearest in wrong)], NOTHING)


def _nearest(pairs: Pairs, detections: int) -> tuple[np.ndarray, np.ndarray]:
    """IoU and position of the object that each detection overlaps most, [N] each; 0 and `NOTHING` where none."""
    iou, target = np.zeros(detections), np.full(detections, NOTHING)
    first = np.flatnonzero(np.diff(pairs.detection, prepend=-1))  # the pairs of a detection come by IoU
    iou[pairs.detection[first]], target[pairs.detection[first]] = pairs.iou[first], pairs.target[first]
    return iou, target


def _missed(truth: Truth, kind: np.ndarray, target: np.ndarray) -> np.ndarray:
    missed = ~truth.crowd
    missed[target[np.isin(kind, (RIGHT, CLASSIFICATION, LOCALISATION))]] = False
    return missed


def _fix(
    truth: Truth, found: Found, kind: np.ndarray, target: np.ndarray, missed: np.ndarray, fixed: int
) -> float | None:
    """AP50 with one kind of error fixed; None where no object is left."""
    right, counted = kind == RIGHT, kind != IGNORED
    if fixed == MISSED:
        return _ap_50(truth, found, found.category, right, counted, ~truth.crowd & ~missed)
    errors = kind == fixed
    if fixed not in (CLASSIFICATION, LOCALISATION):
        return _ap_50(truth, found, found.category, right, counted & ~errors, ~truth.crowd)
    claimed = np.flatnonzero(errors | (right & np.isin(target, target[errors])))
    by_object = claimed[np.lexsort((-found.score[claimed], target[claimed]))]
    best = by_object[np.flatnonzero(np.diff(target[by_object], prepend=-1))]
    right[claimed], counted[claimed] = False, False
    right[best], counted[best] = True, True
    category = found.category.copy()
    category[best] = truth.category[target[best]]
    return _ap_50(truth, found, category, right, counted, ~truth.crowd)


def _ap_50(
    truth: Truth, found: Found, category: np.ndarray, right: np.ndarray, counted: np.ndarray, objects: np.ndarray
) -> float | None:
    """COCO's mean over the classes with objects.

    Args:
        truth: the objects.
        found: the detections.
        category: [N], of the detections as they are fixed.
        right: [N] bool.
        counted: [N] bool; the others are left out.
        objects: [M] bool, annotations that count as objects.
    """
    classes = len(truth.names)
    number = np.bincount(truth.category[objects], minlength=classes)
    order = np.lexsort((found.image, -found.score, category))
    order = order[counted[order]]
    start = np.searchsorted(category[order], np.arange(classes + 1))
    values = []
    for index in np.flatnonzero(number):
        hits = right[order[start[index] : start[index + 1]]]
        up_to = np.flatnonzero(hits)[:, None] + 1.0
        running = np.arange(1.0, len(up_to) + 1)[:, None]
        values.append(average_precision(up_to, running, number[index : index + 1])[0])
    return float(np.mean(values)) if values else None
