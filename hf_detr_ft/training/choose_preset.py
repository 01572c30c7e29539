"""Values that `training.preset: auto` leaves to the data and to the memory that is there."""

import gc
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias

import torch
from accelerate.utils import gather_object

from hf_detr_ft.data.dataset import most_objects
from hf_detr_ft.data.splits import Splits
from hf_detr_ft.errors import TrainingError
from hf_detr_ft.machine import free_bytes
from hf_detr_ft.model.build import find_family
from hf_detr_ft.model.checkpoint import Checkpoint, read_settings
from hf_detr_ft.recipe.preset import BATCH, FIELDS, DataSize, choose, divide_batch
from hf_detr_ft.recipe.sections import Choice, ModelConfig, Recipe
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.training.split_batches import is_out_of_memory
from hf_detr_ft.training.trial_batches import measure_images

if TYPE_CHECKING:
    from hf_detr_ft.training.job import Job

Trial: TypeAlias = "Callable[[Recipe, Splits], Job]"
"""Makes a job that is not to be trained to its end, as `prepare_trial` does."""
SHARE = 0.8
"""Share of the free memory that is used; the rest is for fragments and for what else runs."""


def apply_preset(recipe: Recipe, splits: Splits, trial: Trial, run: Path | None = None) -> Recipe:
    """The recipe with what `training.preset: auto` chooses, the same in all processes; as it is without it.

    Args:
        recipe: of the training.
        splits: its data.
        trial: see `Trial`.
        run: folder of the run that goes on, whose choices are taken, whatever memory there is now.
    """
    if recipe.training.preset is None:
        return recipe
    before = {} if run is None else RunFolder(run).read_recipe()[0]
    if before:
        left = [name.split(".") for name in FIELDS if name not in recipe.given]
        kept = {f"{section}.{key}": before[section][key] for section, key in left if key in before.get(section, {})}
        return recipe.with_choices({name: Choice(value, "as the run began") for name, value in kept.items()})
    chosen = choose(recipe, measure_data(recipe, splits))
    if BATCH[0] in chosen and not recipe.training.auto_find_batch_size:
        images = chosen[BATCH[0]].value
        room = min(gather_object([find_room(recipe.with_choices(chosen), splits, trial)]))
        chosen |= divide_batch(recipe, images, room)
    return recipe.with_choices(chosen)


def measure_data(recipe: Recipe, splits: Splits) -> DataSize:
    """Counts of the training data, and the queries of the model as it is."""
    training = splits.statistics["training"]
    return DataSize(
        images=len(splits.train),
        objects=training.objects,
        classes=len(splits.label_map),
        fullest=max(most_objects(rows)[0] for rows in (splits.train, splits.val)),
        queries=count_queries(recipe.model),
        processes=recipe.training.world_size,
    )


def count_queries(config: ModelConfig) -> int:
    """Queries of a recipe's model.

    Raises:
        InputError: see `find_family`.
    """
    checkpoint = Checkpoint.from_config(config)
    settings = {} if checkpoint is None else read_settings(checkpoint)
    own = find_family(config, settings).config_class().num_queries
    return int(config.num_queries or {"num_queries": own, **settings, **config.config}["num_queries"])


def find_room(recipe: Recipe, splits: Splits, trial: Trial) -> int:
    """Images of the largest shape that this process has memory for at once; 0: not even for one.

    One such image is trained, in a model that is forgotten then.
    """
    device = recipe.training.device
    with TemporaryDirectory() as folder:  # the Trainer makes its folder
        trainer = trial(recipe.with_training(output_dir=folder), splits).trainer
        free = SHARE * free_bytes(device)
        room = 0
        try:
            fixed, each = measure_images(trainer)
            room = max(0, int((free - fixed) / each))
        except TrainingError as error:
            if error.__cause__ is None or not is_out_of_memory(error.__cause__):
                raise
        del trainer
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return room
