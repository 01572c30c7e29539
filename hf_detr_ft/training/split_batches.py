"""Batches in parts, where a device's memory does not suffice for the whole: what the parts give adds up to the same."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate.utils import release_memory

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """True where a device, or for a tensor the CPU, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def describe_batch(batch: dict[str, Any]) -> str:
    """Shape of a batch: `8 images of 800 x 1333 pixels`."""
    images, _, height, width = batch["pixel_values"].shape
    return f"{images} image{'s' if images > 1 else ''} of {height} x {width} pixels"


class BatchSplitter:
    """Runs batches whole, and in halves, quarters, … where the memory does not suffice; remembers what was too much.

    Args:
        is_enabled: split at all.
    """

    def __init__(self, is_enabled: bool) -> None:
        self.is_enabled = is_enabled
        self.too_large = math.inf
        """Pixels of the smallest part that did not fit."""

    def run(self, work: Callable[[dict[str, Any]], T], batch: dict[str, Any], undo: Callable[[], object]) -> list[T]:
        """Results of the parts, in their order.

        Args:
            work: is done with each part.
            batch: `pixel_values` `[B, 3, H, W]`, `pixel_mask` and `labels`.
            undo: takes back what the parts have left behind before one of them did not fit.

        Raises:
            RuntimeError: what `work` raised; of memory only where a single image is too large.
        """
        while True:
            parts = self._parts(batch)
            try:
                return [work(part) for part in parts]
            except RuntimeError as error:
                if not self.is_enabled or not is_out_of_memory(error) or len(parts) == len(batch["pixel_values"]):
                    raise
            # Only here, behind the traceback, nothing holds the maps of the part that did not fit.
            self.too_large = _pixels(parts[0])
            undo()
            release_memory()

    def _parts(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        images, size = len(batch["pixel_values"]), len(batch["pixel_values"])
        while size > 1 and _pixels(batch) / images * size >= self.too_large:
            size = math.ceil(size / 2)
        if size == images:
            return [batch]
        return [
            {name: values[start : start + size] for name, values in batch.items()} for start in range(0, images, size)
        ]


def _pixels(batch: dict[str, Any]) -> int:
    images, _, height, width = batch["pixel_values"].shape
    return images * height * width
