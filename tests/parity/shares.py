"""Losses of the two halves of a batch in two processes, by our criteria and by Transformers'."""

import sys
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save_file

from hf_detr_ft.model.loss import count_items
from tests.parity.cases import (
    FAMILIES,
    QUERIES,
    UNEVEN,
    UNLIKE,
    config_of,
    losses_and_gradients,
    ours,
    random_case,
    take_images,
)
from tests.parity.stock import stock_criterion


def run(folder: Path, counts: list[int], of_stock: bool = False) -> None:
    """Writes `folder`/RANK.safetensors from each process: `FAMILY/…`, losses and gradients of its half of four images.

    Args:
        folder: made where it is not there.
        counts: objects of the four images.
        of_stock: also writes `FAMILY/stock/…`, Transformers' losses, which processes average where ours add up.
    """
    folder.mkdir(exist_ok=True)
    rank = PartialState().process_index
    half = slice(0, 2) if rank == 0 else slice(2, 4)
    written = {}
    for name in FAMILIES:
        predictions, labels = random_case(name, counts, UNLIKE)
        predictions, labels, items = take_images(predictions, half), labels[half], count_items(labels, QUERIES)
        shares = losses_and_gradients(ours(name, items), predictions, labels)
        if of_stock:
            _, parts = stock_criterion(name, predictions, labels, config_of(name))
            shares |= {f"stock/{key}": torch.as_tensor(value).detach() for key, value in parts.items()}
        written |= {f"{name}/{key}": value.contiguous() for key, value in shares.items()}
    save_file(written, folder / f"{rank}.safetensors")


if __name__ == "__main__":
    PartialState(cpu=True)
    run(Path(sys.argv[1]), UNEVEN, of_stock=True)
