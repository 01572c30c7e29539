"""Losses of the two halves of a batch in two processes, by our criteria and by Transformers'."""

import sys
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save_file

from hf_detr_ft.model.loss import count_items
from tests.parity.cases import (
    COUNTS,
    FAMILIES,
    QUERIES,
    UNEVEN,
    config_of,
    losses_and_gradients,
    ours,
    random_case,
    take_images,
)
from tests.parity.stock import stock_criterion


def run(folder: Path, of_stock: bool = False) -> None:
    """Writes `folder`/RANK.safetensors from each process: `FAMILY/…`, losses and gradients of its half.

    `of_stock` writes Transformers' losses, which processes average, instead of ours, which they add up.
    """
    folder.mkdir(exist_ok=True)
    rank = PartialState().process_index
    half = slice(0, 2) if rank == 0 else slice(2, 4)
    written = {}
    for name in FAMILIES:
        whole, labels = random_case(name, UNEVEN if of_stock else COUNTS["objects"])
        predictions, labels, items = take_images(whole, half), labels[half], count_items(labels, QUERIES)
        if of_stock:
            _, shares = stock_criterion(name, predictions, labels, config_of(name))
        else:
            shares = losses_and_gradients(ours(name, items), predictions, labels)
        written |= {f"{name}/{key}": torch.as_tensor(value).detach().contiguous() for key, value in shares.items()}
    save_file(written, folder / f"{rank}.safetensors")


if __name__ == "__main__":
    PartialState(cpu=True)
    run(Path(sys.argv[1]), of_stock=True)
