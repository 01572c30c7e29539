"""The command line: arguments in, one function of `runs/` called, an exit status out."""

import atexit
import errno
import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from hf_detr_ft.errors import InputError, Interrupted
from hf_detr_ft.formatting import printable, printable_lines
from hf_detr_ft.importing import large_imports
from hf_detr_ft.say_once import explain, has_launcher, say_once
from hf_detr_ft.verb_arguments import FLAG_VERBS, RECIPE_VERBS, build_parser
from hf_detr_ft.verb_arguments.recipe_options import take_check_options, take_series_options

REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ELOOP)
"""Errors of the system for a full disk, a folder that is not the user's, or links that lead round in circles."""


def program(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb as all that a process does; see `main`."""
    statuses: list[int] = []
    atexit.register(_leave, statuses)  # before other libraries register what is theirs, so it comes after them
    statuses.append(main(arguments))
    return statuses[0]


def _leave(statuses: Sequence[int]) -> None:
    """Ends a process that trained beside others without the interpreter's own end.

    A thread of the process group may not be through with its last message there, and abort the process, and with it
    all that its launcher started.
    """
    distributed = sys.modules.get("torch.distributed")
    if statuses and distributed is not None and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(statuses[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        arguments: without the program's name; those of the process where not given.

    Returns:
        The exit status.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.setLogRecordFactory(PrintableRecord)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        with redirect_stdout(PrintableOutput(sys.stdout)):
            return report_errors(lambda: run(arguments))
    finally:
        gc.unfreeze()  # else some libraries say at the end that they leak


class PrintableOutput:
    """A stream for text that may hold names of strangers, whose control codes a terminal must not obey.

    Args:
        stream: takes the text, and is asked for all else.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes lines as `printable_lines` has them."""
        self.stream.write(printable_lines(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class PrintableRecord(logging.LogRecord):
    """An entry of a log, ours or a library's, without control codes."""

    def getMessage(self) -> str:
        """The text."""
        return printable_lines(super().getMessage())


def report_errors(work: Callable[[], int]) -> int:
    """The exit status of some work; what the user got wrong is printed in words, not as a traceback."""
    try:
        return work()
    except InputError as error:
        say_error(f"error: {message_of(error)}")
        return error.exit_status
    except KeyboardInterrupt as stop:
        say_error(f"interrupted{f'. {stop}' if str(stop) else ''}")
        return stop.exit_status if isinstance(stop, Interrupted) else 130
    except Exception as error:
        refusal = describe_refusal(error)
        if not refusal and not has_launcher():
            raise
        say_error(refusal or explain(error))
        return 1


def describe_refusal(error: Exception) -> str:
    """Words for a full disk or a folder that is not the user's; empty for any other error."""
    if not isinstance(error, OSError) or error.errno not in REFUSALS:
        return ""
    return f"error: {printable(error.filename or 'a file')}: the system refused: {error.strerror}"


def say_error(text: str) -> None:
    """Prints to standard error, in one of all processes of a job."""
    say_once(lambda: print(printable_lines(text), file=sys.stderr, flush=True))


def message_of(error: InputError) -> str:
    """An error's own words.

    What a data loader's process raises, torch raises again with the whole traceback of that process as its text.
    """
    text = str(error)
    name = f"{type(error).__module__}.{type(error).__qualname__}: "
    return text.rpartition(name)[2].strip() if text.startswith("Caught ") else text


def run(arguments: list[str]) -> int:
    """Calls the verb with its arguments under their names, and with the recipe's flags where it takes some."""
    if arguments and arguments[0] in RECIPE_VERBS:
        return run_recipe(arguments[0], arguments[1:])
    if arguments and arguments[0] == "launch":
        return load_verb("launch", "launch")(arguments[1:])
    parser = build_parser()
    options, flags = parser.parse_known_args(arguments)
    given = {name: value for name, value in vars(options).items() if name not in ("verb", "function")}
    if options.verb in FLAG_VERBS:
        given["flags"] = flags
    elif flags:
        parser.error(f"unrecognized arguments: {printable(' '.join(flags))}")
    return load_verb(options.verb, getattr(options, "function", options.verb))(**given)


def load_verb(verb: str, function: str) -> Callable[..., int]:
    """A function of `runs/`."""
    with large_imports():
        loaded: Callable[..., int] = getattr(import_module(f"hf_detr_ft.runs.{verb.replace('-', '_')}"), function)
    return loaded


def run_recipe(verb: str, arguments: list[str]) -> int:
    """Calls `train` or `check`: a recipe first, then flags. What is wrong is said before libraries are imported."""
    from hf_detr_ft.data.find_data import require_annotations
    from hf_detr_ft.recipe.fields import print_help
    from hf_detr_ft.recipe.files import check_early

    if {"-h", "--help"} & set(arguments):
        print_help(verb)
        return 0
    recipe = Path(arguments.pop(0)) if arguments and not arguments[0].startswith("--") else None
    given: dict[str, Any] = {}
    if verb == "check":
        given = take_check_options(arguments)
        if "source" in given:
            return load_verb("check-model", "check_model")(recipe, arguments, **given)
    elif series := take_series_options(arguments):
        check_early(recipe, arguments, require_annotations("train", "val"))
        return load_verb("series", "train_series")(recipe, arguments, **series)
    check_early(recipe, arguments, require_annotations("train", "val"))
    return load_verb(verb, verb)(recipe, arguments, **given)


if __name__ == "__main__":
    sys.exit(program())
