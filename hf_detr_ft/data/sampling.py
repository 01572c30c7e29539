"""In which order images are drawn."""

from collections.abc import Iterator
from typing import cast

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_detr_ft.data.transform import Epoch


class EpochSampler(LengthGroupedSampler):
    """Transformers' length-grouped sampler, its order a function of seed and epoch alone.

    The order does not depend on what else was drawn, so an epoch that was interrupted goes on with the images that it
    had left, on any number of processes.
    """

    def __init__(self, batch_size: int, lengths: list[float], seed: int, epoch: Epoch) -> None:
        super().__init__(batch_size, lengths=cast(list[int], lengths))
        self.seed = seed
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch.get())
        order = super().__iter__()
        self.generator = None  # or accelerate would take it for one to synchronise
        return order


class SortedSampler(Sampler[int]):
    """Indices in a given order."""

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)
