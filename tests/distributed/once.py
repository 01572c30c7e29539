"""Reads a data set in as many processes as Accelerate started; each writes FOLDER/RANK.json: what it read, what it got.

`accelerate launch … -m tests.distributed.once FOLDER ROOT`
"""

import json
import sys
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState

from hf_detr_ft.data import split_source, splits
from hf_detr_ft.data.cache import image_cache
from hf_detr_ft.data.checks import image_checks
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.errors import InputError
from hf_detr_ft.recipe.sections import DataConfig


def watch(module: Any, name: str, seen: list[str]) -> None:
    """Notes each call of a function of a module."""
    function = getattr(module, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        return function(*args, **kwargs)

    setattr(module, name, watched)


def run(folder: Path, root: str) -> int:
    """Two splits and their kept images; the exit status."""
    seen: list[str] = []
    watch(split_source, "read_coco", seen)
    watch(image_checks, "read_image", seen)
    watch(image_cache, "decode_cell", seen)
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    size, status, got = ImageSize(64, 96), 0, []
    try:
        loaded = splits.load_splits(DataConfig(root=root), size)
        kept = image_cache.store_photos(loaded.train, size, 1e9, "train")
        assert kept is not None
        got = [loaded.fingerprints, loaded.truth, kept[1]["objects"], len(kept[0]["image"]["bytes"])]
        got += [split.as_dict() for split in loaded.statistics.values()]
    except InputError as error:
        status, got = error.exit_status, [str(error)]
    rank = PartialState().process_index
    (folder / f"{rank}.json").write_text(json.dumps({"seen": seen, "got": got}))
    return status


if __name__ == "__main__":
    PartialState(cpu=True)
    sys.exit(run(Path(sys.argv[1]), sys.argv[2]))
