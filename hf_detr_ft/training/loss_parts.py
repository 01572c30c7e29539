"""Parts of the loss, added up over steps, and which images of a batch are to count in it."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from accelerate.state import GradientState

NOT_COUNTED = "not_counted"


class LossParts:
    """Adds up the parts of the loss on the device and reads them once."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0.0

    def add(self, parts: Iterable[dict[str, torch.Tensor]], share: float) -> None:
        """Adds what together is `share` of a step: 1, or 1 of the micro-batches where these are to be averaged."""
        for part in parts:
            for name, value in part.items():
                value = value.detach().float()
                self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += share


def own_images(
    batch: dict[str, Any], state: GradientState, process: int, processes: int, step: int = 1
) -> dict[str, Any]:
    """A batch without those images that another process has, too, and without the padding that they asked for.

    Accelerate fills the last batches of an epoch up with its first images, so that all processes have some. What is
    left are the first images of these batches. A process that has none of its own keeps one, to go through the network
    with the others; its batch has the key `NOT_COUNTED`.

    Args:
        batch: the latest that the data loader gave, as `collate` makes it.
        state: of the running data loader.
        process: index of this one.
        processes: number of them.
        step: of `collate`.
    """
    if processes == 1 or not state.end_of_dataloader or state.remainder <= 0:
        return batch
    size = state.active_dataloader.total_batch_size // processes
    own = min(max(state.remainder - process * size, 0), size)
    cut = {name: values[: max(own, 1)] for name, values in batch.items()}
    height, width = (-(-int(cut["pixel_mask"].amax(axes).sum()) // step) * step for axes in ((0, 2), (0, 1)))
    for name in ("pixel_values", "pixel_mask"):
        cut[name] = cut[name][..., :height, :width]
    return cut if own else {**cut, NOT_COUNTED: True}


def readable_places(labels: Sequence[dict[str, Any]]) -> list[int]:
    """Places in a batch of the images that could be read."""
    return [index for index, target in enumerate(labels) if "unreadable" not in target]


def readable_images(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch without the images that could not be read; one of them stays, `NOT_COUNTED`, where all could not be."""
    labels = batch["labels"]
    whole = readable_places(labels)
    if len(whole) == len(labels):
        return batch
    chosen = whole or [0]
    cut = {name: batch[name][chosen] for name in ("pixel_values", "pixel_mask")}
    cut["labels"] = [{name: labels[index][name] for name in labels[index] if name != "unreadable"} for index in chosen]
    return cut if whole and NOT_COUNTED not in batch else {**cut, NOT_COUNTED: True}
