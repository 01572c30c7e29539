"""How glibc, whose memory torch computes in on a CPU, hands it out and takes it back."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Of glibc's mallopt."""
USUAL = {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20}
"""What glibc has by itself once a program has freed blocks of 32 MiB; it moves the thresholds up to there."""
KEEPING = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}


@contextmanager
def keeping_memory(device: str, wanted: bool = True) -> Iterator[None]:
    """Keeps freed memory for the next step meanwhile, if that is wanted on a CPU and the C library is glibc.

    By itself it gives a block of more than 32 MiB back to the system as soon as it is free, and a batch of eight images
    has many of them: a sixth of a step went into having them mapped and zeroed again.
    """
    library = _glibc()
    if not wanted or device != "cpu" or library is None:
        yield
        return
    _set(library, KEEPING)
    try:
        yield
    finally:
        _set(library, USUAL)
        library.malloc_trim(0)


def give_memory_back() -> None:
    """Gives the system what is free, if the C library is glibc."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _set(library: ctypes.CDLL, values: dict[int, int]) -> None:
    for name, value in values.items():
        library.mallopt(name, value)
