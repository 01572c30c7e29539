"""The YAML that recipes are written in: YAML 1.2's scalars, each key once."""

import re
from collections.abc import Hashable
from enum import Enum
from typing import Any

import yaml

DEEPEST = 100
"""Lists and mappings that may be in each other."""
MOST_VALUES = 100_000
"""Values that a text may come to with all its aliases; those of ten lines can come to more than any memory holds."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars, so that `1e-4` is a number, `no` a text and `2024-05-01` no date; a key stands once."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as in PyYAML, the class's own

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}
        """Values that a node comes to with all that its aliases repeat, by the node's id; of finished nodes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node; refused are tags, and what lies too deep, in itself, or comes to too many values with its aliases."""
        event = self.peek_event()
        mark = event.start_mark
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, f"the tag {event.tag!r} has no meaning here", mark)
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"it is nested more than {DEEPEST} deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "an alias stands for what it is in", mark)
        if not is_alias:
            children = node.value if isinstance(node, yaml.CollectionNode) else ()
            inner = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
            self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in inner)
        if self._sizes[id(node)] > MOST_VALUES:
            raise yaml.composer.ComposerError(
                None, None, f"with what aliases repeat it comes to more than {MOST_VALUES:,} values", mark
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice", key_node.start_mark
                )
            if isinstance(key, Hashable):  # else the base class refuses it
                seen.add(key)
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
    try:
        return yaml.load(text, _Loader)
    except ValueError as error:  # a number of thousands of digits
        raise yaml.YAMLError(str(error)) from error


def parse_value(text: str) -> Any:
    """A flag's value; a text where it is no YAML."""
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        return text


def dump_yaml(content: dict) -> str:
    """Keys in their order; `parse_yaml` gives the content back."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
