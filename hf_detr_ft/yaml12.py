"""The YAML that recipes are written in."""

import re
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from hf_detr_ft.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars, so that `1e-4` is a number, `no` a text and `2024-05-01` no date; a key stands once."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as in PyYAML, the class's own

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: list[Any] = []
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice", key_node.start_mark
                )
            seen.append(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes quotes where `_Loader` would take a text for something else."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as in PyYAML, the class's own


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9]\d*)", list("-+0123456789")),
    ("float", r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|nan)", list("-+0123456789.")),
    ("merge", "<<", ["<"]),
):
    for _dialect in (_Loader, _Dumper):
        _dialect.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), _first)
_Dumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))


def parse_yaml(text: str) -> Any:
    """What a YAML text holds. Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def parse_value(text: str) -> Any:
    """A flag's value; a text where it is no YAML."""
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        return text


def read_sections(path: Path) -> dict:
    """A recipe's file, its top level a dictionary.

    Raises:
        RecipeError: the file is missing, no YAML, or holds something else.
    """
    if path.is_dir():
        raise RecipeError(f"{path}: expected a recipe (a YAML file), found a folder. A run's is {path / 'recipe.yaml'}")
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        here = ", ".join(sorted(str(found) for found in Path("recipes").glob("*.yaml")))
        example = f", for example one of {here}" if here else ""
        raise RecipeError(f"{path}: no such recipe. Expected a YAML file{example}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(f"{path}{where}: expected YAML, but {error.problem or error.context}") from error
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise RecipeError(f"{path}: expected YAML, but {' '.join(str(error).split())}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        found = "a list" if isinstance(values, list) else repr(values)
        raise RecipeError(f"{path}: expected sections such as data and training, found {found}")
    return values


def dump_yaml(content: dict) -> str:
    """Keys in their order; `parse_yaml` gives the content back."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
