"""The table of probes, in the order of likelihood, and going through it up to the first that finds a cause."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from hf_detr_ft.diagnosis.case import Case
from hf_detr_ft.diagnosis.checkpoint_probes import (
    other_preprocessing,
    pixel_values,
    untrained_transformer,
    unusable_model,
)
from hf_detr_ft.diagnosis.data_probes import (
    box_order,
    crowded_truth,
    data_errors,
    ids_off_by_one,
    unlearned_classes,
    unreadable_data,
)
from hf_detr_ft.diagnosis.features import meaningless_labels, other_validation
from hf_detr_ft.diagnosis.finding import Finding
from hf_detr_ft.diagnosis.known_classes import contradicted_labels, contradicted_validation
from hf_detr_ft.diagnosis.log_probes import unlearned_parts, wild_loss
from hf_detr_ft.diagnosis.overfit import overfit
from hf_detr_ft.diagnosis.result_probes import high_threshold, unlike_training
from hf_detr_ft.diagnosis.schedule_probes import crowded_images, frozen_model, high_rates, short_way, small_objects

Probe = Callable[[Case], Finding | None]


class Stage(NamedTuple):
    """Probes that look at one thing."""

    name: str
    looks_at: str
    probes: tuple[Probe, ...]
    skips: tuple[Callable[[Case], str], ...] = ()
    """Reasons to leave it out; empty texts are none."""


class Step(NamedTuple):
    """A stage that is done: left out for a reason, with a finding, or with none."""

    stage: Stage
    skipped: str
    finding: Finding | None


def _learned(case: Case) -> str:
    return f"the run's AP50 is {case.ap_50:.2f}" if case.has_learned else ""


def _no_run(case: Case) -> str:
    return "" if case.run is not None else "no run was given"


def _streamed(case: Case) -> str:
    return "training images are streamed" if case.splits.pieces else ""


STAGES = (
    Stage(
        "data",
        "ids, formats, files, sizes, boxes, classes, crowd regions",
        (unreadable_data, ids_off_by_one, box_order, data_errors, unlearned_classes, crowded_truth),
    ),
    Stage(
        "checkpoint",
        "what is loaded, whether it was trained, how images are prepared",
        (unusable_model, untrained_transformer, pixel_values, other_preprocessing),
        (_learned,),
    ),
    Stage("scale", "objects against cells and queries", (small_objects, crowded_images), (_learned,)),
    Stage("schedule", "frozen parts, rates, steps", (frozen_model, high_rates, short_way), (_learned,)),
    Stage("labels", "what the checkpoint sees of classes that it knows", (contradicted_labels,), (_learned, _streamed)),
    Stage("overfit", "four training images, learned by heart", (overfit,), (_learned, _streamed)),
    Stage("losses", "class error and boxes over the run", (wild_loss, unlearned_parts), (_no_run, _learned)),
    Stage("looks", "whether objects that look alike have one class", (meaningless_labels,), (_learned, _streamed)),
    Stage("threshold", "scores of what is right", (high_threshold,), (_no_run,)),
    Stage(
        "evaluation",
        "classes of what is found, validation beside training",
        (contradicted_validation, other_validation, unlike_training),
        (_learned,),
    ),
)


def diagnose(case: Case) -> Iterator[Step]:
    """Goes through the stages, and ends behind the first that finds a cause."""
    for stage in STAGES:
        skipped = next(filter(None, (skip(case) for skip in stage.skips)), "")
        found = None if skipped else next(filter(None, (probe(case) for probe in stage.probes)), None)
        yield Step(stage, skipped, found)
        if found is not None:
            return
