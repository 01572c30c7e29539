"""`hf-detr-ft benchmark RECIPE`: training on the user's own data by stock Transformers and by ours, timed in turn."""

import json
from collections.abc import Sequence
from pathlib import Path

from hf_detr_ft.atomic import check_output_file, write_json
from hf_detr_ft.data.find_data import require_annotations
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.importing import large_imports
from hf_detr_ft.recipe.files import check_early, load_recipe
from hf_detr_ft.recipe.rules import require_sound


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
        rounds: number of times that each variant is run.
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
    check_early(path, flags, require_annotations("train", "val"))
    with large_imports():
        from hf_detr_ft.benchmark.timed_job import TimedJob, compare_variants, profile_training
        from hf_detr_ft.benchmark.timings_table import render_timings
        from hf_detr_ft.data.image_size import ImageSize
        from hf_detr_ft.data.splits import load_splits
        from hf_detr_ft.machine import describe_environment
        from hf_detr_ft.training.choose_preset import apply_preset
        from hf_detr_ft.training.job import prepare_trial, show_progress
        from hf_detr_ft.training.model_defaults import model_defaults

    recipe = load_recipe(path, flags, model_defaults)
    require_sound(recipe)
    if recipe.data.streaming:
        raise RecipeError("data.streaming: expected images at hand, which every variant reads anew. Set it to false.")
    splits = load_splits(recipe.data, ImageSize.from_config(recipe.model), show_progress, recipe.masks)
    choices = apply_preset(recipe, splits, prepare_trial).choices
    chosen = [part for name, choice in choices.items() for part in (f"--{name}", json.dumps(choice.value))]
    job = TimedJob(path, [*flags, *chosen], splits, steps)
    figures = compare_variants(job, rounds, breakdown)
    if profile:
        figures["profile"] = profile_training(job)
    print("\n".join(render_timings(figures)))
    if output is not None:
        write_json(output, {**figures, "made_with": describe_environment(job.splits.fingerprints)})
        print(f"written: {output}")
    return 0
