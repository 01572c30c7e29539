"""Rules across the fields of a recipe: settings that cannot work together, or that would have no effect.

`train`, `check` and `benchmark` ask before they read any data. Limits of single fields stand beside them in
`sections.py`.
"""

import os
from dataclasses import fields
from typing import TYPE_CHECKING

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.formatting import did_you_mean
from hf_detr_ft.recipe.augment_pipeline import read_pipeline
from hf_detr_ft.recipe.sections import Recipe

if TYPE_CHECKING:
    from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments

METRICS = (
    *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
    *("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large", "loss"),
)
"""Numbers that the best weights can be chosen by, beside those of evaluation.max_detections."""
MASK_METRICS = tuple(f"mask_{name}" for name in METRICS[:-1])
"""Further ones of a model with a mask head."""
DEFAULT_ALONE = {
    "remove_unused_columns": "a row's columns become the model's inputs only later",
    "prediction_loss_only": "AP is computed from predictions",
    "batch_eval_metrics": "AP is computed over all images at once",
    "eval_do_concat_batches": "AP is computed over all images at once",
    "eval_use_gather_object": "with several processes the second evaluation would hang",
    "include_for_metrics": "AP needs detections and image ids alone",
    "bf16_full_eval": "boxes would be rounded; training.bf16 keeps them in fp32",
    "fp16_full_eval": "boxes would be rounded; training.fp16 keeps them in fp32",
    "neftune_noise_alpha": "it belongs to token embeddings, which DETR has none of",
    "label_smoothing_factor": "DETR's criterion does not smooth labels",
    "length_column_name": "batches are formed by the shapes that augmentation draws",
    "label_names": "the labels of detection have one name",
    "use_liger_kernel": "there are no such kernels for DETR",
}
"""Fields of `training` that have to keep their default here, and why."""


def require_sound(recipe: Recipe) -> None:
    """Refuses a recipe whose settings cannot work together.

    Raises:
        RecipeError: lists everything that `check_recipe` finds.
    """
    problems = check_recipe(recipe)
    if problems:
        raise RecipeError("\n".join(problems))


def require_one_gpu(args: "DetrTrainingArguments") -> None:
    """Refuses to train in one process beside several GPUs.

    torch.nn.DataParallel, which Transformers would use, cannot divide labels that are lists of boxes.

    Raises:
        RecipeError: says how to use all of them, or one.
    """
    import torch

    found = torch.cuda.device_count()
    if args.device.type == "cuda" and args.world_size == 1 and found > 1:
        raise RecipeError(
            f"expected one GPU for one process, found {found}: the others would stand idle, and DataParallel cannot "
            f"divide DETR's labels. Start a process for each: hf-detr-ft launch --num_processes {found} RECIPE, or "
            f"accelerate launch --multi_gpu --num_processes {found} train.py RECIPE. To train on one: "
            "CUDA_VISIBLE_DEVICES=0 hf-detr-ft train RECIPE."
        )


def check_recipe(recipe: Recipe) -> list[str]:
    """Problems of the recipe's settings with each other, a line each; none where it can train."""
    return [
        *_splits(recipe),
        *_streaming(recipe),
        *_kept_defaults(recipe),
        *_evaluation(recipe),
        *_learning_rate(recipe),
        *_masks(recipe),
        *read_pipeline(recipe.augment.pipeline).problems,
        *_machine(recipe),
    ]


def _splits(recipe: Recipe) -> list[str]:
    """Ways to make a validation split, or an order, that exclude each other."""
    data, problems = recipe.data, []
    if (data.fold is None) != (data.folds is None) or (data.fold or 0) > (data.folds or 0):
        problems.append(
            f"data.fold: expected a number from 1 to data.folds, found {data.fold} of {data.folds}. Give both, such as "
            "--data.folds 5 --data.fold 1."
        )
    ways = [name for name in ("val_share", "folds") if getattr(data, name) is not None]
    if len(ways) > 1:
        problems.append("data.val_share: expected none beside data.folds, which divides by itself. Leave one out.")
    if data.synthetic_images is not None and (ways or data.group_by):
        names = " and ".join(f"data.{name}" for name in (*ways, *(["group_by"] if data.group_by else [])))
        problems.append(
            f"{names}: expected none beside data.synthetic_images, which draws a validation split of its own. Leave "
            "them out."
        )
    if data.balance is not None and recipe.training.train_sampling_strategy == "sequential":
        problems.append(
            "data.balance: expected a random order, found training.train_sampling_strategy sequential, with which it "
            "has no effect. Leave one of them out."
        )
    return problems


def _streaming(recipe: Recipe) -> list[str]:
    """Settings that need images at any place, or all of an epoch's order at once."""
    data, training = recipe.data, recipe.training
    given = {
        "data.synthetic_images": (data.synthetic_images is not None, "which draws images"),
        "data.balance": (data.balance is not None, "which shows images several times in an epoch"),
        "data.exif": (data.exif != "upright", "which turns boxes by what all images say"),
        "augment.mosaic": (recipe.augment.mosaic > 0, "which takes other images from anywhere"),
        "augment.copy_paste": (recipe.augment.copy_paste > 0, "which takes objects of other images from anywhere"),
        "training.dataloader_drop_last": (training.dataloader_drop_last, "where batches are filled up, not left out"),
    }
    return [
        f"{name}: expected none beside data.streaming, {why}. Leave one of them out."
        for name, (is_given, why) in given.items()
        if data.streaming and is_given
    ]


