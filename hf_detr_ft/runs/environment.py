"""What a run was made with, for its recipe."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import hf_detr_ft

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
    """Versions, device, commit of the working directory if it is in git, and fingerprints of the annotation files."""
    versions = {"hf_detr_ft": hf_detr_ft.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {"versions": versions, "device": device, "git": git_commit(), "annotations_sha256": fingerprints}


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
