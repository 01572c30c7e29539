"""Values that a recipe's file and flags give, by section and field, and where each came from."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

import yaml

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.formatting import did_you_mean, has_half_characters
from hf_detr_ft.plain_files import read_file
from hf_detr_ft.recipe.fields import SECTIONS, field_names
from hf_detr_ft.run_folder import MADE_WITH, RECIPE
from hf_detr_ft.yaml12 import parse_value, parse_yaml

PACKAGED = Path(__file__).parents[1] / "recipes"
"""Recipes that come with the package: `quickstart` is its `quickstart.yaml`, in whatever folder one is."""
REMOVED: dict[tuple[str, str], tuple[tuple, str]] = {
    ("model", "encoder_loss"): ((0,), "it is --encoder-loss of python -m hf_detr_ft.pretraining"),
    ("model", "new_decoder"): ((False,), "it is --new-decoder of python -m hf_detr_ft.pretraining"),
    ("evaluation", "batch_size"): ((None,), "it is training.per_device_eval_batch_size"),
    ("speed", "keep_memory"): ((True, False), "it brought nothing"),
}
"""Fields of earlier versions, with the values that had no effect, which recipes of earlier runs may carry on saying."""
HALF = "expected text of whole characters, which a file in UTF-8 can hold"
LARGEST = 2**20
"""Bytes of a recipe at most: whoever gives annotations in its place is not to wait until they are parsed."""


class Entry(NamedTuple):
    """One value that was given, and where."""

    section: str
    key: str
    inner: str
    """Key in a field that is a dictionary, such as `dropout` in `--model.config.dropout`; else empty."""
    value: Any
    source: str


def find_recipe(path: Path | None) -> tuple[Path | None, dict, list[str]]:
    """The recipe's file, which may be one of the package's, what it says, and what is wrong with its name."""
    if path is not None and not path.exists() and (PACKAGED / f"{path}.yaml").is_file():
        path = PACKAGED / f"{path}.yaml"
    problems = [f"{path}: {HALF} in the recipe's name"] if has_half_characters(str(path)) else []
    return path, {} if path is None else read_sections(path), problems


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


def _read_yaml(path: Path | None, sections: dict, problems: list[str]) -> Iterator[Entry]:
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
                yield Entry(section, str(key), "", value, f"{path}: {section}.{key}")
        elif content is not None:
            problems.append(f"{path}: {section}: expected keys and values, found {short(content)}")


def _read_flags(flags: Sequence[str], problems: list[str]) -> Iterator[Entry]:
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
            yield Entry(section, key, inner, parse_value(value) if inner else value, f"flag --{dotted}")


def _unknown_section(name: str) -> str:
    hint = _elsewhere(name) or did_you_mean(name, SECTIONS)
    return f"unknown section '{name}'{hint}; expected one of {list(SECTIONS)}"


def _elsewhere(key: str) -> str:
    """A hint to the section that has such a field."""
    found = [f"{section}.{key}" for section in SECTIONS if key in field_names(section)]
    return f" (did you mean '{found[0]}'?)" if found else ""


def place_values(
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
