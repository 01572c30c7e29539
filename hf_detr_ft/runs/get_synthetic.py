"""`hf-detr-ft get synthetic DIR`: draws a small data set and lays it out as DETR fine-tuners expect it.

Each photo depends on its seed and index only, so any number of processes writes the same bytes. All work happens in a
hidden folder beside DIR, which is renamed when it is complete, so DIR is either whole or not there.
"""

import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from hf_detr_ft.data.synthetic import (
    SHORT_SIDE,
    VALIDATION_START,
    coco_annotations,
    coco_categories,
    render,
    select_classes,
)
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.runs.convert import describe, write_coco

JPEG_QUALITY = (70, 96)
"""Least, and one more than the largest."""
LEAST_SIDE = 32
CHUNK = 8
"""Photos that a process is given at once."""


def get_synthetic(
    destination: Path,
    images: int = 200,
    val_images: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    *,
    short_side: tuple[int, int] = SHORT_SIDE,
    workers: int | None = None,
) -> int:
    """Writes a data set of synthetic photos. Returns the exit status.

    Args:
        destination: the folder to make, with `annotations/custom_{train,val}.json`, `train2017/` and `val2017/`.
        images: the number of training photos.
        val_images: the number of validation photos, none of which is in training; a fifth as many by default.
        seed: other photos for each.
        classes: what is drawn and annotated; all classes by default.
        short_side: least and largest short side of the photos in pixels.
        workers: the number of processes, which changes nothing in the result; one for each core by default.

    Raises:
        RecipeError: the arguments are wrong.
        DataError: `destination` is there and not empty, or cannot be written.
    """
    val_images = max(1, images // 5) if val_images is None else val_images
    workers = _cores() if workers is None else workers
    _check_arguments(images, val_images, seed, short_side, workers)
    series = _Series(select_classes(classes), seed, short_side)
    destination = Path(os.path.abspath(destination.expanduser()))
    work = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    descriptions = {}
    try:
        if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
            raise DataError(f"{destination}: expected a new or empty folder, found other things; give another name")
        try:
            for split, start, count in (("train", 0, images), ("val", VALIDATION_START, val_images)):
                coco = _write_split(work / f"{split}2017", range(start, start + count), series, workers)
                write_coco(work / "annotations" / f"custom_{split}.json", coco)
                descriptions[split] = describe(coco)
            if destination.exists():
                destination.rmdir()  # empty, as was seen; Windows renames to no folder that exists
            work.rename(destination)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{error.filename or destination}: cannot be read or written: {error.strerror}") from error
    for split, description in descriptions.items():
        print(f"{destination} {split}: {description}")
    return 0


def _cores() -> int:
    """Those that this process may use, where the system says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_arguments(images: int, val_images: int, seed: int, short_side: tuple[int, int], workers: int) -> None:
    """Raises RecipeError listing all that is wrong."""
    problems = [
        f"{name}: expected at least {least}, found {value}"
        for name, value, least in (
            ("images", images, 1),
            ("val_images", val_images, 1),
            ("seed", seed, 0),
            ("workers", workers, 1),
        )
        if value < least
    ]
    if images > VALIDATION_START:
        problems.append(f"images: expected at most {VALIDATION_START}, where validation begins, found {images}")
    if not LEAST_SIDE <= short_side[0] <= short_side[1]:
        found = f"{short_side[0]} {short_side[1]}"
        problems.append(f"short_side: expected least and largest, {LEAST_SIDE} pixels or more, found {found}")
    if problems:
        raise RecipeError("\n  ".join(["get synthetic: the arguments are wrong:", *problems]))


@dataclass(frozen=True)
class _Series:
    """What the photos of a data set have in common."""

    classes: tuple[str, ...]
    seed: int
    short_side: tuple[int, int]


def _write_split(folder: Path, indices: range, series: _Series, workers: int) -> dict[str, Any]:
    """Writes the photos; returns their COCO dict."""
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with _photos(folder, indices, series, workers) as photos:
        for image, found in tqdm(photos, total=len(indices), unit="photo", desc=folder.name, disable=None):
            images.append(image)
            annotations.extend(found)
    for id_, annotation in enumerate(annotations, start=1):
        annotation["id"] = id_
    return {"images": images, "annotations": annotations, "categories": coco_categories(series.classes)}


Entries = tuple[dict[str, Any], list[dict[str, Any]]]
"""COCO's entry of an image, and those of its objects."""


@contextmanager
def _photos(folder: Path, indices: range, series: _Series, workers: int) -> Iterator[Iterator[Entries]]:
    """Writes the photos one by one, in the order of their indices, in this process or in others."""
    if workers == 1:
        yield (_write_photo(folder, index, series) for index in indices)
        return
    # Not forked: a fork copies locks that threads of this process may hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,))
    try:
        count = len(indices)
        yield pool.map(_write_photo, [folder] * count, indices, [series] * count, chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise DataError(f"{folder}: a process that writes photos was killed; run again with fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write_photo(folder: Path, index: int, series: _Series) -> Entries:
    photo = render(index, seed=series.seed, classes=series.classes, short_side=series.short_side)
    quality = int(np.random.default_rng([series.seed, index, 1]).integers(*JPEG_QUALITY))
    done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(photo.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV writes JPEG of any uint8 image"
    name = f"{index:012d}.jpg"
    (folder / name).write_bytes(jpeg.tobytes())
    height, width = photo.image.shape[:2]
    image = {"id": index, "file_name": name, "height": height, "width": width}
    return image, coco_annotations(photo, index, series.classes)
