"""Probes of scale and schedule: objects against cells of the feature map, queries, rates, steps, what is trained."""

import numpy as np
from torch.optim.lr_scheduler import LambdaLR

from hf_detr_ft.data.dataset import count_objects
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.diagnosis.case import Case
from hf_detr_ft.diagnosis.checkpoint_probes import total_steps
from hf_detr_ft.diagnosis.finding import Finding
from hf_detr_ft.formatting import percent
from hf_detr_ft.model.stages import feature_stride
from hf_detr_ft.training.model_defaults import model_defaults

MOST = 0.5
"""Share of the objects from which on those that cannot be found keep AP low."""
DETR_RATE = 1e-4
TIMES = 20
"""Factor between a rate and its original's from which on it is not a choice but a slip."""
LEAST_WAY = 0.002
"""Rate times steps below which AdamW, which moves a weight by about its rate a step, leaves a class head as it is."""
PLACES = 200
"""Steps at which the schedule is looked at."""


def small_objects(case: Case) -> Finding | None:
    """Objects most of which are narrower than a cell of the finest feature map."""
    stride, size = feature_stride(case.model), ImageSize.from_processor(case.processor)
    split = case.splits.statistics["training"].resized(size, stride)
    if split.below_cell < MOST * split.objects:
        return None
    return Finding(
        f"most objects are smaller than a cell of the feature map: {percent(split.below_cell / split.objects)} of them",
        f"a cell is {stride} pixels of the resized image; {split.below_cell} of {split.objects} training objects have "
        f"a shorter short side, the median one is {np.median(split.short_sides_px):.1f} pixels",
        "raise model.shortest_edge or model.square_edge, cut the images into tiles, or take a model of finer maps",
    )


def crowded_images(case: Case) -> Finding | None:
    """Images with so many more objects than the model has queries that most objects are never found."""
    queries, counts = int(case.model.config.num_queries), count_objects(case.splits.train)
    over = int((counts - queries).clip(0).sum())
    if over < MOST * counts.sum():
        return None
    return Finding(
        "images have more objects than the model has queries",
        f"{queries} queries, and up to {counts.max()} objects on an image: {over} of {counts.sum()} training objects "
        "are left out",
        f"cut the images up, or set model.num_queries to {counts.max()} or more",
    )


def frozen_model(case: Case) -> Finding | None:
    """Training that changes nothing, or not the class heads."""
    groups = case.job.trainer.create_optimizer().param_groups
    moved = sum(sum(weight.numel() for weight in group["params"]) for group in groups if group["lr"] > 0)
    rest = any(group["lr"] > 0 and not group["name"].startswith("backbone") for group in groups)
    if rest:
        return None
    args = case.job.trainer.args
    return Finding(
        "everything is frozen" if not moved else "transformer and class heads are frozen",
        f"rates above 0 have {moved:,} parameters, none of them outside of the backbone: training.learning_rate is "
        f"{args.learning_rate:g}, training.backbone_learning_rate {args.backbone_learning_rate:g}, "
        f"model.trainable_stages {case.recipe.model.trainable_stages}",
        f"set training.learning_rate, such as {usual_rate(case):g}",
    )


def high_rates(case: Case) -> Finding | None:
    """Rates far above those of the model's original, with which weights are lost in the first steps."""
    args, usual = case.job.trainer.args, usual_rate(case)
    for name in ("learning_rate", "backbone_learning_rate"):
        rate = getattr(args, name)
        if rate > TIMES * usual and not case.model.family.masks:
            return Finding(
                f"training.{name} is {rate / usual:.0f} times as high as the original's",
                f"{case.model.family.name} was trained with {usual:g}; found {rate:g}. At rates far above the "
                "usual a transformer forgets what it knows",
                f"set training.{name} to {usual:g}, or twice that",
                is_sure=False,
            )
    return None


def short_way(case: Case) -> Finding | None:
    """Rates that are so low, or steps so few, that the weights stay where they are."""
    args, steps, usual = case.job.trainer.args, total_steps(case), usual_rate(case)
    rate, share = float(args.learning_rate), _mean_factor(case, steps)
    if rate * share * steps >= LEAST_WAY:
        return None
    way, wanted = f"{rate * share * steps:.2g}", 10 * LEAST_WAY
    factor = f" times {share:.2g}, the mean of the schedule," if share < 0.5 else ""
    evidence = (
        f"AdamW moves a weight by about its rate a step: {steps:,} steps of {rate:g}{factor} come to {way} in all, and "
        f"a new class head needs {wanted:g} or more"
    )
    if rate < usual / TIMES:
        cause = f"training.learning_rate is {usual / rate:.0f} times as low as the original's"
        return Finding(cause, evidence, f"set training.learning_rate to {usual:g}", is_sure=False)
    remedy = f"train for {int(np.ceil(wanted / rate)):,} steps or more: raise training.num_train_epochs"
    if factor:
        remedy += ", and lower training.warmup_steps"
    return Finding("there are too few steps", evidence, remedy, is_sure=False)


def usual_rate(case: Case) -> float:
    """The rate of the original's transformer, DETR's where it says none."""
    return float(model_defaults(case.recipe.model, ()).get("training.learning_rate", DETR_RATE))


def _mean_factor(case: Case, steps: int) -> float:
    """Mean over the training of the factor that the schedule puts on the rates; 1 where it depends on results."""
    trainer = case.job.trainer
    trainer.create_optimizer()
    schedule = trainer.create_scheduler(max(1, steps))
    if not isinstance(schedule, LambdaLR):
        return 1.0
    factor = schedule.lr_lambdas[0]
    return float(np.mean([factor(int(step)) for step in np.linspace(0, max(0, steps - 1), PLACES)]))
