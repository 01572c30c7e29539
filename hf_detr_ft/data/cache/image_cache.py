"""Images decoded and resized once, for all epochs and all runs at this size; kept in the cache of `datasets`.

What is kept is what the model's processor makes of an image before it normalises, byte for byte. Only images that get
smaller are resized; the others are kept as they are, decoded.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision
import transformers
from datasets import Dataset, Features, Sequence, Value, concatenate_datasets
from transformers import DetrImageProcessor

from hf_detr_ft.data import image_size, images
from hf_detr_ft.data.cache.row_cache import CELL, ReadOnlyCacheError, cached_rows, hash_sources, remove_unused
from hf_detr_ft.data.dataset import iterate_column
from hf_detr_ft.data.image_size import ImageProcessor, ImageSize, resize_image
from hf_detr_ft.data.images import GO_ON, cell_size, decode_cell
from hf_detr_ft.data.once_per_machine import once_per_machine
from hf_detr_ft.errors import DataError
from hf_detr_ft.machine import count_cores

logger = logging.getLogger(__name__)

CACHED_FEATURES = Features({"image": CELL, "original_size": Sequence(Value("int32"), length=2)})
"""The pixels as PPM under "bytes", the image's path or name under "path"; (height, width) of the upright image."""
MODULES = tuple(Path(str(file)) for file in (__file__, images.__file__, image_size.__file__))
"""Files of the modules that decode: with other code, images are made anew."""
AHEAD = 64
"""Images that are decoded in advance."""


def cache_images(
    rows: Dataset,
    size: ImageSize,
    limit_bytes: float,
    name: str,
    processor: ImageProcessor | None = None,
    skip_unreadable: bool = False,
) -> Dataset | None:
    """The rows with their images decoded and at most as large as the model takes them, and `original_size`.

    One process of each machine makes them for all.

    Args:
        rows: of `load_split`, without a transform.
        size: that the model takes images in.
        limit_bytes: of the images; None is returned, and nothing is made, where they would take more.
        name: of the split, for the progress bar.
        processor: whose way to resize is taken; DETR's where not given.
        skip_unreadable: keep nothing of an image that cannot be decoded: whoever reads the row meets its file's fault.

    Raises:
        DataError: an image cannot be decoded, or the cache cannot be written or read.
    """
    white_level = rows["white_level"][0] if "white_level" in rows.column_names and len(rows) else None
    cells = rows.select_columns("image")
    chosen: Any = processor or DetrImageProcessor()
    stored = once_per_machine(
        lambda: _make_or_find(cells, size, white_level, limit_bytes, name, chosen, skip_unreadable)
    )
    if stored is None:
        return None
    others = [column for column in rows.column_names if column not in ("image", "white_level")]
    return concatenate_datasets([stored, rows.select_columns(others)], axis=1)


def _make_or_find(
    cells: Dataset,
    size: ImageSize,
    white_level: int | None,
    limit_bytes: float,
    name: str,
    processor: ImageProcessor,
    skip_unreadable: bool,
) -> Dataset | None:
    """Rows of `CACHED_FEATURES`; None beyond the limit, and where the cache lacks them and can only be read."""
    total = 0
    for cell in iterate_column(cells, "image"):
        height, width = cached_size(*cell_size(cell), size)
        total += height * width * 3
        if total > limit_bytes:
            return None
    try:
        stored = cached_rows(
            _rows,
            {
                "cells": cells,
                "size": size,
                "white_level": white_level,
                "processor": processor,
                "skip_unreadable": skip_unreadable,
            },
            CACHED_FEATURES,
            key=cached_images_key(cells, size, white_level, processor),
            name=name,
            folder="resized",
            what="resized images",
        )
    except ReadOnlyCacheError as error:
        logger.warning("%s Images are decoded anew in every epoch instead.", error)
        return None
    remove_unused(stored, 2 * limit_bytes)
    return stored


def cached_size(height: int, width: int, size: ImageSize) -> tuple[int, int]:
    """Size (height, width) in which an image is kept; its own where that would be larger, or nothing at all."""
    target = size.of(height, width)
    fits = 1 <= target[0] <= height and 1 <= target[1] <= width
    return target if fits else (height, width)


def cached_images_key(cells: Dataset, size: ImageSize, white_level: int | None, processor: ImageProcessor) -> str:
    """Key of the kept images, another one wherever another byte may be made.

    Files count as changed when their size or time does.
    """
    made_by = [hash_sources(MODULES), *(m.__version__ for m in (PIL, torch, torchvision, transformers))]
    resizes = [type(processor).__name__, int(processor.resample)]
    digest = hashlib.sha256(json.dumps([made_by, resizes, sorted(size.as_dict().items()), white_level]).encode())
    for cell in iterate_column(cells, "image"):
        if cell["bytes"]:
            digest.update(hashlib.sha256(cell["bytes"]).digest())
        else:
            path = Path(cell["path"]).absolute()
            digest.update(json.dumps([str(path), path.stat().st_size, path.stat().st_mtime_ns]).encode())
    return digest.hexdigest()[:32]


def _rows(
    cells: Dataset, size: ImageSize, white_level: int | None, processor: ImageProcessor, skip_unreadable: bool
) -> Iterator[dict[str, Any]]:
    """Rows of `CACHED_FEATURES`. Decoding and resizing leave Python's lock to others, so threads will do."""

    def row(cell: dict[str, Any]) -> dict[str, Any]:
        try:
            image = decode_cell(cell, white_level=white_level)
        except DataError as error:
            if not skip_unreadable:
                raise DataError(f"{error} {GO_ON}") from error
            return {"image": {"path": cell["path"], "bytes": None}, "original_size": None}
        original = image.height, image.width
        height, width = cached_size(*original, size)
        if (height, width) == original:
            pixels = image.tobytes()
        else:
            resized = resize_image(image, processor, ImageSize.exactly(height, width))
            pixels = resized.permute(1, 2, 0).numpy().tobytes()
        head = f"P6 {width} {height} 255\n".encode()
        return {"image": {"path": cell["path"], "bytes": head + pixels}, "original_size": original}

    yield from in_threads(row, iterate_column(cells, "image"))


def in_threads(do: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """Maps on as many threads as there are cores, not far ahead of what is taken."""
    with ThreadPoolExecutor(count_cores()) as pool:
        while window := list(islice(items, AHEAD)):
            yield from pool.map(do, window)
