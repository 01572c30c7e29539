"""Synthetic images as a `datasets.Dataset`, drawn once and kept in the cache of `datasets`."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets

from hf_detr_ft.data.cache.row_cache import CELL, cached_rows, hash_sources
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.dataset import iterate_column, load_split
from hf_detr_ft.machine import count_cores
from hf_detr_ft.recipe.sections import MaskUse
from hf_detr_ft.synthetic import image_set
from hf_detr_ft.synthetic.image_set import ImageSetConfig, build_coco, draw_images

DRAWN_FEATURES = Features({"image": CELL, "entries": Value("string")})
"""JPEG under "bytes" and file name under "path"; COCO's entries of image and objects as JSON."""
LEAST_PARALLEL = 64
"""Least images that other processes are started for; fewer are drawn sooner than these start."""
MODULES = tuple(sorted(Path(image_set.__file__).parent.glob("*.py")))
"""Files of the modules that draw: with other code, images are drawn anew."""


def draw_split(
    name: str, indices: range, set_config: ImageSetConfig, outlines: bool = False
) -> tuple[dict[str, Any], Dataset]:
    """The COCO dict of a split and its images with the columns of `DRAWN_FEATURES`.

    They are drawn where they are not in the cache.

    Args:
        name: of the split, for the progress bar.
        indices: of the images.
        set_config: what they have in common.
        outlines: give the dict those of the objects.

    Raises:
        DataError: the cache cannot be written or read, or a process that draws was killed.
    """
    photos = cached_rows(
        _rows,
        {"indices": indices, "set_config": set_config},
        DRAWN_FEATURES,
        key=cache_key(indices, set_config),
        name=name,
        folder="drawn",
        what="drawn photos",
    )
    read = json.loads if outlines else _without_outlines
    return build_coco(map(read, iterate_column(photos, "entries")), set_config.classes), photos


def _without_outlines(entries: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO's entries of an image as `draw_split` needs them; its areas are right."""
    image, annotations = json.loads(entries)
    return image, [{key: entry[key] for key in entry if key != "segmentation"} for entry in annotations]


def _rows(indices: range, set_config: ImageSetConfig) -> Iterator[dict[str, Any]]:
    """Rows of `DRAWN_FEATURES`."""
    with draw_images(indices, set_config, 1 if len(indices) < LEAST_PARALLEL else count_cores()) as photos:
        for jpeg, image, annotations in photos:
            yield {"image": {"path": image["file_name"], "bytes": jpeg}, "entries": json.dumps([image, annotations])}


def cache_key(indices: range, set_config: ImageSetConfig) -> str:
    """Key of drawn images, another one wherever another byte may be drawn."""
    made_by = [hash_sources(MODULES), np.__version__, cv2.__version__]
    made_of = [indices.start, len(indices), set_config.seed, set_config.classes, set_config.short_side]
    return hashlib.sha256(json.dumps(made_by + made_of).encode()).hexdigest()[:32]


def load_drawn(
    coco: dict[str, Any],
    label_map: LabelMap,
    *,
    images: list[dict[str, Any]],
    photos: Dataset,
    masks: MaskUse = False,
) -> Dataset:
    """Rows as those of `load_split`, with the images' bytes.

    Args:
        coco: of the split, or of a part of its images.
        label_map: from category ids to labels.
        images: COCO's entries of all images of the split.
        photos: of the split, one for each of `images`.
        masks: see `load_split`.
    """
    # With all images, and selected from afterwards: `datasets` joins columns of selected rows by copying the images.
    rows = load_split({**coco, "images": images}, Path(), label_map, masks=masks).remove_columns("image")
    joined = concatenate_datasets([photos.select_columns("image"), rows], axis=1)
    places = {image["id"]: place for place, image in enumerate(images)}
    return joined.select([places[image["id"]] for image in coco["images"]])
