"""Which precision a machine is fast in, found by trying: what it says of itself does not tell."""

import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

# oneDNN, which computes convolutions on a CPU, keeps what it has prepared for a shape: by default 1024 entries, those
# of some six shapes of a ResNet-50. It reads this when it meets the first convolution.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")

import torch
import torch.nn.functional as F

CHANNELS, SIDE, IMAGES = 64, 56, 2
"""Of the convolution that is timed: one of a ResNet's second stage on two images of 224 pixels; milliseconds."""
ROUNDS = 4
WORTH = 1.2
"""How many times as fast as fp32 another precision has to be."""


@lru_cache
def fastest_precision(device: str) -> str:
    """`bf16`, `fp16` or `no` (fp32), whichever trains convolutions fastest here; fp32 where it is a close thing.

    fp16, which needs its loss scaled, is only tried on CUDA, and only where bf16 brings nothing.

    Args:
        device: `cpu`, `cuda` or another type of torch's; of others nothing is known, so they train in fp32.
    """
    candidates = {"cpu": ("bf16",), "cuda": ("bf16", "fp16")}.get(device, ())
    usual = time_convolution(device, torch.float32) if candidates else 0.0
    for name in candidates:
        dtype = torch.bfloat16 if name == "bf16" else torch.float16
        if time_convolution(device, dtype) * WORTH < usual:
            return name
    return "no"


def time_convolution(device: str, dtype: torch.dtype) -> float:
    """Seconds for a convolution there and back under autocast, the best of some rounds."""
    generator = torch.Generator().manual_seed(0)  # the global one belongs to the training
    images = torch.rand(IMAGES, CHANNELS, SIDE, SIDE, generator=generator).to(device, memory_format=torch.channels_last)
    weight = torch.rand(CHANNELS, CHANNELS, 3, 3, generator=generator).to(device).requires_grad_()
    images.requires_grad_()

    def there_and_back() -> None:
        with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
            result = F.conv2d(images, weight, padding=1)
        torch.autograd.grad(result.float().sum(), (images, weight))

    return best_seconds(there_and_back, device, ROUNDS)


def best_seconds(work: Callable[[], Any], device: str, rounds: int) -> float:
    """The least time of some rounds, each until the device is done."""
    seconds = []
    for _ in range(rounds):
        _finish(device)
        started = time.perf_counter()
        work()
        _finish(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _finish(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()
