"""Annotations that a model contradicts: likely missing, of another class, or badly placed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

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
LEAST_SCORE = 0.1
"""Score below which a detection contradicts nothing."""


@dataclass(frozen=True)
class Suspect:
    """An annotation that is likely wrong.

    Attributes:
        kind: `missing`: an object that is not annotated; `class`: one of another class; `place`: a box elsewhere.
        weight: how sure the model is of it, 0 to 1: the score of what is missing, else see `weigh`. Weights of one kind
            can be compared, those of two cannot.
        image: position of the image in `Truth.image_ids`.
        annotation: position of the annotation in `Truth`; None where it is missing.
        detection: position of the contradicting detection in `Predictions`.
        right: share of the suspects of its kind with as much weight that are estimated to be right, 0 to 1; 0 where
            nobody asked.
    """

    kind: str
    weight: float
    image: int
    annotation: int | None
    detection: int
    right: float = 0.0


class Scene(NamedTuple):
    """One image: its objects without crowd regions, and the detections outside of these, the best first.

    Attributes:
        boxes_xywh_px: `[M, 4]` of the objects.
        category: `[M]` of the objects.
        found_xywh_px: `[D, 4]` of the detections.
        found_category: `[D]` of the detections.
        score: `[D]`, descending.
    """

    boxes_xywh_px: np.ndarray
    category: np.ndarray
    found_xywh_px: np.ndarray
    found_category: np.ndarray
    score: np.ndarray


class Contradiction(NamedTuple):
    """Likely mistake in a scene: its kind, weight, position of the object (None where it is missing), detection."""

    kind: str
    weight: float
    place: int | None
    detection: int


def find_suspects(truth: Truth, predictions: Predictions) -> list[Suspect]:
    """All annotations that a model contradicts, the heaviest of each kind first, each annotation once.

    Args:
        truth: the annotations.
        predictions: the model's detections of any score.
    """
    suspects = []
    for image, (objects, detections, scene) in enumerate(iterate_scenes(truth, predictions)):
        for kind, weight, place, detection in contradict(scene):
            annotation = None if place is None else int(objects[place])
            suspects.append(Suspect(kind, weight, image, annotation, int(detections[detection])))
    return sorted(suspects, key=lambda suspect: -suspect.weight)


def iterate_scenes(truth: Truth, predictions: Predictions) -> Iterator[tuple[np.ndarray, np.ndarray, Scene]]:
    """Positions of objects and detections of each image, and its scene; see `find_suspects`."""
    order = np.lexsort((-predictions.score, predictions.image))
    by_image = np.argsort(truth.image, kind="stable")
    numbers = np.arange(len(truth.image_ids) + 1)
    starts, first = (np.searchsorted(images, numbers) for images in (predictions.image[order], truth.image[by_image]))
    for image in range(len(truth.image_ids)):
        detections, objects = order[starts[image] : starts[image + 1]], by_image[first[image] : first[image + 1]]
        crowds, objects = objects[truth.crowd[objects]], objects[~truth.crowd[objects]]
        found = predictions.boxes_xywh_px[detections]
        covered = overlaps(found, truth.boxes_xywh_px[crowds]).max(axis=1, initial=0.0)
        kept = (covered <= SAME_PLACE * found[:, 2:].prod(axis=1)) & (predictions.score[detections] >= LEAST_SCORE)
        detections = detections[kept]
        columns = (predictions.boxes_xywh_px, predictions.category, predictions.score)
        scene = Scene(
            truth.boxes_xywh_px[objects], truth.category[objects], *(column[detections] for column in columns)
        )
        yield objects, detections, scene


def contradict(scene: Scene) -> list[Contradiction]:
    """Whatever the detections of a scene contradict, the heaviest first, each object once."""
    ious = pairwise_iou(scene.found_xywh_px, scene.boxes_xywh_px)
    same = scene.found_category[:, None] == scene.category[None]
    agreed, placed = (
        np.where(same & (ious >= least), scene.score[:, None], 0.0).max(axis=0, initial=0.0)
        for least in (SAME_PLACE, WELL_PLACED)
    )
    well = (same & (ious >= WELL_PLACED)).any(axis=1)
    found: list[Contradiction] = []
    missing: list[int] = []
    for detection in np.flatnonzero(~well).tolist():
        score = float(scene.score[detection])
        own, others = (np.where(of, ious[detection], 0.0) for of in (same[detection], ~same[detection]))
        near, other = (int(of.argmax()) if of.size else UNMATCHED for of in (own, others))
        if own.max(initial=0.0) >= NEAR_IOU and placed[near] < score:
            found.append(Contradiction("place", weigh(score, float(placed[near])), near, detection))
        elif others.max(initial=0.0) >= SAME_PLACE:
            found.append(Contradiction("class", weigh(score, float(agreed[other])), other, detection))
        elif (
            own.max(initial=0.0) < NEAR_IOU
            and others.max(initial=0.0) < APART
            and (pairwise_iou(scene.found_xywh_px[[detection]], scene.found_xywh_px[missing]) < SAME_PLACE).all()
        ):
            missing.append(detection)
            found.append(Contradiction("missing", score, None, detection))
    found.sort(key=lambda contradiction: -contradiction.weight)
    first = {one.place: one for one in reversed(found)}
    return [one for one in found if one.weight > 0 and (one.place is None or first[one.place] is one)]


def weigh(score: float, agreed: float) -> float:
    """Weight of a detection that contradicts an annotation, 0 to 1.

    Args:
        score: of the detection.
        agreed: best score of a detection that agrees with the annotation.
    """
    return max(0.0, score**0.5 * (score - agreed) / (score + agreed))


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
