"""`hf-detr-ft train RECIPE`: from a recipe to a run folder."""

import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch._dynamo.exc import BackendCompilerFailed
from transformers import set_seed
from transformers.utils import logging as transformers_logging

from hf_detr_ft.data.splits import Splits, load_splits
from hf_detr_ft.errors import CheckpointError, RecipeError, TrainingError, first_line
from hf_detr_ft.evaluation.coco_result import CocoResult
from hf_detr_ft.hub import check_access, push_run, write_model_card
from hf_detr_ft.machine import describe_environment, peak_memory, set_cpu_threads
from hf_detr_ft.model.build import build_model
from hf_detr_ft.recipe.files import load_recipe, save_recipe
from hf_detr_ft.recipe.sections import DetrTrainingArguments, Recipe
from hf_detr_ft.report.predictions_sheet import draw_predictions
from hf_detr_ft.report.write_report import write_run_page
from hf_detr_ft.run_folder import CARD, METRICS, RESULTS, RunFolder, find_checkpoint
from hf_detr_ft.training.callbacks import RunFolderCallback, log_picture, restore_detections
from hf_detr_ft.training.data_pipeline import store_splits
from hf_detr_ft.training.job import ModelBuilder, build_trainer, describe_job, show_progress
from hf_detr_ft.training.trainer import DetrTrainer


def train(path: Path | None, flags: Sequence[str] = (), model_builder: ModelBuilder = build_model) -> int:
    """Trains, evaluates and writes the run folder.

    Args:
        path: the recipe.
        flags: over it, such as `--training.learning_rate 5e-5`.
        model_builder: makes the model of the recipe.

    Returns:
        0; everything that goes wrong is raised.
    """
    recipe = load_recipe(path, flags)
    args = recipe.training
    push = args.push_to_hub
    args.push_to_hub = False  # the Trainer's own upload carries a pickle of the arguments, and no AP
    if push:
        check_push(args)
    started = time.monotonic()
    run = RunFolder(str(args.output_dir))
    checkpoint, passed_over = find_checkpoint(run, args.resume_from_checkpoint, bool(args.fsdp or args.deepspeed))
    goes_on = checkpoint is not None and run.holds(checkpoint)
    if not goes_on:
        run.check_free(args.overwrite)
    say = print if PartialState().is_main_process else _silent
    if checkpoint is not None:
        say(f"resumes   {checkpoint}{f' ({passed_over})' if passed_over else ''}")

    transformers_logging.disable_progress_bar()  # of single weights, which take no time
    set_cpu_threads(recipe.speed.cpu_threads, args.device.type)
    set_seed(args.seed)
    splits = load_splits(recipe.data, progress=show_progress)
    stored = store_splits(recipe, splits)
    trainer = build_trainer(recipe, stored, model_builder)
    say(describe_job(recipe, splits, trainer))
    if PartialState().is_main_process:
        if not goes_on:
            run.make()
        if checkpoint is not None:
            restore_detections(checkpoint, run)
        save_recipe(recipe, run.recipe, describe_environment(splits.fingerprints))

    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except pickle.UnpicklingError as error:  # torch opens no pickle that could run code
        raise CheckpointError(
            f"training.resume_from_checkpoint: '{checkpoint}' holds more than tensors, which could run code, so it was "
            "not opened. Resume from a checkpoint of your own."
        ) from error
    except BackendCompilerFailed as error:
        raise TrainingError(
            f"speed.compile_backbone: torch.compile failed: {first_line(error)}. On a CPU it needs a C++ compiler; "
            "install one, or set this to false."
        ) from error
    trainer.save_model()
    if trainer.is_world_process_zero():
        finish(trainer, recipe, splits, run, time.monotonic() - started)
        if push:
            url = push_run(
                run.path,
                args.hub_model_id or run.name,
                private=args.hub_private_repo,
                token=args.hub_token,
                revision=args.hub_revision,
            )
            print(f"published: {url}")
    PartialState().wait_for_everyone()
    return 0


def check_push(args: DetrTrainingArguments) -> None:
    """Finds out before hours of training whether the run can be published at their end.

    Raises:
        RecipeError: there would be nothing to publish.
        InputError: the Hub cannot be reached, or not with this token.
    """
    if args.eval_strategy == "no":
        raise RecipeError(
            "training.push_to_hub: a model card carries an AP, but training.eval_strategy is no. Evaluate, or publish "
            "the folder yourself."
        )
    if PartialState().is_main_process:
        check_access(args.hub_model_id or RunFolder(str(args.output_dir)).name, args.hub_token)


def _silent(*_: Any) -> None:
    """Instead of `print` on all processes but the first."""


def finish(trainer: DetrTrainer, recipe: Recipe, splits: Splits, run: RunFolder, seconds: float) -> None:
    """Writes the last files, pictures and the page, and prints the result, where it lies and what to do next."""
    callback = next(c for c in trainer.callback_handler.callbacks if isinstance(c, RunFolderCallback))
    used = {"seconds": round(seconds, 1), "peak_memory_bytes": peak_memory(trainer.args.device)}
    callback.about = {**callback.about, **used}
    if callback.best is None:
        page = write_run_page(run, recipe, splits)
        print(
            f"no evaluation took place (training.eval_strategy: no); weights and processor are in {run}\n"
            f"the page    {page}  (how the training went)"
        )
        return
    callback.write(trainer.args, trainer.state)
    write_model_card(run.path)
    best = callback.best
    print(f"\nthe best weights, of epoch {best['epoch']:.4g}:\n{CocoResult.from_dict(best).table()}")
    kept = best if trainer.args.load_best_model_at_end else callback.last or best
    threshold = kept["best_f1"]["threshold"]
    picture = draw_predictions(run, splits.val, trainer.truth, trainer.label_map, threshold, trainer.args.device)
    log_picture(trainer, "predictions", picture)
    page = write_run_page(run, recipe, splits)
    print(
        f"\nbest AP {best['metrics']['map']:.3f}, AP50 {best['metrics']['map_50']:.3f} in epoch {best['epoch']:.4g} "
        f"({seconds:.0f} s in all)\n"
        f"run folder  {run}  (weights of the {'best' if trainer.args.load_best_model_at_end else 'last'} evaluation, "
        f"{METRICS}, {RESULTS}, {CARD})\n"
        f"first look  {picture}  (validation images: what is found, missed and wrong)\n"
        f"the page    {page}  (results, curves, photos and recipe; open it in a browser)\n"
        f"look at it  hf-detr-ft predict {run} PHOTO_OR_FOLDER --threshold {threshold:.3f}\n"
        f"publish it  hf-detr-ft push {run} USER/NAME"
    )
