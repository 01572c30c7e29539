"""Images decoded and resized once, for all epochs and all runs at this size; each is kept when it is first asked for.

What is kept is what the model's processor makes of an image before it normalises, byte for byte. Only images that get
smaller are resized; the others are kept as they are, decoded. All images of a split have their places in one file below
HF_DATASETS_CACHE, which takes room on the disk as they come. Whoever needs an image that is not there makes it and
writes it, be it a process or a loader's worker: two that do so at once write the same bytes, and a checksum tells what
is not there, half written or damaged, which is then made anew.
"""

import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL
import torch
import torchvision
import transformers
from datasets import Dataset, Features, Value, concatenate_datasets
from transformers import DetrImageProcessor

from hf_detr_ft.data import image_size, images
from hf_detr_ft.data.cache.row_cache import hash_sources
from hf_detr_ft.data.dataset import iterate_column, read_column
from hf_detr_ft.data.image_size import ImageProcessor, ImageSize, resize_image
from hf_detr_ft.data.images import decode_cell
from hf_detr_ft.data.once_per_machine import once_per_machine

logger = logging.getLogger(__name__)

PLACE = Features(
    {"kept": {"file": Value("string"), "start": Value("int64"), "height": Value("int32"), "width": Value("int32")}}
)
"""Place of an image: its first byte in the file, and the size in which it is kept."""
MARK = b"kept"
HEAD = len(MARK) + 4
"""Bytes before an image's pixels: the mark and their CRC-32."""
SUFFIX = ".images"
MODULES = tuple(Path(str(file)) for file in (__file__, images.__file__, image_size.__file__))
"""Files of the modules that decode: with other code, images are made anew."""
UNUSED_SECONDS = 3 * 24 * 3600
"""Time after which a file that no run began with and none wrote to may be removed."""


def cache_images(
    rows: Dataset, size: ImageSize, limit_bytes: float, processor: ImageProcessor | None = None
) -> Dataset | None:
    """The rows with a column `kept`, the place that `load_pixels` keeps their image at; no image is read.

    Args:
        rows: of `load_split`, without a transform.
        size: that the model takes images in.
        limit_bytes: of the images; None is returned where they would take more, or cannot be kept.
        processor: of the transform that the rows will have; DETR's where not given.
    """
    sizes = cached_sizes(np.array(read_column(rows, "original_size"), dtype=np.int64).reshape(-1, 2), size)
    ends = np.cumsum(HEAD + 3 * sizes.prod(axis=1))
    if not len(rows) or ends[-1] - HEAD * len(rows) > limit_bytes:
        return None
    chosen: Any = processor or DetrImageProcessor()
    key = partial(cached_images_key, rows, size, chosen)
    file = once_per_machine(lambda: _make_file(key, int(ends[-1]), limit_bytes))
    if file is None:
        return None
    starts = np.r_[0, ends[:-1]]
    places = [
        {"file": file, "start": start, "height": height, "width": width}
        for start, (height, width) in zip(starts.tolist(), sizes.tolist(), strict=True)
    ]
    return concatenate_datasets([rows, Dataset.from_dict({"kept": places}, features=PLACE)], axis=1)


def cached_sizes(sizes_px: np.ndarray, size: ImageSize) -> np.ndarray:
    """Sizes (height, width) in which images are kept; their own where that would be larger, or nothing at all.

    Args:
        sizes_px: `[N, 2]` of the upright images.
        size: that the model takes images in.
    """
    resized = size.of_each(sizes_px)
    fits = ((resized >= 1) & (resized <= sizes_px)).all(axis=1, keepdims=True)
    return np.where(fits, resized, sizes_px)


