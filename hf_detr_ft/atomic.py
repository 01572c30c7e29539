"""Writing files so that nobody ever reads half of one, folders that one process has, and what the disk refuses."""

import errno
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from hf_detr_ft.errors import DataError, RecipeError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = re.compile(r"\.(?:.+\.)?(\d+)\.tmp")
"""Name of what is not whole yet, with the process that writes it."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system without locks."""
MOST_LINKS = 40
"""Links in a path that Linux follows."""


def write_bytes(path: Path, content: bytes) -> None:
    """Writes beside `path`, then renames; nothing is left behind where the disk refuses.

    Raises:
        OSError: the disk refuses.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise
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
        for path in beside.glob("*"):  # safetensors makes files that their owner alone can read
            path.chmod(beside.stat().st_mode & 0o666)
        for path in sorted(beside.glob("*"), key=lambda path: path.name in last):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder, where there is one; a folder loses its name first, so that none stays half.

    Raises:
        OSError: the disk refuses.
    """
    if path.is_dir() and not path.is_symlink():
        leaving = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.tmp")
        path.rename(leaving)
        shutil.rmtree(leaving)
    else:
        path.unlink(missing_ok=True)


def sweep_leftovers(folder: Path) -> None:
    """Removes what processes that were killed left half written in a folder; what a living one writes stays."""
    for path in folder.glob(".*.tmp"):
        writer = TEMPORARY.fullmatch(path.name)
        if writer and (int(writer[1]) == os.getpid() or not _is_alive(int(writer[1]))):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """True where a process of this machine has the number, and where the system cannot be asked."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        return True
    return True


@contextmanager
def lock_folder(lock: Path) -> Iterator[str]:
    """Keeps other processes out of a lock's folder, and gives the words for the one that has it; none where it is ours.

    The lock is the system's: it goes with its process, however that ends, and its children do not inherit it. Where
    the file system knows no locks, the file's content decides, in which a process of another machine counts as alive.

    Args:
        lock: its folder is made where it is not there, and goes again where nothing else came into it.

    Raises:
        OSError: the disk refuses.
    """
    made = [folder for folder in (lock.parent, *lock.parent.parents) if not folder.exists()]
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        file, owner = _take_lock(lock)
        with file:
            if owner:
                yield owner
                return
            file.truncate(0)
            own = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
            file.write(json.dumps(own) + "\n")
            file.flush()
            try:
                yield ""
            finally:
                lock.unlink(missing_ok=True)
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def _take_lock(lock: Path) -> tuple[IO[str], str]:
    """The lock's open file, and the words for the process that has it."""
    while True:
        file = lock.open("a+", encoding="utf-8")
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            known = fcntl is not None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                return file, _owner(file, certain=True)
            known = False
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file, "" if known else _owner(file, certain=False)
        file.close()  # it was removed by its owner meanwhile


def _owner(file: IO[str], certain: bool) -> str:
    """Words for the process that a lock's file names; none where it has ended.

    Args:
        file: of the lock.
        certain: the process is known to be there.
    """
    file.seek(0)
    try:
        owner = json.loads(file.read())
        process, host, since = int(owner["process"]), str(owner["host"]), str(owner["since"])
    except (ValueError, KeyError, TypeError):
        return "another process" if certain else ""
    if certain or host != socket.gethostname() or _is_alive(process):
        return f"process {process} of {host}, there since {since},"
    return ""


def follow_links(path: str | Path) -> Iterator[Path]:
    """The places that a path leads through, link by link, to the one it stands for."""
    place = Path(os.path.abspath(Path(path).expanduser()))
    for _ in range(MOST_LINKS):
        yield place
        link = next((part for part in (*reversed(place.parents), place) if part.is_symlink()), None)
        if link is None:
            break
        place = Path(os.path.normpath(link.parent / os.readlink(link) / place.relative_to(link)))
    yield Path(os.path.realpath(Path(path).expanduser()))


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
