"""`hf-detr-ft benchmark RECIPE`: training on the user's own data by stock Transformers and by ours, timed in turn."""

import gc
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PrinterCallback, Trainer, set_seed
from transformers.utils import logging as transformers_logging

from hf_detr_ft.atomic import check_output_file, write_json
from hf_detr_ft.benchmark.baseline import build_stock
from hf_detr_ft.benchmark.stopwatch import WARM_UP, Measurement, Stopwatch, peak_flops
from hf_detr_ft.benchmark.timings_table import Row, render
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.splits import Splits, load_splits
from hf_detr_ft.errors import RecipeError, first_line
from hf_detr_ft.machine import describe_environment, device_name, set_cpu_threads
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.rules import require_sound
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.training.data_pipeline import choose_size_step, store_splits
from hf_detr_ft.training.job import build_job, show_progress

STOCK = "stock"
STOCK_FASTER = "stock, {}"
OURS = "ours"
ALONE: dict[str, Sequence[str]] = {
    "frozen norms not folded": ["--speed.fold_frozen_norms", "false"],
    "not channels last": ["--speed.channels_last", "false"],
    "attention in bf16": ["--speed.fp32_attention", "false"],
    "fp32": ["--training.bf16", "false", "--training.fp16", "false"],
    "all stages trained": ["--model.trainable_stages", "[all]"],
    "random batches": ["--training.train_sampling_strategy", "random"],
    "shapes as they come": ["--speed.size_step", "1"],
    "photos not kept": ["--speed.store_gigabytes", "0"],
    "photos decoded whole": ["--speed.store_gigabytes", "0", "--speed.reduced_decoding", "false"],
    "not compiled": ["--speed.compile_backbone", "false"],
}
"""Our measures, each taken back alone by these flags."""
ON_A_CPU = {"attention in bf16"}
IN_MIXED_PRECISION = {"attention in bf16", "fp32"}
WHERE_SIZES_ARE_ROUNDED = {"shapes as they come"}
"""Measures that change something only there."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""In which the arithmetic of the device is measured."""
PROFILE_ROWS = 15


def benchmark(
    path: Path | None,
    flags: Sequence[str],
    rounds: int,
    steps: int,
    output: Path | None = None,
    breakdown: bool = True,
    profile: bool = False,
) -> int:
    """Trains a few steps of each variant, `rounds` times in turn, and prints a table.

    Args:
        path: the recipe; its run folder is not touched.
        flags: over it.
        rounds: how often each variant is run.
        steps: that are timed in each.
        output: a JSON file for the figures.
        breakdown: also run ours without each of its measures.
        profile: also run ours under torch's profiler, and print where its time goes.

    Raises:
        RecipeError: an argument is out of range.
    """
    for name, value in (("rounds", rounds), ("steps", steps)):
        if value < 1:
            raise RecipeError(f"--{name}: expected at least 1, found {value}")
    check_output_file(output)
    transformers_logging.disable_progress_bar()
    recipe = load_recipe(path, flags)
    require_sound(recipe)
    args = recipe.training
    set_cpu_threads(recipe.speed.cpu_threads, args.device.type)
    splits = load_splits(recipe.data, ImageSize.from_config(recipe.model), show_progress)
    variants = _variants(path, flags, recipe, breakdown)
    rows = {name: Row(name) for name in variants}
    bar = tqdm(total=rounds * len(rows), desc="benchmark", disable=None)
    for number in range(rounds):
        for name, changes in variants.items():
            bar.set_postfix_str(name)
            if rows[name].failure is None:
                try:
                    rows[name].rounds.append(run_variant(name, path, [*flags, *changes], splits, steps, number))
                except (ArithmeticError, RuntimeError, ValueError) as error:  # such as stock's NaN, shown in the table
                    rows[name].failure = f"{type(error).__name__}: {first_line(error)}"
            bar.update()
    bar.close()
    peaks = {name: peak_flops(args.device, dtype) for name, dtype in DTYPES.items() if name in ("fp32", args.precision)}
    precise = (STOCK, f"{OURS}, fp32")
    figures: dict[str, Any] = {
        "variants": [
            row.as_dict(rows[STOCK], peaks["fp32" if name in precise else args.precision]) for name, row in rows.items()
        ],
        "job": describe_benchmark(recipe, splits, rounds, steps),
        "peak_flops": peaks,
    }
    if profile:
        figures["profile"] = profile_ours(path, flags, splits, steps)
    print("\n".join(render(figures)))
    if output is not None:
        write_json(output, {**figures, "made_with": describe_environment(splits.fingerprints)})
        print(f"written: {output}")
    return 0


