"""A training job: from a recipe to its data, its trainer and the weights in its folder."""

import pickle
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from torch._dynamo.exc import BackendCompilerFailed
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, set_seed
from transformers.utils import logging as transformers_logging

from hf_detr_ft.data.image_size import ImageProcessor, ImageSize
from hf_detr_ft.data.splits import Splits, load_splits
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import CheckpointError, Interrupted, RecipeError, TrainingError, first_line
from hf_detr_ft.evaluation.coco_result import MAX_DETECTIONS
from hf_detr_ft.machine import keep_freed_memory, set_cpu_threads
from hf_detr_ft.model.batch_norms import share_statistics
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.stages import train_stages
from hf_detr_ft.recipe.sections import ModelConfig, Recipe, SpeedConfig
from hf_detr_ft.run_folder import LOG, WEIGHTS, read_object
from hf_detr_ft.training.callbacks import EpochCallback, RunFolderCallback, print_progress_lines
from hf_detr_ft.training.checkpoints import rotate_checkpoints
from hf_detr_ft.training.choose_preset import apply_preset
from hf_detr_ft.training.data_pipeline import (
    build_processor,
    build_train_transform,
    choose_batch_edges,
    choose_size_step,
    store_splits,
    stream_rows,
)
from hf_detr_ft.training.failures import dead_worker, explain_damage, explain_full_disk
from hf_detr_ft.training.interruption import TERMINATED, StopCallback
from hf_detr_ft.training.original_log import OriginalLog
from hf_detr_ft.training.output_folder import OutputFolder
from hf_detr_ft.training.split_batches import is_out_of_memory
from hf_detr_ft.training.trainer import DetrTrainer

ModelBuilder = Callable[[ModelConfig, Sequence[str], Sequence[int], SpeedConfig], Detector]
"""Makes the model of a recipe, as `build_model` does."""


@dataclass(frozen=True, eq=False)
class Job:
    """A training that is ready to begin.

    Attributes:
        recipe: with what was chosen automatically in `resolved`.
        splits: as they are read.
        trainer: over the splits' images, decoded and resized where the cache keeps them.
        results: of the evaluations, as they come.
        stop: ends the training where the system asks for it.
    """

    recipe: Recipe
    splits: Splits
    trainer: DetrTrainer
    results: RunFolderCallback
    stop: StopCallback


def prepare_job(recipe: Recipe, checkpoint: Path | None = None, model_builder: ModelBuilder = build_model) -> Job:
    """Reads and checks the data and builds model and trainer; seeds torch, NumPy and Python.

    Args:
        recipe: of the training.
        checkpoint: to go on from, looked at only.
        model_builder: makes the model.

    Raises:
        InputError: something is wrong with recipe, data or checkpoint.
    """
    transformers_logging.disable_progress_bar()  # of single weights, which take no time
    # Strides of 1 x 1 convolutions under channels_last, which cost several processes a copy and nothing else.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    set_cpu_threads(recipe.speed.cpu_threads, recipe.training.device.type)
    data = recipe.data if checkpoint is None else recipe.data.with_record(checkpoint.parent)
    splits = load_splits(data, ImageSize.from_config(recipe.model), show_progress, recipe.masks)
    run = None if checkpoint is None else checkpoint.parent
    recipe = apply_preset(recipe, splits, prepare_trial, run)
    set_seed(recipe.training.seed)
    # For the steps alone: what reading took, a gigabyte for COCO, goes back to the system.
    keep_freed_memory(recipe.training.device.type)
    job = build_job(recipe, splits, model_builder)
    if checkpoint is not None:
        check_steps(job.trainer, checkpoint)
    return job


def prepare_trial(recipe: Recipe, splits: Splits) -> Job:
    """A job that is not to be trained to its end, over images as they lie on the disk."""
    transformers_logging.disable_progress_bar()
    set_seed(recipe.training.seed)
    return build_job(recipe, splits, keeps_images=False)


def show_progress(images: Iterable) -> Iterable:
    """A bar over the images that are checked, on the first process."""
    return tqdm(images, "checking images", leave=False, disable=not PartialState().is_main_process)


def build_job(
    recipe: Recipe, splits: Splits, model_builder: ModelBuilder = build_model, *, keeps_images: bool = True
) -> Job:
    """Model, transforms, trainer and callbacks of a recipe.

    Args:
        recipe: whose `resolved` is given the size step and the threads that are used.
        splits: as they are read.
        model_builder: makes the model.
        keeps_images: resize images once and keep them, as far as `speed.store_gigabytes` reaches.

    Raises:
        RecipeError: the Trainer refuses the settings, or they leave it nothing to train on.
    """
    args, label_map = recipe.training, splits.label_map
    images, of_a_batch = len(splits.train), args.train_batch_size * args.world_size
    if args.dataloader_drop_last and images < of_a_batch:
        raise RecipeError(
            f"training.dataloader_drop_last: expected at least as many images as a batch of all processes takes, found "
            f"{images} images and batches of {of_a_batch}. Leave it out, or lower training.per_device_train_batch_size."
        )
    processor = build_processor(recipe.model, recipe.data.white_level)
    kept = store_splits(recipe, splits, processor) if keeps_images else splits
    model = model_builder(recipe.model, label_map.names, label_map.category_ids, recipe.speed)
    train_stages(model, recipe.model.trainable_stages)
    vars(model.config).pop("max_detections", None)  # of the checkpoint
    if recipe.evaluation.max_detections > MAX_DETECTIONS:
        model.config.max_detections = recipe.evaluation.max_detections  # for whoever has the model alone
    share_statistics(model, args.device.type, args.world_size)
    trainer = build_trainer(recipe, kept, model, processor)
    if args.process_index:
        torch.manual_seed(args.seed + args.process_index)  # else dropout would be the same in all processes
    about = {
        "data": {"name": recipe.data.name, "split": "validation"},
        "base_model": recipe.model.checkpoint or recipe.model.backbone,
        "family": model.family.name,
        "most_detections": model.family.most_detections(model.config.num_queries, len(label_map.names)),
    }
    results = RunFolderCallback(lambda: trainer.result, lambda: trainer.detections, about, trainer.skipped.as_dict)
    trainer.add_callback(results)
    trainer.add_callback(OriginalLog(model))
    if args.early_stopping_patience is not None:
        trainer.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
    stop = StopCallback()
    trainer.add_callback(stop)
    print_progress_lines(trainer)
    return Job(recipe, splits, trainer, results, stop)


