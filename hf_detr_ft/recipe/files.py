"""Reading recipes from YAML and flags, and writing the resolved one. All problems are reported at once.

Names, and values of all sections but `training`, are checked without Transformers and torch, which take seconds to
import.
"""

import math
import typing
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

from hf_detr_ft.atomic import write_text
from hf_detr_ft.errors import InputError, RecipeError
from hf_detr_ft.recipe.entries import PACKAGED, find_recipe, place_values
from hf_detr_ft.recipe.fields import LIGHT_SECTIONS, SECTIONS, build_parser, describe_type, field_limits, type_of
from hf_detr_ft.recipe.rules import require_sound
from hf_detr_ft.recipe.sections import (
    DataConfig,
    ModelConfig,
    Recipe,
)
from hf_detr_ft.run_folder import MADE_WITH, RECIPE, RunFolder
from hf_detr_ft.yaml12 import dump_yaml

PATHS = (
    *("root", "train_annotations", "train_images", "val_annotations", "val_images"),
    *("test_annotations", "test_images", "split_file"),
)
"""Fields of `data` that name files, for which drawn photos have no use."""
DIVIDING = ("train_annotations", "val_annotations", "val_share", "folds", "fold", "group_by", "split_file")
"""Fields of `data` that say which image is in which split."""
NOT_SAVED = ("hub_token", "push_to_hub_token", "overwrite", "resume_from_checkpoint")
"""Fields of `training` that never go to a file: secrets, and what was asked for one run, whose folder the saved recipe
would remove when it runs again."""
LOCAL_PATHS = ("checkpoint", "backbone_weights")
"""Fields of `model` that may be a path here, and are saved as an absolute one then."""


def check_early(
    path: Path | None, flags: Sequence[str] = (), check_data: Callable[[DataConfig], None] | None = None
) -> None:
    """Says what is wrong with a recipe before large libraries are imported, as far as it can be told without them.

    That is all but the values in `training`. Where something else is wrong, and values there are a person's, what they
    need is imported to check them, so that all problems come at once.

    Args:
        path: see `load_recipe`.
        flags: see `load_recipe`.
        check_data: gets the data section of a recipe with which nothing is wrong.

    Raises:
        RecipeError: see `load_recipe`.
        InputError: that of `check_data`.
    """
    path, written, typed, sources, problems = _read(tuple(LIGHT_SECTIONS), path, flags)
    try:
        if problems:
            raise RecipeError("\n".join(problems))
        if check_data is not None:
            check_data(DataConfig(**typed["data"]))
    except InputError:
        is_sound = MADE_WITH in written or (path is not None and path.parent == PACKAGED)
        training = [source for (section, _), source in sources.items() if section == "training"]
        if any(not is_sound or source.startswith("flag") for source in training):
            require_sound(load_recipe(path, flags))
        raise


def recipe_of(source: str, given: Path | None, flags: Sequence[str]) -> Path | None:
    """The recipe whose data a model is measured on: the one that is given, else the run's own.

    Args:
        source: a run folder, another folder of a model, or a Hub id.
        given: a recipe.
        flags: over it; with `--data.root` and its like no recipe is needed.

    Raises:
        RecipeError: nothing names the data.
    """
    own = RunFolder(source).recipe
    if given is None and not own.is_file() and not any(flag.startswith("--data.") for flag in flags):
        raise RecipeError(
            f"'{source}' carries no {RECIPE} that names the data. Give --recipe RECIPE, or --data.root and its like."
        )
    return given or (own if own.is_file() else None)


def load_recipe(
    path: Path | None,
    flags: Sequence[str] = (),
    model_defaults: Callable[[ModelConfig, Collection[str]], dict[str, Any]] | None = None,
) -> Recipe:
    """A recipe from a YAML file, with flags over it.

    Args:
        path: the YAML file, or the name of one that comes with the package, such as `quickstart`; None for flags and
            defaults alone.
        flags: `--section.key value` or `--section.key=value`; a bare `--section.key` means true.
        model_defaults: takes the `model` section and the names of the fields that are given, such as
            `training.learning_rate`, and returns values of others by name.

    Raises:
        RecipeError: the file is missing or no YAML, or keys or values are wrong; all of them in one message.
    """
    path, written, typed, sources, problems = _read(SECTIONS, path, flags)
    if problems:
        raise RecipeError("\n".join(problems))
    given = frozenset(f"{section}.{key}" for section, key in sources)
    if model_defaults is not None:
        for name, value in model_defaults(ModelConfig(**typed["model"]), given).items():
            section, key = name.split(".")
            if name not in given:
                typed[section][key] = value
    recipe = _build(path, typed)
    recipe.given = given
    divided = any(sources.get(("data", key), "").startswith("flag") for key in DIVIDING)
    if path is not None and MADE_WITH in written and not divided:
        recipe.data = recipe.data.with_record(path.parent)
    return recipe


def _read(
    sections: tuple[str, ...], path: Path | None, flags: Sequence[str]
) -> tuple[Path | None, dict, dict[str, dict], dict[tuple[str, str], str], list[str]]:
    """The recipe's file and what it says, typed values of some sections, where each came from, and all problems."""
    path, written, problems = find_recipe(path)
    values, sources = place_values(written, path, flags, problems)
    typed, wrong = _typed(sections, values, sources)
    problems += _misfits(wrong, values, sources) + _check_limits(typed, sources) + _check_paths(typed["data"], sources)
    return path, written, typed, sources, problems


