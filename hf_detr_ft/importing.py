"""Imports of large libraries, which verbs make once their arguments and files are seen to be right."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def large_imports() -> Iterator[None]:
    """Keeps the garbage collector from what is imported meanwhile: it need not go through 600,000 objects every time.

    Some of them are objects that say on exit that they leak: `gc.unfreeze` has to come before.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()
