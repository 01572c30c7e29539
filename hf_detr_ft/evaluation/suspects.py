"""Annotations that a model contradicts: likely missing, of another class, or badly placed, the worst first."""

from dataclasses import dataclass

import numpy as np

from hf_detr_ft.boxes import xywh_to_xyxy
from hf_detr_ft.evaluation.matching import NEAR_IOU, UNMATCHED
from hf_detr_ft.evaluation.truth import Predictions, Truth

SAME_PLACE = 0.5
"""IoU from which on a detection means an object."""
WELL_PLACED = 0.45
"""IoU of a detection and its object below which one of them is badly placed."""
APART = 0.3
"""IoU with objects of other classes below which a detection can mean one that is missing."""
KINDS = ("missing", "class", "place")


@dataclass(frozen=True)
class Suspect:
    """An annotation that is likely wrong.

    Attributes:
        kind: `missing`: an object that is not annotated; `class`: one of another class; `place`: a box elsewhere.
        weight: how sure the model is of it, 0 to 1, see `weigh`; the square of the score of what is missing, since a
            model finds what is not there more easily than it mistakes what is.
        image: position of the image in `Truth.image_ids`.
        annotation: position of the annotation in `Truth`; None where it is missing.
        detection: position of the contradicting detection in `Predictions`.
    """

    kind: str
    weight: float
    image: int
    annotation: int | None
    detection: int


def find_suspects(truth: Truth, predictions: Predictions, least: float) -> list[Suspect]:
    """Annotations that a model contradicts with a weight of at least `least`, the heaviest first, each once.

    Args:
        truth: the annotations.
        predictions: the model's detections of any score.
        least: weight, 0 to 1.
    """
    order = np.lexsort((-predictions.score, predictions.image))
    by_image = np.argsort(truth.image, kind="stable")
    numbers = np.arange(len(truth.image_ids) + 1)
    starts, first = (np.searchsorted(images, numbers) for images in (predictions.image[order], truth.image[by_image]))
    suspects = []
    for image in range(len(truth.image_ids)):
        detections, objects = order[starts[image] : starts[image + 1]], by_image[first[image] : first[image + 1]]
        suspects += _of_image(truth, predictions, image, objects, detections, least)
    found = [suspect for suspect in suspects if suspect.weight >= least]
    return sorted(found, key=lambda suspect: -suspect.weight)


def _of_image(
    truth: Truth, predictions: Predictions, image: int, objects: np.ndarray, detections: np.ndarray, least: float
) -> list[Suspect]:
    """Suspects of one image.

    Args:
        truth: see `find_suspects`.
        predictions: see `find_suspects`.
        image: its position.
        objects: `[M]`, positions of its annotations.
        detections: `[D]`, positions of its detections, the best first.
        least: weight that is asked for.
    """
    crowds, objects = objects[truth.crowd[objects]], objects[~truth.crowd[objects]]
    found = predictions.boxes_xywh_px[detections]
    covered = overlaps(found, truth.boxes_xywh_px[crowds]).max(axis=1, initial=0.0)
    in_crowd = covered > SAME_PLACE * found[:, 2:].prod(axis=1)
    ious = pairwise_iou(found, truth.boxes_xywh_px[objects])
    same = predictions.category[detections][:, None] == truth.category[objects][None]
    scores = predictions.score[detections]
    agreed = np.where(same & (ious >= SAME_PLACE), scores[:, None], 0.0).max(axis=0, initial=0.0)
    well = (same & (ious >= WELL_PLACED)).any(axis=1)
    placed = np.where(same & (ious >= WELL_PLACED), scores[:, None], 0.0).max(axis=0, initial=0.0)
    best: dict[tuple[str, int], Suspect] = {}
    missing: list[int] = []
    for place, detection in enumerate(detections.tolist()):
        if scores[place] < least**2 or in_crowd[place] or well[place]:
            continue
        score = float(scores[place])
        own, others = np.where(same[place], ious[place], 0.0), np.where(same[place], 0.0, ious[place])
        near = int(own.argmax()) if len(objects) else UNMATCHED
        other = int(others.argmax()) if len(objects) else UNMATCHED
        if len(objects) and own[near] >= NEAR_IOU and placed[near] < score:
            kind, target, weight = "place", near, weigh(score, float(placed[near]))
        elif len(objects) and others[other] >= SAME_PLACE:
            kind, target, weight = "class", other, weigh(score, float(agreed[other]))
        elif not len(objects) or (own[near] < NEAR_IOU and others[other] < APART):
            if _is_new(predictions, detection, missing):
                missing.append(detection)
                best["missing", detection] = Suspect("missing", score**2, image, None, detection)
            continue
        else:
            continue
        known = best.get((kind, target))
        if known is None or known.weight < weight:
            best[kind, target] = Suspect(kind, weight, image, int(objects[target]), detection)
    return _one_each(list(best.values()))


def weigh(score: float, agreed: float) -> float:
    """Weight of a detection that contradicts an annotation, 0 to 1.

    Args:
        score: of the detection.
        agreed: best score of a detection that agrees with the annotation.
    """
    return score**0.5 * (score - agreed) / (score + agreed)


def _is_new(predictions: Predictions, detection: int, before: list[int]) -> bool:
    """False of a second detection of what is missing already."""
    boxes = predictions.boxes_xywh_px
    return not before or bool((pairwise_iou(boxes[[detection]], boxes[before]) < SAME_PLACE).all())


def _one_each(suspects: list[Suspect]) -> list[Suspect]:
    """The heaviest suspicion of each annotation."""
    kept, seen = [], set[int]()
    for suspect in sorted(suspects, key=lambda suspect: -suspect.weight):
        if suspect.annotation is None or suspect.annotation not in seen:
            kept.append(suspect)
            seen |= {suspect.annotation} if suspect.annotation is not None else set()
    return kept


def pairwise_iou(one_xywh_px: np.ndarray, other_xywh_px: np.ndarray) -> np.ndarray:
    """IoU of each of `[N, 4]` boxes with each of `[M, 4]`, `[N, M]`."""
    overlap = overlaps(one_xywh_px, other_xywh_px)
    areas = one_xywh_px[:, 2:].prod(axis=1)[:, None] + other_xywh_px[:, 2:].prod(axis=1)[None] - overlap
    return np.divide(overlap, areas, out=np.zeros_like(overlap), where=overlap > 0)


def overlaps(one_xywh_px: np.ndarray, other_xywh_px: np.ndarray) -> np.ndarray:
    """Square pixels that each of `[N, 4]` boxes shares with each of `[M, 4]`, `[N, M]`."""
    a, b = xywh_to_xyxy(one_xywh_px)[:, None], xywh_to_xyxy(other_xywh_px)[None]
    sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0)
    shared: np.ndarray = sides.prod(axis=-1)
    return shared
