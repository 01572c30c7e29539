"""From a recipe and its data to a trainer."""

from collections.abc import Callable, Iterable, Sequence
from typing import cast

from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback

from hf_detr_ft.data.dataset import most_objects
from hf_detr_ft.data.image_size import build_processor
from hf_detr_ft.data.splits import Splits
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.model.build import build_model, count_parameters
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.model.stages import summarise_trainable, train_stages
from hf_detr_ft.recipe.sections import ModelConfig, Recipe, SpeedConfig
from hf_detr_ft.training.callbacks import RunFolderCallback, print_progress_lines
from hf_detr_ft.training.data_pipeline import build_train_transform, choose_size_step
from hf_detr_ft.training.trainer import DetrTrainer

ModelBuilder = Callable[[ModelConfig, Sequence[str], Sequence[int], SpeedConfig], DetrForObjectDetection]
"""Makes the model of a recipe, as `build_model` does."""
METRICS = (
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large", "loss"),
)
"""What the best weights can be chosen by."""


def show_progress(images: Iterable) -> Iterable:
    """A bar over the images that are checked, on the first process."""
    return tqdm(images, "checking images", leave=False, disable=not PartialState().is_main_process)


def build_trainer(recipe: Recipe, splits: Splits, model_builder: ModelBuilder = build_model) -> DetrTrainer:
    """Model, transforms, trainer and callbacks of a recipe."""
    args, model_config, label_map = recipe.training, recipe.model, splits.label_map
    model = model_builder(model_config, label_map.names, label_map.category_ids, recipe.speed)
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
