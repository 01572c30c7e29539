"""`hf-detr-ft train RECIPE`: from a recipe to a run folder."""

import pickle
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from accelerate import PartialState
from torch._dynamo.exc import BackendCompilerFailed
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, set_seed
from transformers.utils import logging as transformers_logging

from hf_detr_ft.callbacks import RunFolderCallback, log_picture, print_progress_lines, restore_detections
from hf_detr_ft.data.dataset import most_objects
from hf_detr_ft.data.splits import Splits, load_splits
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import CheckpointError, RecipeError, TrainingError, first_line
from hf_detr_ft.evaluation.result import CocoResult
from hf_detr_ft.hub import check_access, push_run, write_model_card
from hf_detr_ft.memory import keeping_memory
from hf_detr_ft.model.build import build_model, build_processor, count_parameters
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.model.stages import summarise_trainable, train_stages
from hf_detr_ft.recipe import DetrTrainingArguments, Recipe
from hf_detr_ft.recipe_file import load_recipe, save_recipe
from hf_detr_ft.runs.environment import describe_environment, peak_memory, set_cpu_threads
from hf_detr_ft.runs.page_file import write_run_page
from hf_detr_ft.runs.picture import draw_predictions
from hf_detr_ft.runs.run_folder import check_free, find_checkpoint, make_run_folder
from hf_detr_ft.runs.train_data import build_train_transform, choose_size_step, store_splits
from hf_detr_ft.trainer import DetrTrainer

METRICS = (
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large", "loss"),
)
"""What the best weights can be chosen by."""


def train(path: Path | None, flags: Sequence[str] = ()) -> int:
    """Trains, evaluates and writes the run folder.

    Args:
        path: the recipe.
        flags: over it, such as `--training.learning_rate 5e-5`.

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
    run = args.run_folder
    checkpoint = find_checkpoint(run, args)
    if checkpoint is None:
        check_free(run, args.overwrite)
    say = print if PartialState().is_main_process else _silent

    transformers_logging.disable_progress_bar()  # of single weights, which take no time
    set_cpu_threads(recipe.speed.cpu_threads, args.device.type)
    set_seed(args.seed)
    splits = load_splits(recipe.data, progress=show_progress)
    stored = store_splits(recipe, splits)
    trainer = build_trainer(recipe, stored)
    say(describe_job(recipe, splits, trainer))
    if PartialState().is_main_process:
        if checkpoint is None:
            make_run_folder(run)
        else:
            restore_detections(Path(checkpoint), run)
        save_recipe(recipe, run / "recipe.yaml", describe_environment(splits.fingerprints))

    try:
        with keeping_memory(args.device.type, recipe.speed.keep_memory):
            trainer.train(resume_from_checkpoint=checkpoint)
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
                run,
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
        check_access(args.hub_model_id or args.run_folder.name, args.hub_token)


def show_progress(images: Iterable) -> Iterable:
    """A bar over the images that are checked, on the first process."""
    return tqdm(images, "checking images", leave=False, disable=not PartialState().is_main_process)


def _silent(*_: Any) -> None:
    """Instead of `print` on all processes but the first."""


def build_trainer(recipe: Recipe, splits: Splits) -> DetrTrainer:
    """Model, transforms, trainer and callbacks of a recipe."""
    args, model_config, label_map = recipe.training, recipe.model, splits.label_map
    model = build_model(model_config, label_map.names, label_map.category_ids, recipe.speed)
    train_stages(model, model_config.trainable_stages)
    processor = build_processor(model_config)
    augment = build_train_transform(recipe)
    if recipe.evaluation.batch_size is not None:
        args.per_device_eval_batch_size = recipe.evaluation.batch_size
    metric = args.metric_for_best_model
    if metric is not None and metric.removeprefix("eval_") not in METRICS:
        raise RecipeError(f"training.metric_for_best_model: expected one of {', '.join(METRICS)}, found '{metric}'.")
    if args.eval_epochs < 1:
        raise RecipeError(f"training.eval_epochs: expected 1 or more, found {args.eval_epochs}.")
    try:
        trainer = DetrTrainer(
            model,
            args,
            train_dataset=transformed(splits.train, augment),
            eval_dataset=transformed(splits.val, DetrTransform(processor)),
            truth=splits.truth,
            label_map=label_map,
            processor=processor,
            train_transform=augment,
            size_step=choose_size_step(recipe),
            backend=recipe.evaluation.backend,
        )
    except (ImportError, KeyError, ValueError) as error:  # an unknown report_to or log_level, fsdp in one process, …
        raise RecipeError(f"training: the Trainer refuses these settings: {error}") from error
    about = {
        "data": {"name": recipe.data.name, "split": "validation"},
        "base_model": model_config.checkpoint or model_config.backbone,
    }
    trainer.add_callback(RunFolderCallback(lambda: trainer.result, lambda: trainer.detections, about))
    if args.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
    print_progress_lines(trainer)
    return trainer


def describe_job(recipe: Recipe, splits: Splits, trainer: DetrTrainer) -> str:
    """What is about to be trained, for the terminal."""
    args, model = trainer.args, cast(DetrForObjectDetection, trainer.model)
    warnings = len(splits.problems)
    most, file_name = most_objects(splits.train)
    queries = model.config.num_queries
    length = f"{args.max_steps} steps" if args.max_steps > 0 else f"{args.num_train_epochs:g} epochs"
    start = recipe.model.checkpoint or recipe.model.backbone
    names = ", ".join(splits.label_map.names[:5]) + (", …" if len(splits.label_map) > 5 else "")
    lines = [
        f"data      {recipe.data.name}: {len(splits.train)} training and {len(splits.val)} validation images",
        f"          classes ({len(splits.label_map)}): {names}",
        *([f"          warnings: {warnings}; `hf-detr-ft check` lists them"] if warnings else []),
        f"model     {start}: {count_parameters(model) / 1e6:.1f} M parameters",
        f"          {summarise_trainable(model)}",
        f"training  {length} of batches of {args.train_batch_size}"
        f" x {args.gradient_accumulation_steps} accumulated x {args.world_size} processes on {args.device.type}, "
        f"{recipe.training.precision}",
        f"run       {args.output_dir}",
    ]
    if most > queries:
        lines.append(
            f"warning   {file_name} has {most} objects, the model only {queries} queries: the rest is never learned. "
            "Raise model.config.num_queries in a model of your own, or cut such images up."
        )
    return "\n".join(lines)


def finish(trainer: DetrTrainer, recipe: Recipe, splits: Splits, run: Path, seconds: float) -> None:
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
    write_model_card(run)
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
        f"metrics.json, results.csv, README.md)\n"
        f"first look  {picture}  (validation images: what is found, missed and wrong)\n"
        f"the page    {page}  (results, curves, photos and recipe; open it in a browser)\n"
        f"look at it  hf-detr-ft predict {run} PHOTO_OR_FOLDER --threshold {best['best_f1']['threshold']:.2f}\n"
        f"publish it  hf-detr-ft push {run} USER/NAME"
    )
