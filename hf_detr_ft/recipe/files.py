"""Reading recipes from YAML and flags, and writing the resolved one. All problems are reported at once.

Names, and values of all sections but `training`, are checked without Transformers and torch, which take seconds to
import.
"""

import argparse
import ast
import json
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import fields
from enum import Enum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from hf_detr_ft.atomic import write_text
from hf_detr_ft.errors import InputError, RecipeError
from hf_detr_ft.formatting import did_you_mean, has_half_characters
from hf_detr_ft.importing import large_imports
from hf_detr_ft.plain_files import read_file
from hf_detr_ft.recipe.rules import require_sound
from hf_detr_ft.recipe.sections import (
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    Recipe,
    ReportConfig,
    SpeedConfig,
)
from hf_detr_ft.run_folder import MADE_WITH, RECIPE
from hf_detr_ft.yaml12 import dump_yaml, parse_value, parse_yaml

LIGHT_SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "augment": AugmentConfig,
    "model": ModelConfig,
    "evaluation": EvaluationConfig,
    "speed": SpeedConfig,
    "report": ReportConfig,
}
"""All but `training`."""
SECTIONS = (*LIGHT_SECTIONS, "training")
PACKAGED = Path(__file__).parents[1] / "recipes"
"""Recipes that come with the package: `quickstart` is its `quickstart.yaml`, in whatever folder one is."""
PATHS = ("root", "train_annotations", "train_images", "val_annotations", "val_images")
"""Fields of `data` that name files, for which drawn photos have no use."""
REMOVED: dict[tuple[str, str], tuple[tuple, str]] = {
    ("model", "encoder_loss"): ((0,), "it is --encoder-loss of python -m hf_detr_ft.pretraining"),
    ("model", "new_decoder"): ((False,), "it is --new-decoder of python -m hf_detr_ft.pretraining"),
    ("evaluation", "batch_size"): ((None,), "it is training.per_device_eval_batch_size"),
    ("speed", "keep_memory"): ((True, False), "it brought nothing"),
}
"""Fields of earlier versions, with the values that had no effect, which recipes of earlier runs may carry on saying."""
NOT_SAVED = ("hub_token", "push_to_hub_token", "overwrite", "resume_from_checkpoint")
"""Fields of `training` that never go to a file: secrets, and what was asked for one run, whose folder the saved recipe
would remove when it runs again."""
LOCAL_PATHS = ("checkpoint", "backbone_weights")
"""Fields of `model` that may be a path here, and are saved as an absolute one then."""
HALF = "expected text of whole characters, which a file in UTF-8 can hold"
LARGEST = 2**20
"""Bytes of a recipe at most: whoever gives annotations in its place is not to wait until they are parsed."""

set_parsing_settings(docstring_parse_attribute_docstrings=True)


class _Entry(NamedTuple):
    """One value that was given, and where."""

    section: str
    key: str
    inner: str
    """Key in a field that is a dictionary, such as `dropout` in `--model.config.dropout`; else empty."""
    value: Any
    source: str


@cache
def section_classes() -> dict[str, type]:
    """The class of every section; imports Transformers and torch."""
    with large_imports():
        from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments

    return {**LIGHT_SECTIONS, "training": DetrTrainingArguments}


@cache
def field_names(section: str) -> list[str]:
    """Names of a section's fields; those of `training` are read off the source, which need not be imported for it."""
    if section in LIGHT_SECTIONS:
        return [known.name for known in fields(LIGHT_SECTIONS[section]) if known.init]
    package = find_spec("transformers")
    assert package is not None and package.submodule_search_locations
    inherited = Path(package.submodule_search_locations[0]) / "training_args.py"
    return [
        statement.target.id
        for source in (inherited, Path(__file__).with_name("training_arguments.py"))
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name.endswith("TrainingArguments")
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        if not statement.target.id.startswith("_")
    ]


