"""Rows that are made once and kept in the cache of `datasets`.

`datasets` locks the cache, so that one of several processes makes the rows and the others wait for it; it gives them
their name only when all of them are there; and it maps them into memory, which all processes share.
"""

import errno
import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets import Dataset, Features, Image, NamedSplit, Value, concatenate_datasets
from datasets.exceptions import DatasetGenerationError

from hf_detr_ft.errors import DataError, InputError

CELL = {"bytes": Value("binary"), "path": Value("string")}
"""An image's file and its path or name. As `Image`, which rows have in the end, `datasets` would drop the bytes of each
image at whose path, in the current folder say, there is some file."""
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of a folder that may be read and not written."""


def cached_rows(
    make: Callable[..., Iterator[dict[str, Any]]],
    arguments: dict[str, Any],
    features: Features,
    *,
    key: str,
    name: str,
    folder: str,
    what: str,
) -> Dataset:
    """The rows that `make(**arguments)` yields, from the cache where they are in it, `image` as `Image(decode=False)`.

    Args:
        make: yields the rows; not called where they are in the cache.
        arguments: of it.
        features: of the rows; `image` is a `CELL`.
        key: another one wherever another byte may be made.
        name: of the split, for the progress bar.
        folder: where they lie, below HF_DATASETS_CACHE.
        what: they are, for messages.

    Raises:
        InputError: what `make` raised.
        DataError: the cache cannot be written or read.
    """
    place = Path(datasets.config.HF_DATASETS_CACHE) / "hf_detr_ft" / folder
    try:
        rows = Dataset.from_generator(
            make, features, cache_dir=str(place), gen_kwargs=arguments, split=NamedSplit(name), fingerprint=key
        )
        return rows.cast_column("image", Image(decode=False))
    except (OSError, DatasetGenerationError, pa.ArrowInvalid, JSONDecodeError) as error:
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) else error
        if isinstance(cause, InputError):
            raise cause from None
        if not isinstance(cause, OSError | pa.ArrowInvalid | JSONDecodeError):
            raise
        read_only = isinstance(cause, OSError) and cause.errno in READ_ONLY
        found = _find_rows(place, key, name) if read_only else None
        if found is not None:
            return found.cast_column("image", Image(decode=False))
        reason = getattr(cause, "strerror", None) or cause
        raise DataError(
            f"{place}: expected a folder to keep the {what} in, cannot write or read them there: {reason}. "
            "Remove it if it is damaged, or name another place in the environment variable HF_DATASETS_CACHE."
        ) from error


def _find_rows(place: Path, key: str, name: str) -> Dataset | None:
    """Whole rows that lie in the cache, without its lock, which takes a file that can be written."""
    files = sorted(place.glob(f"generator/*{key}/*/generator-{name}*.arrow"))
    whole = [file for file in files if (file.parent / "dataset_info.json").is_file()]
    return concatenate_datasets([Dataset.from_file(str(file)) for file in whole]) if whole else None


@cache
def hash_sources(files: tuple[Path, ...]) -> str:
    """SHA-256 of modules' files: no version number that a change could forget."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
