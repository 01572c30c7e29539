"""Sources of a recipe's splits: files, or the generator of synthetic images."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_detr_ft.data.coco import LabelMap, read_coco
from hf_detr_ft.data.dataset import load_split
from hf_detr_ft.data.drawn_split import draw_split, load_drawn
from hf_detr_ft.data.file_names import resolve_file_names
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.recipe.sections import DataConfig
from hf_detr_ft.synthetic.image_set import ImageSetConfig, find_faults, split_indices
from hf_detr_ft.synthetic.render import select_classes

SYNTHETIC = ("images", "val_images", "classes", "seed", "short_side")
"""Fields of a recipe's `data`, each behind `synthetic_`."""


@dataclass(frozen=True)
class Source:
    """One split, before any check and any limit.

    Attributes:
        coco: its COCO dict.
        annotations: what messages call it: the annotation file.
        images_dir: the folder that `file_name` is relative to; None where the images are no files.
        fingerprint: name and SHA-256 of the annotations, for the record.
        load: the rows (see `load_split`) of this COCO dict, or of a part of its images.
        white_level: of images of 16 bits, see `decode_rgb`.
    """

    coco: dict[str, Any]
    annotations: Path
    images_dir: Path | None
    fingerprint: dict[str, str]
    load: Callable[[dict[str, Any], LabelMap], Dataset]
    white_level: int | None = None


def load_source(config: DataConfig, split: str) -> Source:
    """The split "train" or "val" of a recipe's `data`.

    Raises:
        RecipeError: synthetic images are described wrongly.
        DataError: the annotation file is not there or is no COCO JSON, or images cannot be drawn.
    """
    return _read(config, split) if config.synthetic_images is None else _draw(config, split)


def _read(config: DataConfig, split: str) -> Source:
    annotations, images_dir = config.path(f"{split}_annotations"), config.path(f"{split}_images")

    def load(coco: dict[str, Any], label_map: LabelMap) -> Dataset:
        return load_split(coco, images_dir, label_map, config.white_level)

    name, coco = getattr(config, f"{split}_annotations"), read_coco(annotations)
    if config.file_names == "similar":
        coco = resolve_file_names(coco, images_dir)
    return Source(coco, annotations, images_dir, {name: file_fingerprint(annotations)}, load, config.white_level)


def _draw(config: DataConfig, split: str) -> Source:
    settings = {name: getattr(config, f"synthetic_{name}") for name in SYNTHETIC}
    faults = find_faults(**settings)
    if faults:
        raise RecipeError("\n".join(f"data.synthetic_{name}: {fault}" for name, fault in faults.items()))
    least, largest = config.synthetic_short_side
    set_config = ImageSetConfig(select_classes(config.synthetic_classes), config.synthetic_seed, (least, largest))
    indices = split_indices(settings["images"], settings["val_images"])[split]
    coco, photos = draw_split(split, indices, set_config)
    name = f"synthetic {split}"
    digest = hashlib.sha256(json.dumps(coco).encode()).hexdigest()
    return Source(coco, Path(name), None, {name: digest}, partial(load_drawn, images=coco["images"], photos=photos))


def file_fingerprint(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
