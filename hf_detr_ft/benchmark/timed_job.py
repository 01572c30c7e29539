"""Comparison of a training with its variants: a few steps of each are timed, in turn, over several rounds."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PrinterCallback, Trainer, set_seed
from transformers.utils import logging as transformers_logging

from hf_detr_ft.benchmark.baseline import build_baseline
from hf_detr_ft.benchmark.stopwatch import WARM_UP, Measurement, Stopwatch, peak_flops
from hf_detr_ft.benchmark.timings_table import Row
from hf_detr_ft.benchmark.variants import BASELINE, OURS, Variant, choose_variants
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.splits import Splits
from hf_detr_ft.errors import first_line
from hf_detr_ft.machine import device_name, give_freed_memory_back, keep_freed_memory, set_cpu_threads
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.training.job import build_job
from hf_detr_ft.training.model_defaults import model_defaults

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PROFILE_ROWS = 15


@dataclass(frozen=True)
class TimedJob:
    """A training, some steps of which are timed.

    Attributes:
        path: the recipe; its run folder is not touched.
        flags: over it.
        splits: its data.
        steps: that are timed.
    """

    path: Path | None
    flags: Sequence[str]
    splits: Splits
    steps: int

    def load_recipe(self, variant: Variant | None = None) -> Recipe:
        """The recipe of a variant, or of the training as it is."""
        return load_recipe(self.path, [*self.flags, *(variant.flags if variant else ())], model_defaults)


def compare_variants(job: TimedJob, rounds: int, breakdown: bool) -> dict[str, Any]:
    """Trains a few steps of each variant, `rounds` times in turn.

    Args:
        job: to compare.
        rounds: number of times that each variant is run.
        breakdown: also run ours without each of its measures.

    Returns:
        The figures of each variant, the job, and the arithmetic that the device does at best, as JSON takes them.
    """
    transformers_logging.disable_progress_bar()
    recipe = job.load_recipe()
    device, precision = recipe.training.device, recipe.training.precision
    set_cpu_threads(recipe.speed.cpu_threads, device.type)
    variants = choose_variants(job.path, job.flags, breakdown)
    rows = {variant.name: Row(variant.name) for variant in variants}
    bar = tqdm(total=rounds * len(rows), desc="benchmark", disable=None)
    for number in range(rounds):
        for variant in variants:
            bar.set_postfix_str(variant.name)
            row = rows[variant.name]
            if row.failure is None:
                try:
                    row.rounds.append(time_variant(job, variant, number))
                except (ArithmeticError, RuntimeError, ValueError) as error:  # such as a NaN of the baseline
                    row.failure = f"{type(error).__name__}: {first_line(error)}"
            bar.update()
    bar.close()
    peaks = {name: peak_flops(device, dtype) for name, dtype in DTYPES.items() if name in ("fp32", precision)}
    return {
        "variants": [rows[variant.name].as_dict(rows[BASELINE], peaks[variant.precision]) for variant in variants],
        "job": _describe(job, recipe, rounds),
        "peak_flops": peaks,
    }


def _describe(job: TimedJob, recipe: Recipe, rounds: int) -> dict[str, Any]:
    """The training and the machine that it was timed on."""
    args, model = recipe.training, recipe.model
    return {
        "data": recipe.data.name,
        "images": len(job.splits.train),
        "model": model.checkpoint or model.backbone,
        "square_edge": model.square_edge,
        "short_side": ImageSize.from_config(model).shortest_edge,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps,
        "precision": args.precision,
        "device": device_name(args.device),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "steps": job.steps,
    }


def time_variant(job: TimedJob, variant: Variant, number: int, profiler: Any = None) -> Measurement:
    """Trains `WARM_UP + job.steps` steps anew and times the last ones.

    Args:
        job: whose steps they are.
        variant: of it.
        number: of the round. Each draws other shapes, as each epoch of a training does: what a CPU prepares for a shape
            would otherwise be there from the round before.
        profiler: torch's, started with the timed steps.
    """
    with TemporaryDirectory() as folder:
        recipe = job.load_recipe(variant)
        recipe = recipe.with_training(
            output_dir=folder,
            max_steps=WARM_UP + job.steps,
            seed=recipe.training.seed + number,
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        set_seed(recipe.training.seed)
        hand_out = give_freed_memory_back if variant.is_baseline else keep_freed_memory
        hand_out(recipe.training.device.type)
        if variant.is_baseline:
            trainer: Trainer = build_baseline(recipe, job.splits, variant.precision)
        else:
            trainer = build_job(recipe, job.splits).trainer
            trainer.remove_callback(PrinterCallback)
        watch = Stopwatch(trainer, profiler and profiler.start)
        trainer.train()
    if profiler is not None:
        profiler.stop()
    measurement = watch.measurement()
    del trainer, watch
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return measurement


def profile_training(job: TimedJob) -> list[dict[str, Any]]:
    """The operators that our steps spend their own time in, those with most of it first."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiler = torch.profiler.profile(activities=activities)
    time_variant(job, Variant(OURS, job.load_recipe().training.precision), 0, profiler)
    attribute = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    spent = {event.key: (getattr(event, attribute), event.count) for event in profiler.key_averages()}
    total = sum(microseconds for microseconds, _ in spent.values())
    operators = sorted(spent, key=lambda key: -spent[key][0])[:PROFILE_ROWS]
    return [
        {"operator": key, "share": spent[key][0] / total, "calls_per_step": spent[key][1] / job.steps}
        for key in operators
    ]