def _build(path: Path | None, typed: dict[str, dict]) -> Recipe:
    """The recipe of values that fit, with what is chosen automatically."""
    from hf_detr_ft.recipe.automatic import choose_precision, choose_workers
    from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments

    training = typed["training"]
    if training["output_dir"] is None:
        training["output_dir"] = str(Path("runs") / (path.stem if path is not None else "run"))
    if training["dataloader_num_workers"] is None:
        training["dataloader_num_workers"] = choose_workers(training["use_cpu"])
    sections = {name: config(**typed[name]) for name, config in LIGHT_SECTIONS.items()}
    try:
        arguments = DetrTrainingArguments(**{**training, "push_to_hub": False})
    except (ImportError, KeyError, OSError, TypeError, ValueError) as error:
        refusal = " ".join(str(error).split())
        raise RecipeError(f"{path or 'flags'}: training: Transformers refuses these settings: {refusal}") from error
    choose_precision(arguments, training["bf16"])
    training["bf16"], training["fp16"] = arguments.bf16, arguments.fp16
    return Recipe(**sections, training=arguments, push=training["push_to_hub"], resolved=typed)


def _typed(sections: tuple[str, ...], values: dict, sources: dict) -> tuple[dict[str, dict], list[tuple[str, str]]]:
    """Fields of sections with their types and defaults; only what fits where values do not, and those that do not."""
    parser = build_parser(sections)
    given = {section: values[section] for section in sections if section in values}
    places = [place for place in sources if place[0] in sections]
    wrong = [
        (section, key)
        for section, key in places
        if values[section][key] is None and type(None) not in typing.get_args(type_of(section, key))
    ]  # jsonargparse takes null for everything
    try:
        parsed = parser.parse_object(given)
        typed = {section: parsed[section].as_dict() for section in sections}
    except Exception:  # find every value that is wrong, not only the first
        typed = {section: {} for section in sections}
        known = len(wrong)
        for section, key in places:
            try:
                typed[section][key] = parser.parse_object({section: {key: values[section][key]}})[section][key]
            except Exception:
                wrong.append((section, key))
        if len(wrong) == known:
            raise
    return typed, wrong


def _misfits(wrong: list[tuple[str, str]], values: dict, sources: dict) -> list[str]:
    """A line for each value of another type, in the order in which they were given."""
    ordered = [place for place in sources if place in wrong]
    return [f"{sources[place]}: {_misfit(type_of(*place), values[place[0]][place[1]])}" for place in ordered]


def _misfit(annotation: Any, value: Any) -> str:
    expected = describe_type(annotation)
    is_scalar = not isinstance(value, str | dict | list | None)
    quotes = "; write it in quotes" if expected.startswith("text") and is_scalar else ""
    return f"expected {expected}, found {short(value)}{quotes}"


def _check_limits(typed: dict[str, dict], sources: dict) -> list[str]:
    problems = []
    for (section, key), (low, high) in field_limits(typed).items():
        value = typed[section].get(key)
        if (section, key) in sources and value is not None and not low <= value <= high:
            expected = f"a number from {low} to {high}" if high < math.inf else f"{low} or more"
            problems.append(f"{sources[section, key]}: expected {expected}, found {value!r}")
    return problems


def _check_paths(data: dict, sources: dict) -> list[str]:
    """A path that is not the default one, beside drawn photos."""
    if data.get("synthetic_images") is None:
        return []
    defaults = DataConfig()
    return [
        f"{sources['data', key]}: expected no path beside data.synthetic_images, which draws the photos, found "
        f"{data[key]!r}; leave it out, or give --data.synthetic_images null to read files"
        for key in PATHS
        if ("data", key) in sources and data.get(key, getattr(defaults, key)) != getattr(defaults, key)
    ]


def save_recipe(recipe: Recipe, path: Path, made_with: dict[str, Any]) -> None:
    """Writes the resolved recipe beside and renames it; it runs again as it is, from any folder. No secrets.

    Args:
        recipe: as loaded.
        path: of the YAML file.
        made_with: versions and fingerprints, for people.
    """
    resolved = {section: dict(keys) for section, keys in recipe.resolved.items()}
    for key in NOT_SAVED:
        resolved["training"].pop(key, None)
    root = resolved["data"]["root"] or "."
    if resolved["data"]["synthetic_images"] is None and "://" not in root:
        resolved["data"]["root"] = _absolute(root)
    for key in LOCAL_PATHS:
        value = resolved["model"][key]
        if value is not None and Path(value).expanduser().exists():
            resolved["model"][key] = _absolute(value)
    write_text(path, dump_yaml({**resolved, MADE_WITH: made_with}))


def files_read(recipe: Recipe, path: Path | None) -> list[str | Path]:
    """Files and folders that a training reads, its images and what comes from the Hub aside; some need not be there.

    Args:
        recipe: as loaded.
        path: of the recipe.
    """
    args = recipe.training
    given = [path, *(getattr(recipe.model, key) for key in LOCAL_PATHS), args.deepspeed, args.fsdp_config]
    files = [value for value in given if isinstance(value, str | Path)]
    if recipe.data.synthetic_images is None:
        files += [recipe.data.path(name) for name in PATHS[1:] if getattr(recipe.data, name) is not None]
    return files


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