def _make_file(key: Callable[[], str], length: int, limit_bytes: float) -> str | None:
    """Path of the file for these images, which is there afterwards; None where there cannot be one."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "hf_detr_ft" / "resized"
    try:
        file = folder / f"{key()}{SUFFIX}"
        folder.mkdir(parents=True, exist_ok=True)
        remove_unused(file, 2 * limit_bytes - length)
        with open(os.open(file, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as stream:
            missing = length - _bytes_on_disk(os.fstat(stream.fileno()))
            if missing > shutil.disk_usage(folder).free:
                warn(str(folder), f"{missing / 1e9:.1f} GB are needed and not free")
                return None
            stream.truncate(length)
        os.utime(file)
    except OSError as error:
        if not (file.is_file() and file.stat().st_size == length):
            warn(str(folder), error.strerror)
            return None
    return str(file)


def _bytes_on_disk(status: os.stat_result) -> int:
    """Bytes that a file takes, without those of its length that nobody wrote."""
    return getattr(status, "st_blocks", 0) * 512


def cached_images_key(rows: Dataset, size: ImageSize, processor: ImageProcessor) -> str:
    """Key of the kept images, another one wherever another byte may be made.

    Files count as changed when their size or time does.
    """
    white_level = rows["white_level"][0] if "white_level" in rows.column_names else None
    made_by = [hash_sources(MODULES), *(m.__version__ for m in (PIL, torch, torchvision, transformers))]
    resizes = [type(processor).__name__, int(processor.resample)]
    digest = hashlib.sha256(json.dumps([made_by, resizes, sorted(size.as_dict().items()), white_level]).encode())
    for cell in iterate_column(rows, "image"):
        if cell["bytes"]:
            digest.update(hashlib.sha256(cell["bytes"]).digest())
        else:
            path, of_file = os.path.abspath(cell["path"]), (0, 0)
            with suppress(OSError):  # whoever reads the row meets its file's fault
                of_file = (status := os.stat(path)).st_size, status.st_mtime_ns
            digest.update(json.dumps([path, *of_file]).encode())
    return digest.hexdigest()[:32]


def load_pixels(
    kept: Mapping[str, Any],
    image: Mapping[str, Any],
    processor: ImageProcessor,
    white_level: int | None = None,
) -> np.ndarray:
    """Pixels `[h, w, 3]` uint8 of an image as it is kept; made and kept where they are not there yet.

    Args:
        kept: its place, see `PLACE`.
        image: its cell of the column `image`.
        processor: whose way to resize is taken.
        white_level: of images of 16 bits, see `decode_rgb`.

    Raises:
        DataError: the image cannot be decoded.
    """
    pixels = _read(kept)
    if pixels is None:
        pixels = make_pixels(image, (kept["height"], kept["width"]), processor, white_level)
        content = pixels.tobytes()
        try:
            with open(kept["file"], "r+b") as stream:
                stream.seek(kept["start"])
                stream.write(_head(content) + content)
        except OSError as error:
            warn(str(Path(kept["file"]).parent), error.strerror)
    return pixels


def _read(kept: Mapping[str, Any]) -> np.ndarray | None:
    """Pixels that are there, whole."""
    shape = kept["height"], kept["width"], 3
    try:
        with open(kept["file"], "rb") as stream:
            stream.seek(kept["start"])
            head, content = stream.read(HEAD), stream.read(shape[0] * shape[1] * 3)
    except OSError:
        return None
    return np.frombuffer(content, dtype=np.uint8).reshape(shape) if head == _head(content) else None


def _head(content: bytes) -> bytes:
    return MARK + zlib.crc32(content).to_bytes(4, "big")


def make_pixels(
    image: Mapping[str, Any], shape: tuple[int, int], processor: ImageProcessor, white_level: int | None = None
) -> np.ndarray:
    """Pixels `[h, w, 3]` uint8 of an image, resized to a shape (height, width) where it has another."""
    decoded = decode_cell(image, white_level=white_level)
    if (decoded.height, decoded.width) == shape:
        return np.asarray(decoded)
    resized = resize_image(decoded, processor, ImageSize.exactly(*shape))
    return resized.permute(1, 2, 0).contiguous().numpy()


@cache
def warn(folder: str, reason: str | None) -> None:
    """Says once in each process that images cannot be kept."""
    logger.warning(
        "%s: resized images cannot be kept there: %s. Images are decoded anew in every epoch instead; the environment "
        "variable HF_DATASETS_CACHE names another place.",
        folder,
        reason,
    )


def remove_unused(used: Path, limit_bytes: float) -> None:
    """Removes files of the same folder that were not used lately, the longest unused first.

    Args:
        used: stays.
        limit_bytes: nothing is removed while all others take no more.
    """
    others = sorted((path.stat().st_mtime, path) for path in used.parent.glob(f"*{SUFFIX}") if path != used)
    total = sum(path.stat().st_size for _, path in others)
    for last_use, path in others:
        if total <= limit_bytes or time.time() - last_use < UNUSED_SECONDS:
            return
        total -= path.stat().st_size
        path.unlink(missing_ok=True)  # another process may be at it, too
