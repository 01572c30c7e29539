"""Reads a data set in several processes; each writes RANK.json: which files it read itself, and what it got."""

import json
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import datasets
from accelerate import PartialState

from hf_detr_ft.data import split_source, splits
from hf_detr_ft.data.cache import image_cache
from hf_detr_ft.data.checks import image_checks
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.errors import InputError
from hf_detr_ft.recipe.sections import DataConfig
from tests.fixtures import write_coco_folder

READERS = ((split_source, "read_coco"), (image_checks, "read_image"), (image_cache, "cached_images_key"))


def run(folder: Path, broken: bool) -> None:
    """Two splits and their kept images, one image missing where `broken`."""
    state, root, size = PartialState(), folder / "data", ImageSize(64, 96)
    if state.is_main_process:
        write_coco_folder(root)
        if broken:
            next((root / "train2017").iterdir()).unlink()
    state.wait_for_everyone()
    with ExitStack() as stack:
        stack.enter_context(patch.object(datasets.config, "HF_DATASETS_CACHE", folder / "cache"))
        readers = {
            name: stack.enter_context(patch.object(module, name, wraps=getattr(module, name)))
            for module, name in READERS
        }
        try:
            loaded = splits.load_splits(DataConfig(root=str(root)), size)
            kept = image_cache.cache_images(loaded.train, size, 1e9)
            assert kept is not None
            got = [loaded.fingerprints, loaded.truth, kept[1]["objects"], kept[1]["kept"]]
            got += [split.as_dict() for split in loaded.statistics.values()]
        except InputError as error:
            got = [str(error)]
        read = {name: reader.call_count for name, reader in readers.items()}
    (folder / f"{state.process_index}.json").write_text(json.dumps({"read": read, "got": got}))
