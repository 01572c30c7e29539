"""Writing files so that nobody ever reads half of one, and saying what the disk refuses."""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_detr_ft.errors import DataError, RecipeError


def write_bytes(path: Path, content: bytes) -> None:
    """Writes beside `path`, then renames; nothing is left behind where the disk refuses.

    Raises:
        OSError: the disk refuses.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8, line ends as given; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Writes strict JSON, without NaN; see `write_text`."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


@contextmanager
def write_files_beside(folder: Path, last: Collection[str] = ()) -> Iterator[Path]:
    """Gives a hidden folder in `folder`, whose files take their places in it once all of them are written.

    Args:
        folder: made if it is not there.
        last: names of files that are put in their places after all others.
    """
    beside = folder / f".{os.getpid()}.tmp"
    try:
        yield beside
        for path in sorted(beside.glob("*"), key=lambda path: path.name in last):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def is_free(folder: Path) -> bool:
    """True where a folder is not there, or empty.

    Raises:
        DataError: the disk refuses to say.
    """
    try:
        return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


@contextmanager
def write_folder(destination: Path) -> Iterator[Path]:
    """Gives a hidden folder beside `destination`, and puts it in its place once everything is written.

    Args:
        destination: free, see `is_free`.

    Raises:
        DataError: the disk refuses something.
    """
    beside = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    try:
        try:
            beside.mkdir(parents=True)
            yield beside
            if destination.exists():
                destination.rmdir()  # Windows renames to no folder that exists
            beside.rename(destination)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{error.filename or destination}: cannot be read or written: {error.strerror}") from error


@contextmanager
def explain_refusal(path: Path) -> Iterator[None]:
    """Turns what the disk refuses meanwhile into an error that names the file.

    Raises:
        DataError: something cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}. See --output.") from error


def check_output_file(output: Path | None, flag: str = "--output") -> None:
    """Refuses, before any work, a file of `--output` or another flag that could not be written for want of a folder.

    Raises:
        RecipeError: its folder does not exist.
    """
    if output is not None and not output.parent.is_dir():
        raise RecipeError(f"{flag}: expected a file in a folder that exists, found '{output}'. Make '{output.parent}'.")
