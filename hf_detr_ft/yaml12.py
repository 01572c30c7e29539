"""The YAML that recipes are written in: YAML 1.2's scalars, each key once."""

import re
from enum import Enum
from typing import Any

import yaml


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
    """Content of a YAML text. Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def parse_value(text: str) -> Any:
    """A flag's value; a text where it is no YAML."""
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        return text


def dump_yaml(content: dict) -> str:
    """Keys in their order; `parse_yaml` gives the content back."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
