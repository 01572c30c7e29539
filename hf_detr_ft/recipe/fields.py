"""Sections and fields of a recipe: names, types and limits, told without Transformers and torch where it can be."""

import argparse
import ast
import types
import typing
from collections.abc import Iterable
from dataclasses import fields
from enum import Enum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings

from hf_detr_ft.importing import large_imports
from hf_detr_ft.recipe.sections import (
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ReportConfig,
    SpeedConfig,
)

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

set_parsing_settings(docstring_parse_attribute_docstrings=True)


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


def type_of(section: str, key: str) -> Any:
    """The annotation of a field."""
    return typing.get_type_hints(LIGHT_SECTIONS.get(section) or section_classes()[section])[key]


def field_limits(sections: Iterable[str] = SECTIONS) -> dict[tuple[str, str], tuple[float, float]]:
    """Least and greatest value by section and field, of fields whose type alone lets too much in."""
    return {
        (section, known.name): (known.metadata["least"], known.metadata["most"])
        for section in sections
        for known in fields(LIGHT_SECTIONS.get(section) or section_classes()[section])
        if "least" in known.metadata
    }


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


def print_help(verb: str) -> None:
    """Prints every field with its type, default and meaning."""
    parser = build_parser(prog=f"hf-detr-ft {verb}")
    more = "[--report [FILE]] [--json] [--headers-only] [--fix FOLDER] [--model RUN [--output FOLDER]]"
    parser.usage = f"hf-detr-ft {verb} [RECIPE] [--section.key VALUE ...] {more if verb == 'check' else ''}".rstrip()
    for action in parser._actions:
        if action.dest in SECTIONS or action.dest.endswith(".help"):  # jsonargparse's own options
            action.help = argparse.SUPPRESS
    parser.print_help()
