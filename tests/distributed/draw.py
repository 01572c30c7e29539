"""Draws a recipe's photos in as many processes as Accelerate started.

`accelerate launch … -m tests.distributed.draw FOLDER` writes from each process FOLDER/RANK.json: what it got, and
which splits it drew itself.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState

from hf_detr_ft.data import drawn_split as synthetic_split
from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.recipe.sections import DataConfig

CONFIG = DataConfig(synthetic_images=20, synthetic_val_images=5, synthetic_short_side=(64, 64))
DRAW_PHOTOS = synthetic_split.draw_photos


def run(folder: Path) -> None:
    """Two processes draw training, in the one that draws."""
    drawn = []

    def watch(indices: range, *args: Any) -> Any:
        drawn.append(len(indices))
        return DRAW_PHOTOS(indices, *args)

    synthetic_split.draw_photos = watch
    synthetic_split.ALONE = 20
    synthetic_split.count_cores = lambda: 2
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    PartialState().wait_for_everyone()  # so that all of them find nothing in the cache
    splits = load_splits(CONFIG)
    photos = [[row["image"]["bytes"] for row in split] for split in (splits.train, splits.val)]
    digests = [hashlib.sha256(b"".join(split)).hexdigest() for split in photos]
    content = {"drawn": drawn, "digests": digests, "fingerprints": splits.fingerprints}
    (folder / f"{PartialState().process_index}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    PartialState(cpu=True)
    run(Path(sys.argv[1]))
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
