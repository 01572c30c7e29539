"""`hf-detr-ft average RUN`: the mean of the weights of a run's last checkpoints, evaluated, in a folder of its own."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from hf_detr_ft.atomic import is_free, write_bytes, write_folder, write_json
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.formatting import join_limited
from hf_detr_ft.hub import write_model_card
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.run_folder import CONFIG, LOG, PROCESSOR, WEIGHTS, RunFolder, read_object
from hf_detr_ft.training.checkpoints import checkpoint_faults
from hf_detr_ft.training.evaluate_model import evaluate_model
from hf_detr_ft.training.weight_average import average_files

LEAST = 2
"""Checkpoints that have a mean."""


def average(source: Path, flags: Sequence[str] = (), last: int | None = None, output: Path | None = None) -> int:
    """Writes a folder like a run's, with the mean of its last checkpoints' weights, and prints AP beside the run's.

    Args:
        source: the run folder; nothing in it changes.
        flags: over its recipe, such as `--data.root`.
        last: checkpoints to take; all that are kept and whole where not given.
        output: the new folder; beside the run's, with `_average` behind its name, where not given.

    Returns:
        0.

    Raises:
        RecipeError: it is no run folder, there are too few checkpoints, or the new folder is not free.
    """
    run, output = RunFolder(source), output or source.with_name(f"{RunFolder(source).name}_average")
    if not run.recipe.is_file():
        raise RecipeError(f"'{source}': expected a run folder, found no {run.recipe.name} in it. Name one of `train`.")
    if not is_free(output):
        raise RecipeError(f"--output: expected a folder that is empty or not there, found {output}. Give another one.")
    chosen = choose_checkpoints(run, last)
    recipe = load_recipe(run.recipe, flags)
    with write_folder(output) as folder:
        made = RunFolder(folder)
        save_file(average_files(chosen), folder / WEIGHTS, metadata={"format": "pt"})
        for name in (CONFIG, PROCESSOR):
            shutil.copyfile((chosen[0] if name == CONFIG else source) / name, folder / name)
        for kept in (run.recipe, run.splits):
            if kept.is_file():
                shutil.copyfile(kept, folder / kept.name)
        ap = write_evaluation(made, run, recipe, chosen)
    write_model_card(output)
    before = run.read_metrics()
    kept_evaluation = before.get("best" if recipe.training.load_best_model_at_end else "last")
    print(f"average   of {join_limited([path.name for path in chosen])}: AP {ap:.3f} on validation")
    if kept_evaluation:
        which = "the best of its evaluations" if recipe.training.load_best_model_at_end else "the last evaluation"
        print(f"the run   AP {kept_evaluation['metrics']['map']:.3f}, {which}")
    print(f"written:  {output}")
    return 0


def choose_checkpoints(run: RunFolder, last: int | None) -> list[Path]:
    """The newest whole checkpoints of a run, the newest first.

    Raises:
        RecipeError: there are fewer than asked for, or than two.
    """
    whole = [path for path in run.checkpoints() if not checkpoint_faults(path)]
    wanted = LEAST if last is None else last
    if wanted < LEAST:
        raise RecipeError(f"--last: expected {LEAST} checkpoints or more, found {last}")
    if len(whole) < wanted:
        raise RecipeError(
            f"'{run}': expected at least {wanted} whole checkpoints, found {len(whole)}. Train with more of them kept: "
            f"--training.save_total_limit {max(wanted, 5)}, or null for all."
        )
    return whole[:last]


def write_evaluation(made: RunFolder, run: RunFolder, recipe: Recipe, chosen: Sequence[Path]) -> float:
    """Evaluates the weights in a new folder, writes what belongs to them and returns their AP."""
    found = evaluate_model(str(made), recipe)
    log = read_object(chosen[0] / LOG)
    steps = sorted(int(read_object(path / LOG)["global_step"]) for path in chosen)
    evaluation: dict[str, Any] = {"epoch": log["epoch"], "step": steps[-1], "average_of": steps}
    evaluation |= found.result.as_dict()
    about = {name: value for name, value in run.read_metrics().items() if name not in ("best", "last", "test")}
    write_json(made.metrics, {"best": evaluation, "last": evaluation, **about})
    write_bytes(made.detections, found.detections.to_npz())
    return found.result.metrics["map"]
