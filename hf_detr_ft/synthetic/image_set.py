"""Synthetic images as a data set has them, JPEG and COCO's entries, drawn by any number of processes.

What draws in other processes is here, apart from `datasets` and torch, which every one of them would import.
"""

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from hf_detr_ft.errors import DataError
from hf_detr_ft.synthetic.render import VALIDATION_START, classes_fault, coco_annotations, coco_categories, render

JPEG_QUALITY = (70, 96)
"""Least, and one more than the largest."""
LEAST_SIDE = 32
CHUNK = 8
"""Images that a process is given at once."""


@dataclass(frozen=True)
class ImageSetConfig:
    """Settings that the images of a data set have in common."""

    classes: tuple[str, ...]
    seed: int
    short_side: tuple[int, int]
    """Least and largest, in pixels."""


class DrawnImage(NamedTuple):
    """An image as a data set has it."""

    jpeg: bytes
    image: dict[str, Any]
    """COCO's entry of it."""
    annotations: list[dict[str, Any]]
    """COCO's entries of its objects, numbered from 1 in every image; `build_coco` numbers them anew."""


def find_faults(
    *, images: int, val_images: int, classes: Sequence[str] | None, seed: int, short_side: Sequence[int]
) -> dict[str, str]:
    """Faults of the arguments that make a data set: by name, what was expected and what was found."""
    faults = {
        name: f"expected at least {least}, found {value}"
        for name, value, least in (("images", images, 1), ("val_images", val_images, 1), ("seed", seed, 0))
        if value < least
    }
    if images > VALIDATION_START:
        faults["images"] = f"expected at most {VALIDATION_START}, where validation begins, found {images}"
    if len(short_side) != 2 or not LEAST_SIDE <= short_side[0] <= short_side[1]:
        found = " ".join(map(str, short_side))
        faults["short_side"] = f"expected least and largest, {LEAST_SIDE} pixels or more, found {found}"
    fault = classes_fault(classes)
    return {**faults, "classes": fault} if fault is not None else faults


def split_indices(images: int, val_images: int) -> dict[str, range]:
    """The images of the training and the validation split, "train" and "val", none of them in both."""
    return {"train": range(images), "val": range(VALIDATION_START, VALIDATION_START + val_images)}


@contextmanager
def draw_images(indices: range, set_config: ImageSetConfig, workers: int) -> Iterator[Iterator[DrawnImage]]:
    """The images one by one, in the order of their indices, drawn in this process or, in advance, in others.

    Raises:
        DataError: one of the other processes was killed.
    """
    workers = min(workers, -(-len(indices) // CHUNK))
    if workers <= 1:
        yield (draw_image(index, set_config) for index in indices)
        return
    # Not forked: a fork copies locks that threads of this process may hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,))
    try:
        yield pool.map(draw_image, indices, [set_config] * len(indices), chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise DataError(
            "synthetic photos: a process that draws them was killed, perhaps for lack of memory; run again with fewer "
            "workers or cores, or with more memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def draw_image(index: int, set_config: ImageSetConfig) -> DrawnImage:
    """One image, named and numbered by its index."""
    photo = render(index, seed=set_config.seed, classes=set_config.classes, short_side=set_config.short_side)
    quality = int(np.random.default_rng([set_config.seed, index, 1]).integers(*JPEG_QUALITY))
    done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(photo.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV writes JPEG of any uint8 image"
    height, width = photo.image.shape[:2]
    image = {"id": index, "file_name": f"{index:012d}.jpg", "height": height, "width": width}
    return DrawnImage(jpeg.tobytes(), image, coco_annotations(photo, index, set_config.classes))


def build_coco(
    entries: Iterable[tuple[dict[str, Any], list[dict[str, Any]]]], classes: Sequence[str]
) -> dict[str, Any]:
    """The COCO dict of a split from COCO's entries of each image, its objects' ids from 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, objects in entries:
        images.append(image)
        annotations += [{**entry, "id": id_} for id_, entry in enumerate(objects, start=len(annotations) + 1)]
    return {"images": images, "annotations": annotations, "categories": coco_categories(classes)}