def _masks(recipe: Recipe) -> list[str]:
    """Fields that have no effect where nothing but a mask head is trained, or do not know masks."""
    given = {
        "model.trainable_stages": recipe.model.trainable_stages is not None,
        "speed.compile_backbone": recipe.speed.compile_backbone,
        "augment.mosaic": recipe.augment.mosaic > 0,
        "augment.multi_scale batch": recipe.augment.multi_scale == "batch",
    }
    return [
        f"{name}: expected none beside model.masks, which trains a mask head and nothing else. Leave it out."
        for name, is_given in given.items()
        if recipe.model.masks and is_given
    ]


def _kept_defaults(recipe: Recipe) -> list[str]:
    given, problems = recipe.resolved["training"], []
    for known in fields(recipe.training):
        default = known.default_factory() if callable(known.default_factory) else known.default
        value = given.get(known.name, default)
        if known.name in DEFAULT_ALONE and (value or None) != (default or None):
            problems.append(
                f"training.{known.name}: expected {default!r}, found {value!r}: {DEFAULT_ALONE[known.name]}. "
                "Leave it out."
            )
    return problems


def _evaluation(recipe: Recipe) -> list[str]:
    """Evaluations that others of the settings need."""
    args, given, problems = recipe.training, recipe.resolved["training"], []
    metric = args.metric_for_best_model
    limit = recipe.evaluation.max_detections
    beyond = (f"map_at_{limit}", f"map_50_at_{limit}", f"map_75_at_{limit}", f"mar_{limit}") if limit > 100 else ()
    known = (*METRICS, *beyond, *(MASK_METRICS if recipe.model.masks else ()))
    if metric is not None and metric.removeprefix("eval_") not in known:
        problems.append(
            f"training.metric_for_best_model: expected one of {', '.join(known)}, found '{metric}'"
            f"{did_you_mean(metric.removeprefix('eval_'), known)}."
        )
    if args.eval_strategy == "no":
        needs = {
            "early_stopping_patience": args.early_stopping_patience is not None and "stopping waits for a better AP",
            "push_to_hub": recipe.push and "a model card carries an AP; or publish the folder yourself",
        }
        problems += [
            f"training.{name}: expected evaluations, found training.eval_strategy no: {why}. Set eval_strategy to "
            f"epoch, or leave {name} out."
            for name, why in needs.items()
            if why
        ]
    elif args.early_stopping_patience is not None and metric is None:
        problems.append(
            "training.early_stopping_patience: expected a training.metric_for_best_model that stopping goes by, found "
            "null. Set it to map."
        )
    if args.eval_epochs > 1 and args.eval_strategy != "epoch":
        problems.append(
            f"training.eval_epochs: expected training.eval_strategy epoch beside it, found '{given['eval_strategy']}', "
            "with which it has no effect. Set eval_strategy to epoch, or leave eval_epochs out."
        )
    return problems


def _learning_rate(recipe: Recipe) -> list[str]:
    """Schedules beside DETR's single drop, which would have no effect."""
    given = recipe.resolved["training"]
    if given["learning_rate_drop_epoch"] is None:
        return []
    others = {name: given[name] for name in ("lr_scheduler_type", "warmup_steps")}
    return [
        f"training.{name}: expected none beside training.learning_rate_drop_epoch, found '{value}', which would have "
        "no effect. Leave one out: --training.learning_rate_drop_epoch null."
        for name, value in others.items()
        if value not in ("constant", 0, None)
    ]


def _machine(recipe: Recipe) -> list[str]:
    """Precision and loggers that are not to be had here."""
    from transformers.utils.generic import strtobool

    args, problems = recipe.training, []
    if args.auto_find_batch_size and args.world_size > 1:
        problems.append(
            f"training.auto_find_batch_size: expected one process, found {args.world_size}, which would wait for each "
            "other. Leave it out, and lower training.per_device_train_batch_size."
        )
    if args.fp16 and args.device.type == "cpu":
        problems.append(
            "training.fp16: expected bf16 or fp32 on a CPU, found fp16 (set there, or by accelerate launch "
            "--mixed_precision), which only GPUs train in. Leave it out."
        )
    fsdp = args.fsdp or strtobool(os.environ.get("ACCELERATE_USE_FSDP", "false"))
    deepspeed = args.deepspeed or strtobool(os.environ.get("ACCELERATE_USE_DEEPSPEED", "false"))
    if args.device.type == "cpu" and fsdp:
        problems.append(
            "training.fsdp: expected none on a CPU, found FSDP (set there, or by accelerate launch --use_fsdp), which "
            "Accelerate uses on GPUs alone. Leave it out."
        )
    if args.ema_decay is not None and (fsdp or deepspeed):
        problems.append(
            "training.ema_decay: expected processes that hold all weights each, found FSDP or DeepSpeed, which divide "
            "them. Leave one of them out: --training.ema_decay null."
        )
    if not args.report_to:
        return problems
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    available = set(get_available_reporting_integrations())
    for name in args.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            problems.append(
                f"training.report_to: expected some of {', '.join(sorted(INTEGRATION_TO_CALLBACK))}, found '{name}'"
                f"{did_you_mean(name, INTEGRATION_TO_CALLBACK)}."
            )
        elif name not in available:
            problems.append(
                f"training.report_to: '{name}' is not installed. Install it (pip install {name}), or leave it out."
            )
    return problems
