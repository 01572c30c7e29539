"""What a run was made with, for its recipe."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from accelerate import PartialState

import hf_detr_ft
from hf_detr_ft.data.synthetic_photos import count_cores

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
    """Of the GPU, or the processor's architecture."""
    return torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()


def git_commit() -> str | None:
    """The commit of the working directory, with `+changes` where files differ from it; None outside of git."""
    try:
        commit, status = (
            subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
            for command in (
                ["git", "rev-parse", "HEAD"],
                ["git", "status", "--porcelain", "--untracked-files=no"],
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


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU what torch allocated at most, else the most that this process ever held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
