"""Variants of a training that are timed: Transformers' own, ours, and ours without each of its measures for speed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.training.data_pipeline import choose_size_step
from hf_detr_ft.training.model_defaults import model_defaults

BASELINE = "stock"
OURS = "ours"
"""Names in tables and files."""


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: in tables and files.
        precision: `fp32`, `bf16` or `fp16`.
        flags: over those of the recipe.
        is_baseline: trained by Transformers alone.
    """

    name: str
    precision: str
    flags: tuple[str, ...] = ()
    is_baseline: bool = False


@dataclass(frozen=True)
class Measure:
    """A measure for speed.

    Attributes:
        without: name of the training that does without it.
        flags: that take it back.
        applies: whether they change anything beside this recipe.
    """

    without: str
    flags: tuple[str, ...]
    applies: Callable[[Recipe], bool] = lambda recipe: True


def _is_mixed(recipe: Recipe) -> bool:
    return recipe.training.precision != "fp32"


def _keeps_shape(recipe: Recipe) -> bool:
    return ImageSize.from_config(recipe.model).keeps_shape


MEASURES = (
    Measure("frozen norms not folded", ("--speed.fold_frozen_norms", "false")),
    Measure("not channels last", ("--speed.channels_last", "false")),
    Measure(
        "attention in bf16",
        ("--speed.fp32_attention", "false"),
        lambda recipe: _is_mixed(recipe) and recipe.training.device.type == "cpu",
    ),
    Measure("fp32", ("--training.bf16", "false", "--training.fp16", "false"), _is_mixed),
    Measure("all stages trained", ("--model.trainable_stages", "[all]")),
    Measure("random batches", ("--training.train_sampling_strategy", "random"), _keeps_shape),
    Measure("shapes as they come", ("--speed.size_step", "1"), lambda recipe: choose_size_step(recipe) > 1),
    Measure("photos not kept", ("--speed.store_gigabytes", "0")),
    Measure("photos decoded whole", ("--speed.store_gigabytes", "0", "--speed.reduced_decoding", "false")),
    Measure("weights not averaged", ("--training.ema_decay", "null")),
    Measure("not compiled", ("--speed.compile_backbone", "false")),
)


def choose_variants(path: Path | None, flags: Sequence[str], breakdown: bool) -> list[Variant]:
    """The baseline and ours; with a breakdown also the baseline in our precision, and ours without each measure.

    Args:
        path: the recipe.
        flags: over it.
        breakdown: list more than two. Measures that the recipe does not take are left out.
    """
    recipe = load_recipe(path, flags, model_defaults)
    precision = recipe.training.precision
    baseline, ours = Variant(BASELINE, "fp32", is_baseline=True), Variant(OURS, precision)
    if not breakdown:
        return [baseline, ours]
    variants = [
        baseline,
        *([Variant(f"{BASELINE}, {precision}", precision, (), True)] if _is_mixed(recipe) else ()),
        ours,
    ]
    for measure in MEASURES:
        without = load_recipe(path, [*flags, *measure.flags], model_defaults)
        if measure.applies(recipe) and without.resolved != recipe.resolved:
            variants.append(Variant(f"{OURS}, {measure.without}", without.training.precision, measure.flags))
    return variants
