"""Errors for the person who runs the program.

Every error here is meant for the person who runs the program: its text names the file, the entry, what was expected,
what was found and what to do. `cli.py` prints it without a traceback and maps it to an exit status.
"""


class InputError(Exception):
    """Something the user gave is not usable; the text says what, where, and what to do about it.

    Attributes:
        exit_status: what the command line returns: 1 where data or a checkpoint are wrong, 2 for recipe and arguments.
    """

    exit_status = 1


class RecipeError(InputError):
    """The recipe or the command line's arguments are wrong."""

    exit_status = 2


class DataError(InputError):
    """Annotations or images are missing, unreadable or inconsistent."""


class CheckpointError(InputError):
    """A checkpoint cannot be loaded, or not completely."""


class TrainingError(InputError):
    """Training cannot go on: a loss that is not finite, labels the model has no class for."""


class Interrupted(KeyboardInterrupt):
    """A run was asked to end: by Ctrl-C, or by the system's SIGTERM; the text says how to go on.

    Attributes:
        exit_status: 128 and the signal's number, as shells have it.
    """

    def __init__(self, text: str, exit_status: int = 130) -> None:
        super().__init__(text)
        self.exit_status = exit_status


def first_line(error: BaseException) -> str:
    """First line of a library's error, to be put into a message of ours; its name where it says nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