@cache
def build_parser(sections: tuple[str, ...] = SECTIONS, prog: str = "hf-detr-ft") -> ArgumentParser:
    """The parser that types every field of some sections, and whose `--help` lists them."""
    parser = ArgumentParser(prog=prog, exit_on_error=False, add_help=False)
    for section in sections:
        config = LIGHT_SECTIONS.get(section) or section_classes()[section]
        parser.add_class_arguments(config, section, fail_untyped=False)
    return parser


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
    path, written, problems = _find(path)
    values, sources = _place(written, path, flags, problems)
    typed, wrong = _typed(tuple(LIGHT_SECTIONS), values, sources)
    problems += _misfits(wrong, values, sources) + _check_limits(typed, sources) + _check_paths(typed["data"], sources)
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
    path, written, problems = _find(path)
    values, sources = _place(written, path, flags, problems)
    typed, wrong = _typed(SECTIONS, values, sources)
    problems += _misfits(wrong, values, sources) + _check_limits(typed, sources) + _check_paths(typed["data"], sources)
    if problems:
        raise RecipeError("\n".join(problems))
    if model_defaults is not None:
        given = {f"{section}.{key}" for section, key in sources}
        for name, value in model_defaults(ModelConfig(**typed["model"]), given).items():
            section, key = name.split(".")
            if name not in given:
                typed[section][key] = value
    return _build(path, typed)


def _find(path: Path | None) -> tuple[Path | None, dict, list[str]]:
    """The recipe's file, which may be one of the package's, what it says, and what is wrong with its name."""
    if path is not None and not path.exists() and (PACKAGED / f"{path}.yaml").is_file():
        path = PACKAGED / f"{path}.yaml"
    problems = [f"{path}: {HALF} in the recipe's name"] if has_half_characters(str(path)) else []
    return path, {} if path is None else read_sections(path), problems


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


