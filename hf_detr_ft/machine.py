"""The machine a run is on: its cores, threads, memory and fastest precision, and the versions of what it runs."""

import ctypes
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import PartialState

import hf_detr_ft
from hf_detr_ft.plain_files import total_memory

PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "datasets",
    "timm",
    "albumentations",
    "pycocotools",
    "faster-coco-eval",
)
CHANNELS, SIDE, IMAGES = 64, 56, 2
"""Shape of the convolution that is timed: one of a ResNet's second stage on two images of 224 pixels; milliseconds."""
ROUNDS = 4
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Parameters of glibc's `mallopt`."""
CGROUP = Path("/sys/fs/cgroup")
MIN_SPEEDUP = 1.2
"""Least speed of another precision, in multiples of that of fp32."""


def count_cores() -> int:
    """Cores that this process may use, where the system says; else those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_environment(fingerprints: dict[str, str]) -> dict[str, Any]:
    """Versions, device, cores, processes, commit of the working directory if in git, fingerprints of annotations."""
    versions = {"hf_detr_ft": hf_detr_ft.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "versions": versions,
        "device": device_name(device),
        "cores": count_cores(),
        "processes": PartialState().num_processes,
        "git": git_commit(),
        "annotations_sha256": fingerprints,
    }


def device_name(device: torch.device) -> str:
    """Name of the GPU, or the processor's architecture."""
    return torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()


def git_commit() -> str | None:
    """The commit of the working directory, with `+changes` where files differ from it; None outside of git."""
    try:
        commit, status = (
            subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for command in (
                ["git", "rev-parse", "HEAD"],
                ["git", "--no-optional-locks", "status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}{'+changes' if status else ''}"


def set_cpu_threads(threads: int | None, device: str) -> None:
    """Sets how many threads torch computes with, on a CPU.

    Accelerate's launcher sets OMP_NUM_THREADS to 1 for every process it starts, unless it is told of a CPU in so many
    words. One that was set to 1 by hand cannot be told from that, but a larger one can.

    Args:
        threads: asked for by the recipe; None to share the cores among this machine's processes where the launcher
            left one thread to each.
        device: "cpu", or nothing is done.
    """
    if device != "cpu":
        return
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1"
    if threads is None and launched:
        threads = count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if threads is not None:
        torch.set_num_threads(max(1, threads))


def keep_freed_memory(device: str) -> None:
    """Has glibc keep, from now on, what a step on a CPU frees, for the next step.

    By itself it gives a block of more than 32 MiB back to the system as soon as it is free, and such blocks are mapped
    and zeroed anew in every step: a seventh of a step of the tiny DETR. Nothing is done with another C library, or
    where the environment says how memory is handed out.
    """
    _tell_glibc(device, {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})


def give_freed_memory_back(device: str) -> None:
    """Has glibc give memory back as by itself, once a block of 32 MiB was freed; undoes `keep_freed_memory`."""
    _tell_glibc(device, {M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20})


def _tell_glibc(device: str, settings: dict[int, int]) -> None:
    if device != "cpu" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ):
        return
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "mallopt"):
        for name, value in settings.items():
            library.mallopt(name, value)


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU what torch allocated at most, else the most that this process ever held (0 on Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak(device: torch.device) -> None:
    """Begins a new measure of `peak_bytes`, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        with suppress(OSError):  # of a kernel or a container that does not allow it
            Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Bytes, the most since `reset_peak`; of the process's life where the system cannot tell."""
    if device.type == "cpu" and sys.platform == "linux":
        return read_status("VmHWM")
    return peak_memory(device)


def held_bytes(device: torch.device) -> int:
    """Bytes that are held now; 0 where the system cannot tell."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return read_status("VmRSS") if sys.platform == "linux" else 0


def free_bytes(device: torch.device) -> int:
    """Bytes that this process can still have: on a CPU its share of what the machine, or its container, has left."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - held_bytes(device)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = read_status("MemAvailable", "/proc/meminfo") if sys.platform == "linux" else total_memory()
    with suppress(OSError, ValueError, KeyError):  # of a system without control groups, or without a limit: "max"
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        parts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(parts["file"]))  # files that were read can be read again
    return free // processes


def read_status(name: str, file: str = "/proc/self/status") -> int:
    """Bytes that a line of such a file of Linux says."""
    lines = Path(file).read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


@lru_cache
def fastest_precision(device: str) -> str:
    """`bf16`, `fp16` or `no` (fp32), whichever trains fastest here; fp32 where it is a close thing.

    A GPU says by its capability whether it computes in bf16; those before Ampere have fp16, whose loss is scaled. On a
    CPU a convolution is timed: capabilities do not tell, AVX512-BF16 without AMX is slower than fp32 in some.

    Args:
        device: `cpu`, `cuda` or another type of torch's; of others nothing is known, so they train in fp32.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device != "cpu":
        return "no"
    in_fp32, in_bf16 = (time_convolution(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    return "bf16" if in_bf16 * MIN_SPEEDUP < in_fp32 else "no"


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
