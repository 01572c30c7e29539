"""Summaries of a training for the terminal: before it begins, and of its result."""

import json
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from datasets import Dataset

from hf_detr_ft.data.dataset import count_objects, read_column
from hf_detr_ft.data.splits import Splits
from hf_detr_ft.evaluation.coco_result import CocoResult
from hf_detr_ft.formatting import join_limited, printable
from hf_detr_ft.model.build import count_parameters
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.stages import summarise_trainable
from hf_detr_ft.run_folder import CARD, METRICS, RESULTS, RunFolder
from hf_detr_ft.training.job import Job

NEARLY_0 = 0.05
"""AP below which somebody will ask why."""


def describe_job(job: Job) -> str:
    """Data, model and length of a training, for the terminal."""
    recipe, splits, args = job.recipe, job.splits, job.trainer.args
    model = cast(Detector, job.trainer.model)
    warnings = len(splits.problems)
    name, train, val = printable(recipe.data.name), len(splits.train), len(splits.val)
    test = f"; {len(splits.test.rows)} test images are evaluated at the end" if splits.test else ""
    names = ", ".join(map(printable, splits.label_map.names[:5])) + (", …" if len(splits.label_map) > 5 else "")
    length = f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs"
    start = recipe.model.checkpoint or recipe.model.backbone
    lines = [
        f"data      {name}: {train} training and {val} validation images{test}",
        *(f"          {printable(note)}" for note in splits.notes),
        f"          classes ({len(splits.label_map)}): {names}",
        *([f"          warnings: {warnings}; `hf-detr-ft check` lists them"] if warnings else []),
        f"model     {start}: {count_parameters(model) / 1e6:.1f} M parameters",
        f"          {summarise_trainable(model)}",
        *_reused_classes(model),
        f"training  {length} of batches of {args.train_batch_size}"
        f" x {args.gradient_accumulation_steps} accumulated x {args.world_size} processes on {args.device.type}, "
        f"{recipe.training.precision}",
        *([f"average   of the weights, decay {args.ema_decay:g}: evaluated, saved"] if args.ema_decay else []),
        *(f"chosen    {name} {json.dumps(choice.value)}: {choice.why}" for name, choice in recipe.choices.items()),
        f"run       {recipe.training.output_dir}",
    ]
    return "\n".join([*lines, *_too_many_objects(splits, model.config.num_queries, recipe.evaluation.max_detections)])


def _reused_classes(model: Detector) -> Iterator[str]:
    """One line on classes that begin with the checkpoint's rows; none where there are none."""
    if model.reused_classes:
        pairs = [name if name == old else f"{name} (as {old})" for name, old in model.reused_classes.items()]
        yield f"          known already: {printable(join_limited(pairs))}"


def _too_many_objects(splits: Splits, queries: int, max_detections: int) -> Iterator[str]:
    """Warnings of images with more objects than the model can find, or than can count as found."""
    for split, dataset, fate in (("training", splits.train, "learned"), ("validation", splits.val, "found")):
        yield from _crowded(
            f"{split} images have more objects than the model queries, {queries}",
            dataset,
            count_objects(dataset) - queries,
            queries,
            f"of them are never {fate}. Cut such images up, or set model.num_queries to",
        )
    yield from _crowded(
        f"validation images have more objects of a class than detections count, {max_detections}",
        splits.val,
        count_objects(splits.val, of_one_class=True) - max_detections,
        max_detections,
        "of them count as missed. For an AP of all beside COCO's set evaluation.max_detections to",
    )


def _crowded(what: str, dataset: Dataset, excess: np.ndarray, limit: int, remedy: str) -> Iterator[str]:
    """One line on images with so many objects in excess `[N]` of a limit; none where there are no such images."""
    images, worst = int((excess > 0).sum()), int(excess.argmax())
    if images:
        name, over = printable(read_column(dataset.select([worst]), "file_name")[0]), int(excess[excess > 0].sum())
        most = limit + int(excess[worst])
        yield f"warning   {images} of {len(excess)} {what} (the most, {most}, {name}): {over} {remedy} {most} or more."


def summarise_job(job: Job, run: RunFolder, seconds: float) -> str:
    """The result of a finished training, and what to do next, for the terminal."""
    best, last = job.results.best, job.results.last
    if best is None:
        return f"no evaluation took place (training.eval_strategy: no); weights and processor are in {run}"
    keeps_best = job.trainer.args.load_best_model_at_end
    kept, which = (best, "best") if keeps_best else (last or best, "last")
    shown = {"AP": best["metrics"]["map"], "AP50": best["metrics"]["map_50"]}
    if best.get("mask_metrics"):
        shown["mask AP"] = best["mask_metrics"]["mask_map"]
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in shown.items())
    return (
        f"\nthe best weights, of epoch {best['epoch']:.4g}:\n{CocoResult.from_dict(best).table()}\n"
        f"\nbest {numbers} in epoch {best['epoch']:.4g} "
        f"({seconds:.0f} s until here)\n{_describe_test(job.results.about.get('test'))}"
        f"run folder  {run}  (weights of the {which} evaluation, {METRICS}, {RESULTS}, {CARD})\n"
        f"look at it  hf-detr-ft predict {run} PHOTO_OR_FOLDER --threshold {kept['best_f1']['threshold']:.3f}\n"
        f"publish it  hf-detr-ft push {run} USER/NAME"
        + (f"\nwhy so low  hf-detr-ft diagnose {run}" if kept["metrics"]["map"] < NEARLY_0 else "")
    )


def _describe_test(test: dict[str, Any] | None) -> str:
    """A line on the test split, where it was evaluated."""
    if test is None:
        return ""
    numbers = f"AP {test['metrics']['map']:.3f}, AP50 {test['metrics']['map_50']:.3f}"
    return f"test {numbers} of the weights that are kept, on {test['images']} images that chose nothing\n"
