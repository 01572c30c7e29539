"""The stopwatch's figures, against a model whose arithmetic is known and memory that a test takes and gives back."""

import mmap
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_detr_ft.benchmark import stopwatch
from hf_detr_ft.benchmark.stopwatch import Stopwatch, peak_flops
from hf_detr_ft.machine import peak_bytes, reset_peak

BLOCK, PAGE = 2**28, 2**12
"""Bytes."""


class OneConvolution(nn.Module):
    """Takes a batch as DETR does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1, bias=False)

    def forward(self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor) -> torch.Tensor:
        return self.layer(pixel_values).sum()


class FakeTrainer:
    """A stand-in for a Trainer: arguments, model, and a loop that calls back as a Trainer's does."""

    def __init__(self, args: Any) -> None:
        self.args = args
        self.model = OneConvolution()
        self.callbacks: list[Any] = []

    def add_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def train(self, shapes: list[tuple[int, int, int]], used: float) -> None:
        """A step for each shape, batch, height and width; the mask says that a share of it is used."""
        state = TrainerState(max_steps=len(shapes))
        told = (self.args, state, TrainerControl())
        for batch, height, width in shapes:
            for callback in self.callbacks:
                callback.on_step_begin(*told)
            mask = torch.zeros(batch, height, width)
            mask[:, :, : int(width * used)] = 1
            self.model(pixel_values=torch.rand(batch, 3, height, width), pixel_mask=mask).backward()
            state.global_step += 1
            for callback in self.callbacks:
                callback.on_step_end(*told)


@pytest.fixture
def arguments() -> Any:
    args = SimpleNamespace(device=torch.device("cpu"), train_batch_size=2, gradient_accumulation_steps=1, world_size=1)
    return args


def test_a_gpu_is_waited_for_where_the_timed_steps_begin_and_end(
    arguments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopwatch, "WARM_UP", 2)
    monkeypatch.setattr(stopwatch, "reset_peak", lambda device: None)
    waited: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(len(watch.ends)))
    arguments.device = torch.device("cuda")
    trainer: Any = FakeTrainer(arguments)
    watch = Stopwatch(trainer)
    trainer.train([(1, 8, 8)] * 5, used=1)
    assert waited == [1, 4], "in every step it would stand idle while the host prepares the next one"


def test_images_pixels_and_arithmetic_are_those_of_the_timed_steps(
    arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopwatch, "WARM_UP", 2)
    trainer: Any = FakeTrainer(arguments)
    begun: list[int] = []
    forgotten: list[int] = []
    monkeypatch.setattr(stopwatch, "reset_peak", lambda device: forgotten.append(len(watch.ends)))
    monkeypatch.setattr(stopwatch, "peak_bytes", lambda device: 7)
    watch = Stopwatch(trainer, lambda: begun.append(len(watch.ends)))
    trainer.train([(2, 8, 8), (2, 8, 16), (2, 8, 8), (2, 16, 8), (2, 8, 4)], used=0.5)
    found = watch.measurement()
    assert begun == forgotten == [2]
    assert found.peak_bytes == 7
    assert (found.steps, found.images) == (3, 6)
    assert found.pixels == 2 * (64 + 128 + 32)
    assert found.image_pixels == found.pixels / 2
    # 3 x 4 multiplications and additions a pixel: forward, and back to the weights; the images need no gradient.
    assert found.flops == 2 * (2 * 3 * 4) * found.pixels
    assert 0 <= found.waiting_seconds < found.seconds


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget its peak")
def test_the_peak_is_of_the_time_since_it_was_reset() -> None:
    cpu = torch.device("cpu")
    reset_peak(cpu)
    before = peak_bytes(cpu)
    with mmap.mmap(-1, BLOCK) as block:  # the allocator may keep what is freed
        for start in range(0, BLOCK, PAGE):
            block[start] = 1
    assert peak_bytes(cpu) >= before + 0.9 * BLOCK
    reset_peak(cpu)
    assert peak_bytes(cpu) <= before + 0.5 * BLOCK


def test_the_peak_of_arithmetic_counts_both_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "MATRIX_SIDES", {"cpu": 10})
    monkeypatch.setattr(stopwatch, "best_seconds", lambda work, device, rounds: work().sum().item() / 1000)
    assert peak_flops(torch.device("cpu"), torch.float32) == 2000  # in 1 second