def read_sections(path: Path) -> dict:
    """A recipe's file, its top level a dictionary.

    Raises:
        RecipeError: the file is missing, no YAML, or holds something else.
    """
    if path.is_dir():
        raise RecipeError(f"{path}: expected a recipe (a YAML file), found a folder. A run's is {path / RECIPE}")
    try:
        values = parse_yaml(read_file(path, LARGEST).decode("utf-8"))
    except FileNotFoundError:
        here = ", ".join(sorted(str(found) for found in Path("recipes").glob("*.yaml")))
        example = f", for example one of {here}" if here else ""
        packaged = ", ".join(sorted(found.stem for found in PACKAGED.glob("*.yaml")))
        names = "" if path.suffix else f", or a name: {packaged}"
        raise RecipeError(f"{path}: no such recipe. Expected a YAML file{example}{names}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(f"{path}{where}: expected YAML, but {error.problem or error.context}") from error
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise RecipeError(f"{path}: expected YAML, but {' '.join(str(error).split())}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        found = "a list" if isinstance(values, list) else short(values)
        raise RecipeError(f"{path}: expected sections such as data and training, found {found}")
    return values


def _read_yaml(path: Path | None, sections: dict, problems: list[str]) -> Iterator[_Entry]:
    is_of_a_run = MADE_WITH in sections
    for section, content in sections.items():
        if section == MADE_WITH:
            continue
        if section not in SECTIONS:
            problems.append(f"{path}: {_unknown_section(str(section))}")
        elif isinstance(content, dict):
            for key, value in content.items():
                if is_of_a_run and value in REMOVED.get((section, str(key)), ((), ""))[0]:
                    continue
                yield _Entry(section, str(key), "", value, f"{path}: {section}.{key}")
        elif content is not None:
            problems.append(f"{path}: {section}: expected keys and values, found {short(content)}")


def _read_flags(flags: Sequence[str], problems: list[str]) -> Iterator[_Entry]:
    remaining = list(flags)
    while remaining:
        flag = remaining.pop(0)
        if not flag.startswith("--"):
            problems.append(
                f"argument '{flag}': expected a flag such as --training.learning_rate 5e-5, behind the recipe"
            )
            continue
        dotted, equals, value = flag.removeprefix("--").partition("=")
        if not equals:
            value = remaining.pop(0) if remaining and not remaining[0].startswith("--") else "true"
        section, _, rest = dotted.partition(".")
        key, _, inner = rest.partition(".")
        if section not in SECTIONS:
            problems.append(f"flag --{dotted}: {_unknown_section(section)}")
        elif not key:
            problems.append(f"flag --{dotted}: expected a key, such as --{section}.{field_names(section)[0]}")
        else:
            yield _Entry(section, key, inner, parse_value(value) if inner else value, f"flag --{dotted}")


def _unknown_section(name: str) -> str:
    hint = _elsewhere(name) or did_you_mean(name, SECTIONS)
    return f"unknown section '{name}'{hint}; expected one of {list(SECTIONS)}"


def _elsewhere(key: str) -> str:
    """A hint to the section that has such a field."""
    found = [f"{section}.{key}" for section in SECTIONS if key in field_names(section)]
    return f" (did you mean '{found[0]}'?)" if found else ""


def _place(
    written: dict, path: Path | None, flags: Sequence[str], problems: list[str]
) -> tuple[dict[str, dict], dict[tuple[str, str], str]]:
    """Values by section and key, those of flags over those of the file, and where each came from."""
    values: dict[str, dict] = {}
    sources: dict[tuple[str, str], str] = {}
    entries = [*_read_yaml(path, written, problems), *_read_flags(flags, problems)]
    for section, key, inner, value, source in entries:
        known = field_names(section)
        if key not in known:
            gone = REMOVED.get((section, key))
            hint = f" (gone: {gone[1]})" if gone else _elsewhere(key) or did_you_mean(key, known)
            problems.append(f"{source}: unknown key '{key}' in section '{section}'{hint}")
            continue
        if inner:
            before = values.get(section, {}).get(key)
            before = parse_value(before) if isinstance(before, str) else before
            value = {**(before if isinstance(before, dict) else {}), inner: value}
        if has_half_characters(json.dumps(value, ensure_ascii=False, default=str)):
            problems.append(f"{source}: {HALF}, found {short(value)}")
            continue
        values.setdefault(section, {})[key] = value
        sources[section, key] = source
    return values, sources


def _typed(sections: tuple[str, ...], values: dict, sources: dict) -> tuple[dict[str, dict], list[tuple[str, str]]]:
    """Fields of sections with their types and defaults; only what fits where values do not, and those that do not."""
    parser = build_parser(sections)
    given = {section: values[section] for section in sections if section in values}
    places = [place for place in sources if place[0] in sections]
    wrong = [
        (section, key)
        for section, key in places
        if values[section][key] is None and type(None) not in typing.get_args(_type_of(section, key))
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


def _type_of(section: str, key: str) -> Any:
    return typing.get_type_hints(LIGHT_SECTIONS.get(section) or section_classes()[section])[key]


def _misfits(wrong: list[tuple[str, str]], values: dict, sources: dict) -> list[str]:
    """A line for each value of another type, in the order in which they were given."""
    ordered = [place for place in sources if place in wrong]
    return [f"{sources[place]}: {_misfit(_type_of(*place), values[place[0]][place[1]])}" for place in ordered]


def _misfit(annotation: Any, value: Any) -> str:
    expected = describe_type(annotation)
    is_scalar = not isinstance(value, str | dict | list | None)
    quotes = "; write it in quotes" if expected.startswith("text") and is_scalar else ""
    return f"expected {expected}, found {short(value)}{quotes}"


def field_limits(sections: Iterable[str] = SECTIONS) -> dict[tuple[str, str], tuple[float, float]]:
    """Least and greatest value by section and field, of fields whose type alone lets too much in."""
    return {
        (section, known.name): (known.metadata["least"], known.metadata["most"])
        for section in sections
        for known in fields(LIGHT_SECTIONS.get(section) or section_classes()[section])
        if "least" in known.metadata
    }


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


def describe_type(annotation: Any) -> str:
    """A type for people: `a number`, `one of 'detr', 'light', 'none'`, `text or null`."""
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in members)
    if origin in (typing.Union, types.UnionType):
        # Transformers types choices as `Choices | str`: the text is what people write.
        plain = [member for member in members if not (isinstance(member, type) and issubclass(member, Enum))]
        return " or ".join(describe_type(member) for member in sorted(plain, key=lambda m: m is type(None)))
    if origin is list:
        return f"a list of {describe_type(members[0])}"
    if origin is tuple:
        return f"a list [{', '.join(map(describe_type, members))}]"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    return names.get(annotation, "keys and values" if dict in (annotation, origin) else str(annotation))


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
    if resolved["data"]["synthetic_images"] is None:
        resolved["data"]["root"] = _absolute(resolved["data"]["root"] or ".")
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
        files += [recipe.data.path(name) for name in PATHS[1:]]
    return files


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def print_help(verb: str) -> None:
    """Prints every field with its type, default and meaning."""
    parser = build_parser(prog=f"hf-detr-ft {verb}")
    more = " [--report [FILE]] [--headers-only]" if verb == "check" else ""
    parser.usage = f"hf-detr-ft {verb} [RECIPE] [--section.key VALUE ...]{more}"
    for action in parser._actions:
        if action.dest in SECTIONS or action.dest.endswith(".help"):  # jsonargparse's own options
            action.help = argparse.SUPPRESS
    parser.print_help()
