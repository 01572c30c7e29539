"""The first epoch of a stream in several processes of two workers each, and of local reading in its order."""

import json
from itertools import chain
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object

from tests.streamed import flags_of_training, train_recorded, write_parquet


def run(folder: Path) -> None:
    """Trains on shards twice, and writes `folder`/RANK.json: steps of all processes, and losses, of both."""
    state = PartialState()
    if state.is_main_process:
        write_parquet(folder / "data")
        flags_of_training(folder, folder / "data", folder)
    state.wait_for_everyone()
    epoch = {"training__num_train_epochs": 1, "training__dataloader_num_workers": 2, "training__eval_strategy": "no"}
    found, order = {}, None
    for name in ("streamed", "local"):
        streaming = {"data__streaming": name == "streamed"}
        flags = flags_of_training(folder, folder / "data", folder / name, **epoch, **streaming)
        own, losses = train_recorded(flags, folder / name, order)
        steps = [[*chain(*images)] for images in zip(*gather_object([own]), strict=True)]
        found[name], order = (
            {"own": own, "steps": steps, "losses": losses},
            [image - 1 for images in steps for image in images],
        )
        state.wait_for_everyone()
    (folder / f"{state.process_index}.json").write_text(json.dumps(found))