def build_trainer(recipe: Recipe, splits: Splits, model: Detector, processor: ImageProcessor) -> DetrTrainer:
    """The trainer of a recipe, without the callbacks of its run; see `build_job`."""
    args, augment, size_step = recipe.training, build_train_transform(recipe, processor), choose_size_step(recipe)
    recipe.resolved["speed"] |= {
        "size_step": size_step,
        "cpu_threads": torch.get_num_threads() if args.device.type == "cpu" else recipe.speed.cpu_threads,
    }
    try:
        return DetrTrainer(
            model,
            args,
            train_dataset=transformed(splits.train, augment),
            eval_dataset=transformed(splits.val, DetrTransform(processor, on_bad_image=recipe.data.on_bad_image)),
            truth=splits.truth,
            label_map=splits.label_map,
            processor=processor,
            train_transform=augment,
            size_step=size_step,
            batch_edges=choose_batch_edges(recipe, model),
            backend=recipe.evaluation.backend,
            max_detections=recipe.evaluation.max_detections,
            balance=recipe.data.balance,
            stream=stream_rows(recipe, splits, augment),
        )
    except (ImportError, KeyError, ValueError) as error:  # an unknown log_level, fsdp in one process, …
        raise RecipeError(f"training: the Trainer refuses these settings: {error}") from error


def train_model(job: Job, checkpoint: Path | None) -> None:
    """Trains, from a checkpoint where one is given, and saves the weights that the recipe asks for.

    Raises:
        CheckpointError: the checkpoint cannot be resumed from.
        TrainingError: training cannot go on.
        Interrupted: the system asked the training to end.
    """
    if checkpoint is not None and has_stopped_early(job.trainer.args.early_stopping_patience, checkpoint):
        job.trainer.args.max_steps = int(read_object(checkpoint / LOG)["global_step"])
    try:
        job.trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
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
    except (EOFError, OSError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise TrainingError(
                f"training stopped: {job.trainer.args.device} is out of memory beside the batches, as for the "
                f"optimizer's state: {first_line(error)}. Lower training.per_device_train_batch_size."
            ) from error
        dead = dead_worker(error, job.trainer.args.dataloader_num_workers)
        if dead is None:
            raise
        raise Interrupted("", TERMINATED) if job.stop.is_asked else dead from error
    if job.stop.has_stopped:
        raise Interrupted("", TERMINATED)
    with explain_full_disk(WEIGHTS):
        job.trainer.save_model()
    if job.trainer.args.should_save:
        run = OutputFolder(str(job.trainer.args.output_dir))
        run.forget_replaced()
        best = run.path / f"checkpoint-{job.trainer.state.best_global_step}"
        rotate_checkpoints(run, job.trainer.args.save_total_limit, best)  # which the last one may have been killed in


def has_stopped_early(patience: int | None, checkpoint: Path) -> bool:
    """True of the last checkpoint of a training that early stopping ended: it has no step to come."""
    with explain_damage(str(checkpoint / LOG)):
        callbacks = read_object(checkpoint / LOG).get("stateful_callbacks") or {}
        waited = callbacks.get(EarlyStoppingCallback.__name__, {}).get("attributes", {})
        return patience is not None and waited.get("early_stopping_patience_counter", 0) >= patience


def check_steps(trainer: DetrTrainer, checkpoint: Path) -> None:
    """Makes sure that a checkpoint's steps are those of this training, so that no part of an epoch is left out.

    Raises:
        CheckpointError: an epoch had another number of steps.
    """
    state, own = read_object(checkpoint / LOG), trainer.steps_per_epoch()
    readers = None if trainer.stream is None else trainer.stream.readers
    with explain_damage(str(checkpoint / LOG)):
        step, epoch = int(state["global_step"]), float(state["epoch"] or 0)
        before = round(step / epoch) if epoch else own
        had = state["stateful_callbacks"].get(EpochCallback.__name__, {}).get("attributes", {}).get("readers")
    if had != readers and epoch % 1:
        raise CheckpointError(
            f"training.resume_from_checkpoint: expected the order of images that '{checkpoint}' was made in, within an "
            f"epoch that data.streaming read with {had}, found {readers}. Give it as many processes and "
            f"training.dataloader_num_workers, or start anew from its weights: --model.checkpoint {checkpoint}."
        )
    if before != own:
        args = trainer.args
        images = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        raise CheckpointError(
            f"training.resume_from_checkpoint: expected an epoch of {own} steps, as {len(trainer.train_dataset)} "
            f"images in steps of {images} make it, found one of {before} in '{checkpoint}': parts of an epoch would be "
            "left out or come twice. Give it the images, batch size, accumulation and processes that it had, or start "
            f"anew from its weights: --model.checkpoint {checkpoint}."
        )
