"""Values of a recipe that its model brings along where the recipe itself says nothing."""

from collections.abc import Collection
from typing import Any

from hf_detr_ft.errors import CheckpointError, RecipeError
from hf_detr_ft.model.build import find_family
from hf_detr_ft.model.checkpoint import Checkpoint, read_settings
from hf_detr_ft.model.processor import own_settings
from hf_detr_ft.recipe.sections import ModelConfig

SIZES = ("model.shortest_edge", "model.longest_edge", "model.square_edge")


def model_defaults(config: ModelConfig, given: Collection[str]) -> dict[str, Any]:
    """Values by field, such as training.learning_rate: those of the family's original, and the checkpoint's image size.

    Args:
        config: the recipe's `model` section.
        given: fields that the recipe gives.

    Raises:
        RecipeError: the recipe asks for a size that the family does not take.
    """
    try:
        checkpoint = Checkpoint.from_config(config)
        settings = {} if checkpoint is None else read_settings(checkpoint)
        family = find_family(config, settings)
        own = {} if checkpoint is None else _own_size(checkpoint)
    except (CheckpointError, RecipeError):
        return {}  # whoever builds the model says what is wrong with it, and the data come first
    sizes = {name for name in SIZES if name in given}
    if family.size.square:
        if sizes and "model.square_edge" not in sizes:
            raise RecipeError(
                f"{sorted(sizes)[-1]}: expected model.square_edge, found a size that keeps the shape: {family.name} "
                f"takes squares. Set model.square_edge, such as {family.size.edge}, and leave the others out."
            )
        own = own if "model.square_edge" in own else {"model.square_edge": family.size.edge}
    return {**family.values(settings), **({} if sizes else own)}


def _own_size(checkpoint: Checkpoint) -> dict[str, Any]:
    """The size that a checkpoint's processor resizes to, by fields of a recipe; nothing where it has none of ours."""
    settings = own_settings(checkpoint)
    size = settings.get("size")
    if isinstance(size, int):  # as Transformers 4 wrote it
        size = {"shortest_edge": size, "longest_edge": settings.get("max_size", size)}
    size = size if isinstance(size, dict) else {}
    if {"shortest_edge", "longest_edge"} <= size.keys():
        return {"model.shortest_edge": size["shortest_edge"], "model.longest_edge": size["longest_edge"]}
    if size.get("height") is not None and size.get("height") == size.get("width"):
        return {"model.square_edge": size["height"]}
    return {}
