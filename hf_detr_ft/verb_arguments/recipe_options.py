"""Options of `train` and `check` beside the flags of a recipe."""

from pathlib import Path
from typing import Any

from hf_detr_ft.errors import RecipeError

CHECK_OPTIONS = {"--report": "check.html", "--fix": "", "--model": "", "--output": "suspects"}
"""Options of `check` that take a value, and the value where none is given."""
CHECK_SWITCHES = {"--headers-only": "headers_only", "--json": "as_json"}


def take_check_options(flags: list[str]) -> dict[str, Any]:
    """Takes the options of `check` out of its flags: its function's arguments, or those of `check_model` with `source`.

    Raises:
        RecipeError: a value is missing, or an option that goes with it.
    """
    taken: dict[str, Any] = {name: switch in flags for switch, name in CHECK_SWITCHES.items()}
    flags[:] = [flag for flag in flags if flag not in CHECK_SWITCHES]
    for option, default in CHECK_OPTIONS.items():
        value = _take_value(flags, option)
        if value is not None and not (value or default):
            raise RecipeError(f"{option}: expected a {'run' if option == '--model' else 'folder'} behind it")
        given = None if value is None else value or default
        taken[option.removeprefix("--")] = given if given is None or option == "--model" else Path(given)
    source, output = taken.pop("model"), taken.pop("output")
    if source is not None:
        return {"source": source, "output": output or Path(CHECK_OPTIONS["--output"])}
    if output is not None:
        raise RecipeError("--output: expected --model RUN beside it, found none. Leave it out, or name a run.")
    return taken


def take_series_options(flags: list[str]) -> dict[str, int]:
    """Takes `--seeds N` and `--folds N` out of the flags of `train`, by name; empty where there are none.

    Raises:
        RecipeError: a value is no number, or too small.
    """
    taken = {}
    for option, least in (("--seeds", 1), ("--folds", 2)):
        value = _take_value(flags, option)
        if value is None:
            continue
        if not value.isdecimal() or int(value) < least:
            raise RecipeError(f"{option}: expected a number, {least} or more, found '{value}'")
        taken[option.removeprefix("--")] = int(value)
    return taken


def _take_value(flags: list[str], option: str) -> str | None:
    """Takes an option and its value out of flags; None where it is not there, and empty where it has no value."""
    for index, flag in enumerate(flags):
        name, equals, value = flag.partition("=")
        if name == option:
            named = not equals and index + 1 < len(flags) and not flags[index + 1].startswith("--")
            value = flags[index + 1] if named else value
            del flags[index : index + 1 + named]
            return value
    return None
