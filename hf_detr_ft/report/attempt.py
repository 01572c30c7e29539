"""Parts of the report that can fail without the rest."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from hf_detr_ft.errors import InputError, first_line

logger = logging.getLogger(__name__)


@contextmanager
def attempt(part: str, notes: list[str]) -> Iterator[None]:
    """Ends at the first error, which becomes a note; only an interruption by the user goes on outwards.

    Args:
        part: the report's part, such as "the gallery".
        notes: for the page and the terminal; gets one more where the part fails.
    """
    try:
        yield
    except InputError as error:
        notes.append(f"Left out: {part}. {error}")
    except Exception as error:  # a bug or a full memory must not lose the rest, nor the training before it
        logger.info("The report goes on without %s", part, exc_info=True)
        notes.append(f"Left out: {part}. {type(error).__name__}: {first_line(error)}")
