"""A stopwatch for the steps of a Trainer: images, waiting for data, padding, arithmetic, memory."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_detr_ft.machine import best_seconds, peak_bytes, reset_peak

WARM_UP = 2
"""Steps before those that are timed: the first ones allocate memory and choose algorithms. Of the very first one the
multiplications and additions are counted."""

MATRIX_SIDES = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product is timed, by type of device."""


@dataclass
class Measurement:
    """The timed steps of one variant in one round."""

    images: int
    seconds: float
    waiting_seconds: float
    """Seconds that passed before a step had its batch."""
    pixels: int
    """Pixels of all batches, with their padding."""
    image_pixels: int
    """Pixels of all batches, without their padding."""
    flops: float
    """Arithmetic operations of convolutions and matrix products, forward and backward, counted in the first step and
    taken to be as many per pixel in all others."""
    peak_bytes: int
    """Most memory that the process held meanwhile; on a GPU, that torch had allocated there."""
    steps: int


class Stopwatch(TrainerCallback):
    """Times the steps of a trainer after `WARM_UP`.

    Args:
        trainer: that is about to train.
        on_timed: called when the timed steps begin.
    """

    def __init__(self, trainer: Trainer, on_timed: Callable[[], Any] | None = None) -> None:
        self.device = trainer.args.device
        self.images = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps
        self.images *= trainer.args.world_size
        self.on_timed = on_timed
        self.ends: list[float] = []
        self.waits: list[float] = []
        self.shapes: list[tuple[int, torch.Tensor]] = []
        self.counter = FlopCounterMode(display=False)
        self.flops_per_pixel = 0.0
        model: Any = trainer.model
        self.hook = model.register_forward_pre_hook(self._note_batch, with_kwargs=True)
        trainer.add_callback(self)

    def _note_batch(self, _: torch.nn.Module, __: tuple, inputs: dict[str, Any]) -> None:
        mask = inputs["pixel_mask"]
        self.shapes.append((mask.numel(), mask.sum()))

    def _now(self, finished: bool) -> float:
        """Seconds, once the GPU has finished if asked; if asked in every step it would stand idle meanwhile."""
        if finished and self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Notes how long the step waited for its batch."""
        if self.ends:
            self.waits.append(self._now(finished=False) - self.ends[-1])
        else:
            self.counter.__enter__()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Notes the time, and begins to measure after the steps of warming up."""
        if not self.ends:
            self.counter.__exit__(None, None, None)
            self.flops_per_pixel = self.counter.get_total_flops() / sum(size for size, _ in self.shapes)
        self.ends.append(self._now(len(self.ends) + 1 == WARM_UP or state.global_step == state.max_steps))
        if len(self.ends) == WARM_UP:
            self.shapes.clear()
            self.waits.clear()
            reset_peak(self.device)
            if self.on_timed is not None:
                self.on_timed()

    def measurement(self) -> Measurement:
        """Sums over all steps after `WARM_UP`."""
        self.hook.remove()
        steps = len(self.ends) - WARM_UP
        pixels = sum(size for size, _ in self.shapes)
        return Measurement(
            images=steps * self.images,
            seconds=self.ends[-1] - self.ends[WARM_UP - 1],
            waiting_seconds=sum(self.waits),
            pixels=pixels,
            image_pixels=sum(int(used) for _, used in self.shapes),
            flops=pixels * self.flops_per_pixel,
            peak_bytes=peak_bytes(self.device),
            steps=steps,
        )


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Multiplications and additions a second that this device reaches in a large matrix product, the best of some."""
    side = MATRIX_SIDES.get(device.type, MATRIX_SIDES["cpu"])
    left, right = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / best_seconds(lambda: left @ right, device.type, 5)
