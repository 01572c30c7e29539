"""A small data set of drawn images, written as DETR fine-tuners expect it (`hf-detr-ft get synthetic DIR`).

Each image depends on its seed and index only, so any number of processes writes the same bytes. All work happens in a
hidden folder beside DIR, which is renamed when it is complete, so DIR is either whole or not there.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_detr_ft.atomic import is_free, write_folder
from hf_detr_ft.data.formats.coco_json import describe, write_coco
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.synthetic.image_set import ImageSetConfig, build_coco, draw_images, find_faults, split_indices
from hf_detr_ft.synthetic.render import SHORT_SIDE, select_classes


def write_drawn_folder(
    destination: Path,
    images: int = 200,
    val_images: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    *,
    short_side: tuple[int, int] = SHORT_SIDE,
    workers: int | None = None,
) -> list[str]:
    """Writes a data set of synthetic images.

    Args:
        destination: the folder to make, with `annotations/custom_{train,val}.json`, `train2017/` and `val2017/`.
        images: the number of training images.
        val_images: the number of validation images, none of which is in training; a fifth as many by default.
        seed: other images for each.
        classes: what is drawn and annotated; all classes by default.
        short_side: least and largest short side of the images in pixels.
        workers: the number of processes, which changes nothing in the result; one for each core by default.

    Returns:
        What each split holds, for the terminal.

    Raises:
        RecipeError: the arguments are wrong.
        DataError: `destination` is there and not empty, or cannot be written.
    """
    val_images = max(1, images // 5) if val_images is None else val_images
    _check_arguments(workers, images=images, val_images=val_images, classes=classes, seed=seed, short_side=short_side)
    set_config = ImageSetConfig(select_classes(classes), seed, short_side)
    destination = Path(os.path.abspath(destination.expanduser()))
    if not is_free(destination):
        raise DataError(f"{destination}: expected a new or empty folder, found other things; give another name")
    if workers is None:
        from hf_detr_ft.machine import count_cores  # with torch, which a wrong argument need not wait for

        workers = count_cores()
    descriptions = {}
    with write_folder(destination) as work:
        for split, indices in split_indices(images, val_images).items():
            coco = _write_split(work / f"{split}2017", indices, set_config, workers)
            write_coco(work / "annotations" / f"custom_{split}.json", coco)
            descriptions[split] = describe(coco)
    return [f"{destination} {split}: {description}" for split, description in descriptions.items()]


def _check_arguments(workers: int | None, **arguments: Any) -> None:
    """Raises RecipeError listing all that is wrong."""
    faults = find_faults(**arguments)
    if workers is not None and workers < 1:
        faults["workers"] = f"expected at least 1, found {workers}"
    if faults:
        lines = [f"{name}: {fault}" for name, fault in faults.items()]
        raise RecipeError("\n  ".join(["get synthetic: the arguments are wrong:", *lines]))


def _write_split(folder: Path, indices: range, set_config: ImageSetConfig, workers: int) -> dict[str, Any]:
    """Writes the images; returns their COCO dict."""
    folder.mkdir()
    entries = []
    with draw_images(indices, set_config, workers) as photos:
        for photo in tqdm(photos, total=len(indices), unit="photo", desc=folder.name, disable=None):
            (folder / photo.image["file_name"]).write_bytes(photo.jpeg)
            entries.append((photo.image, photo.annotations))
    return build_coco(entries, set_config.classes)
