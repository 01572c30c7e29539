"""Probes of a run's log: whether the loss is finite and falls, and which parts of it do."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_detr_ft.diagnosis.case import Case
from hf_detr_ft.diagnosis.finding import Finding

PARTS = ("loss", "class_error", "loss_giou")
FEW = 6
"""Log entries below which no course is seen in them."""
FALLEN = 0.85
"""Share of its start that a part of the loss comes down to where something is learned."""
ERRING = 40.0
"""Class error in percent that is far from right."""
RISEN = 1.5


def read_losses(history: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Parts of the loss at the logging steps of a training, by name, as far as they were logged."""
    entries = [entry for entry in history if "loss" in entry]
    return {
        name: np.array([entry[name] for entry in entries], dtype=np.float64)
        for name in PARTS
        if all(name in e for e in entries)
    }


def ends(values: np.ndarray) -> tuple[float, float]:
    """Means of the first and of the last quarter."""
    count = max(1, len(values) // 4)
    return float(values[:count].mean()), float(values[-count:].mean())


def describe_parts(losses: Mapping[str, np.ndarray]) -> str:
    """Course of each part, for people."""
    courses = []
    for name, values in losses.items():
        if len(values):
            first, last = ends(values)
            courses.append(f"{name} {first:.3g} at first, {last:.3g} at last")
    return "; ".join(courses)


def wild_loss(case: Case) -> Finding | None:
    """A loss that is no number, or rises."""
    losses = read_losses(case.loaded.history if case.loaded else [])
    values = losses.get("loss", np.zeros(0))
    if not len(values):
        return None
    first, last = ends(values)
    if math.isfinite(last) and (len(values) < FEW or last < RISEN * first):
        return None
    return Finding(
        "the loss is not finite" if not math.isfinite(last) else "the loss rises",
        describe_parts(losses),
        "lower training.learning_rate, give training.warmup_steps, or set training.bf16 and training.fp16 to false",
    )


def unlearned_parts(case: Case) -> Finding | None:
    """Boxes that are learned while classes are not, the other way round, or neither."""
    losses = read_losses(case.loaded.history if case.loaded else [])
    if set(losses) != set(PARTS) or len(losses["loss"]) < FEW:
        return None
    (class_first, class_last), (box_first, box_last) = ends(losses["class_error"]), ends(losses["loss_giou"])
    classes = class_last < ERRING or class_last < FALLEN * class_first
    boxes = box_last < FALLEN * box_first
    if classes and boxes:
        return None
    if boxes:
        cause = "boxes are learned, classes are not: labels probably contradict the images"
        remedy = "look whether class names fit what is in the boxes: `hf-detr-ft check --report`"
    elif classes:
        cause = "classes are learned, boxes are not: boxes probably are not where the objects are"
        remedy = "look whether boxes fit the objects: `hf-detr-ft check --report`"
    else:
        cause = "nothing is learned: neither boxes nor classes"
        remedy = "train for more steps, or at a higher rate; start from a detector that was pretrained"
    return Finding(cause, describe_parts(losses), remedy, is_sure=False)