def describe_benchmark(recipe: Recipe, splits: Splits, rounds: int, steps: int) -> dict[str, Any]:
    """What is timed, and on what."""
    args, model = recipe.training, recipe.model
    return {
        "data": recipe.data.name,
        "images": len(splits.train),
        "model": model.checkpoint or model.backbone,
        "short_side": ImageSize.from_config(model).shortest_edge,
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps,
        "precision": args.precision,
        "device": device_name(args.device),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "steps": steps,
    }


def _variants(path: Path | None, flags: Sequence[str], recipe: Recipe, breakdown: bool) -> dict[str, list[str]]:
    """Names and flags: stock, stock in our precision, ours, and ours without each measure that the recipe takes."""
    precision = recipe.training.precision
    variants: dict[str, list[str]] = {STOCK: []}
    if breakdown and precision != "fp32":
        variants[STOCK_FASTER.format(precision)] = []
    variants[OURS] = []
    applies = (
        (ON_A_CPU, recipe.training.device.type == "cpu"),
        (IN_MIXED_PRECISION, precision != "fp32"),
        (WHERE_SIZES_ARE_ROUNDED, choose_size_step(recipe) > 1),
    )
    idle = {name for measures, applied in applies if not applied for name in measures}
    for name, changes in ALONE.items() if breakdown else ():
        if name not in idle and load_recipe(path, [*flags, *changes]).resolved != recipe.resolved:
            variants[f"{OURS}, {name}"] = list(changes)
    return variants


def run_variant(
    name: str,
    path: Path | None,
    flags: Sequence[str],
    splits: Splits,
    steps: int,
    number: int,
    profiler: Any = None,
) -> Measurement:
    """Trains `WARM_UP + steps` steps anew and times the last ones.

    Each round, by its `number`, draws other shapes, as each epoch of a training does: what a CPU prepares for a shape
    would otherwise be there from the round before.
    """
    recipe = load_recipe(path, flags)
    args = recipe.training
    args.report_to, args.disable_tqdm = [], True
    args.eval_strategy = args.save_strategy = "no"
    args.load_best_model_at_end, args.logging_strategy = False, "no"
    args.max_steps = WARM_UP + steps
    with TemporaryDirectory() as folder:
        args.output_dir = folder
        args.seed += number
        set_seed(args.seed)
        if name.startswith(OURS):
            trainer: Trainer = build_job(recipe, splits, store_splits(recipe, splits)).trainer
            trainer.remove_callback(PrinterCallback)
        else:
            trainer = build_stock(recipe, splits, args.precision if name != STOCK else "fp32")
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


def profile_ours(path: Path | None, flags: Sequence[str], splits: Splits, steps: int) -> list[dict[str, Any]]:
    """The operators that our steps spend their own time in, most first."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiler = torch.profiler.profile(activities=activities)
    run_variant(OURS, path, flags, splits, steps, 0, profiler)
    attribute = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    spent = {event.key: (getattr(event, attribute), event.count) for event in profiler.key_averages()}
    total = sum(microseconds for microseconds, _ in spent.values())
    operators = sorted(spent, key=lambda key: -spent[key][0])[:PROFILE_ROWS]
    return [
        {"operator": key, "share": spent[key][0] / total, "calls_per_step": spent[key][1] / steps} for key in operators
    ]
