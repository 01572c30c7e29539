"""Draws a recipe's images in as many processes as Accelerate started."""

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState

from hf_detr_ft.data import drawn_split
from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.recipe.sections import DataConfig

CONFIG = DataConfig(synthetic_images=20, synthetic_val_images=5, synthetic_short_side=(64, 64))
DRAW_IMAGES = drawn_split.draw_images


def run(folder: Path) -> None:
    """Writes `folder`/RANK.json from each process: what it got, and the sizes of the splits that it drew itself.

    Training is drawn by two workers of the process that draws it, validation by that process alone.
    """
    folder.mkdir(exist_ok=True)
    drawn = []

    def watch(indices: range, *args: Any) -> Any:
        drawn.append(len(indices))
        return DRAW_IMAGES(indices, *args)

    drawn_split.draw_images = watch
    drawn_split.LEAST_PARALLEL = 20
    drawn_split.count_cores = lambda: 2
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    PartialState().wait_for_everyone()  # so that all of them find nothing in the cache
    splits = load_splits(CONFIG)
    photos = [[row["image"]["bytes"] for row in split] for split in (splits.train, splits.val)]
    digests = [hashlib.sha256(b"".join(split)).hexdigest() for split in photos]
    content = {"drawn": drawn, "digests": digests, "fingerprints": splits.fingerprints}
    (folder / f"{PartialState().process_index}.json").write_text(json.dumps(content))
