"""The suspects that are worth a look: how far down a list is right, estimated with mistakes that are made on purpose.

How much a weight says depends on model and data: of a model that takes one thing for another, contradicted classes say
little; of one that finds what is not there, missing objects do. So annotations are spoilt one by one, which takes no
run of the model, and looked for again: the share that comes back with a weight or more is the recall there. As many
suspects as have that weight, divided by this recall, are at least as many as there are mistakes, and the least quotient
over all weights is taken for their number. (It is the estimate of a mixture's proportion of Blanchard, Lee and Scott,
"Semi-supervised novelty detection", JMLR 11, 2010.)
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hf_detr_ft.evaluation.suspects import (
    KINDS,
    SAME_PLACE,
    Scene,
    Suspect,
    contradict,
    find_suspects,
    iterate_scenes,
    pairwise_iou,
)
from hf_detr_ft.evaluation.truth import Predictions, Truth

SAMPLE = 1000
"""Annotations that are spoilt, each in every way."""
FEW = 3
"""Suspects from which on their number is taken to say something of the number of mistakes."""
SHIFT = (0.4, 0.8)
"""Least and largest shift of a box, as a share of its side."""


def find_worst_suspects(truth: Truth, predictions: Predictions) -> list[Suspect]:
    """Annotations that are likely wrong, the surest first, as many of each kind as makes the best F1 by the estimate.

    Args:
        truth: the annotations.
        predictions: the model's detections of any score.
    """
    suspects, spoilt = find_suspects(truth, predictions), spoil_each(truth, predictions)
    worst: list[Suspect] = []
    for kind in KINDS:
        of_kind = [suspect for suspect in suspects if suspect.kind == kind]
        recall = recall_at(spoilt[kind], np.array([suspect.weight for suspect in of_kind]))
        right, listed = estimate_right(recall, int((~truth.crowd).sum()))
        worst += [replace(suspect, right=float(share)) for suspect, share in zip(of_kind[:listed], right, strict=False)]
    return sorted(worst, key=lambda suspect: (-suspect.right, -suspect.weight))


def recall_at(spoilt: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the spoilt annotations that are found with these weights or more, `[S]`.

    Args:
        spoilt: `[N]`, weights with which annotations that were spoilt in one way are found; 0 where they are not.
        weights: `[S]`, descending.
    """
    return 1 - np.searchsorted(np.sort(spoilt), weights) / max(len(spoilt), 1)


def estimate_right(recall: np.ndarray, objects: int) -> tuple[np.ndarray, int]:
    """Estimated share of right ones among the first suspects of a list, `[S]`, not rising, and how many are worth it.

    Args:
        recall: `[S]`, share of mistakes that as much weight finds as each suspect of the list has.
        objects: that are annotated.
    """
    counts = np.arange(1, len(recall) + 1)
    if not len(recall) or not recall.any():
        return np.zeros(len(recall)), 0
    most = (counts + counts**0.5) / np.maximum(recall, 1e-9)  # a deviation more, since few are counted
    mistakes = min(float(most[min(FEW, len(most)) - 1 :].min()), float(objects))
    right = np.minimum(mistakes * recall, counts)
    return np.minimum.accumulate(right / counts), int(np.argmax(2 * right / (counts + mistakes))) + 1


def spoil_each(truth: Truth, predictions: Predictions) -> dict[str, np.ndarray]:
    """Weights with which annotations that are spoilt one by one come back, `[N]` by kind; 0 of those that do not.

    Args:
        truth: the annotations, of which a sample is spoilt.
        predictions: see `find_worst_suspects`.
    """
    generator = np.random.default_rng(0)
    objects = np.flatnonzero(~truth.crowd)
    chosen = set(generator.permutation(objects)[:SAMPLE].tolist())
    weights: dict[str, list[float]] = {kind: [] for kind in KINDS}
    spoil: dict[str, Callable[[Scene, int, np.random.Generator], Scene]] = {"missing": _remove, "place": _shift}
    if len(truth.names) > 1:
        spoil["class"] = lambda scene, place, random: _relabel(scene, place, random, len(truth.names))
    for positions, _, scene in iterate_scenes(truth, predictions):
        for place in [place for place, position in enumerate(positions.tolist()) if position in chosen]:
            for kind, change in spoil.items():
                weights[kind].append(_weight_of(change(scene, place, generator), kind, place, scene))
    return {kind: np.array(found) for kind, found in weights.items()}


def _remove(scene: Scene, place: int, generator: np.random.Generator) -> Scene:
    left = np.arange(len(scene.category)) != place
    return scene._replace(boxes_xywh_px=scene.boxes_xywh_px[left], category=scene.category[left])


def _relabel(scene: Scene, place: int, generator: np.random.Generator, classes: int) -> Scene:
    category = scene.category.copy()
    category[place] = (category[place] + generator.integers(1, classes)) % classes
    return scene._replace(category=category)


def _shift(scene: Scene, place: int, generator: np.random.Generator) -> Scene:
    boxes, side = scene.boxes_xywh_px.copy(), int(generator.integers(2))
    boxes[place, side] += generator.choice([-1, 1]) * generator.uniform(*SHIFT) * boxes[place, 2 + side]
    return scene._replace(boxes_xywh_px=boxes)


def _weight_of(spoilt: Scene, kind: str, place: int, scene: Scene) -> float:
    """Weight of the suspect that a spoilt annotation is."""
    for found in contradict(spoilt):
        if found.kind == kind:
            box = scene.found_xywh_px[[found.detection]]
            there = pairwise_iou(box, scene.boxes_xywh_px[[place]])[0, 0] >= SAME_PLACE
            if found.place == place or (found.place is None and there):
                return found.weight
    return 0.0
