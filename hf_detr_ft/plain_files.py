"""Opening files that somebody else may have named: neither one that never ends nor one that never begins."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
MEMORY_OF_JSON = 4
"""Least memory that a parsed JSON takes, in multiples of its file: numbers and keys become objects."""


def open_file(path: Path) -> BinaryIO:
    """Opens a file for reading.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device or a socket, which would be waited for or read for ever.
    """
    kind = KINDS.get(stat.S_IFMT(path.stat().st_mode))
    if kind is not None:
        raise OSError(errno.EINVAL, f"it is {kind}, not a file; copy its content into one", str(path))
    return path.open("rb")


def read_file(path: Path, most_bytes: int) -> bytes:
    """Content of a file.

    Raises:
        OSError: it cannot be read, is no plain file (see `open_file`), or has more bytes than the limit.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise OSError(errno.EFBIG, f"it has {_in_units(size)}, expected {_in_units(most_bytes)} at most", str(path))
        return file.read()


def largest_json() -> int:
    """Bytes of the largest JSON that this machine's memory could hold when it is parsed."""
    memory = total_memory()
    return memory // MEMORY_OF_JSON


def _in_units(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def total_memory() -> int:
    """Bytes of memory that the machine has; plenty where the system does not say."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**40
