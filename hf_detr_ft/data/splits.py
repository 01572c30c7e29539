"""Both splits of a recipe: read, checked, and as data sets."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_detr_ft.data.check import check_coco, check_splits
from hf_detr_ft.data.coco import LabelMap, read_coco, with_polygon_areas
from hf_detr_ft.data.dataset import limit_coco, load_split
from hf_detr_ft.data.entries import Problem
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe import DataConfig

Progress = Callable[[Iterable], Iterable]
SHOWN = 20
"""Problems that an error lists before it only counts."""


@dataclass(frozen=True)
class Splits:
    """Training and validation data of one recipe.

    Attributes:
        train: rows of the training split.
        val: rows of the validation split.
        truth: the validation split's COCO dict, with areas that agree with its polygons.
        label_map: of the training split's categories.
        problems: what the checks found; no errors among them.
        fingerprints: SHA-256 of each annotation file, for the record.
    """

    train: Dataset
    val: Dataset
    truth: dict
    label_map: LabelMap
    problems: list[Problem]
    fingerprints: dict[str, str]


def check_data(
    config: DataConfig, *, decode: bool, progress: Progress = iter
) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """Reads both splits and finds all that is wrong with them.

    Args:
        config: the recipe's `data` section.
        decode: read every image to its last pixel; else its header alone, which finds all but truncated files.
        progress: wraps the images of a split.

    Returns:
        The COCO dicts, as read, under "train" and "val"; and the problems, errors first.

    Raises:
        DataError: a file is not there or is no COCO JSON.
    """
    cocos: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for split in ("train", "val"):
        annotations = config.path(f"{split}_annotations")
        cocos[split] = read_coco(annotations)
        images = config.path(f"{split}_images")
        problems += check_coco(cocos[split], annotations, images, progress=progress, decode=decode)
    problems += check_splits(
        cocos["train"],
        config.path("train_images"),
        cocos["val"],
        config.path("val_images"),
        val_file=config.path("val_annotations"),
    )
    return cocos, sorted(dict.fromkeys(problems), key=lambda problem: problem.severity)


def list_problems(problems: list[Problem], shown: int = SHOWN) -> str:
    """The first `shown` problems of each kind, a line each, and how many more there are of it."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.severity, problem.kind), []).append(problem)
    lines = []
    for (severity, kind), found in kinds.items():
        lines += [str(problem) for problem in found[:shown]]
        if len(found) > shown:
            lines.append(f"{severity} [{kind}] … and {len(found) - shown} more of this kind")
    return "\n".join(lines)


def require_no_errors(problems: list[Problem]) -> None:
    """Raises DataError with every error among the problems; warnings pass."""
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise DataError(f"{len(errors)} errors in the data:\n{list_problems(errors)}")


def load_splits(config: DataConfig, progress: Progress = iter) -> Splits:
    """Both splits, checked by their images' headers; see `build_splits`."""
    return build_splits(config, *check_data(config, decode=False, progress=progress))


def build_splits(config: DataConfig, cocos: dict[str, dict[str, Any]], problems: list[Problem]) -> Splits:
    """Both splits, from what `check_data` returned.

    Raises:
        DataError: lists every error that the checks found.
    """
    require_no_errors(problems)
    label_map = LabelMap.from_coco(cocos["train"])
    train, _ = with_polygon_areas(limit_coco(cocos["train"], config.train_limit))
    truth, _ = with_polygon_areas(limit_coco(cocos["val"], config.val_limit))
    return Splits(
        train=load_split(train, config.path("train_images"), label_map),
        val=load_split(truth, config.path("val_images"), label_map),
        truth=truth,
        label_map=label_map,
        problems=problems,
        fingerprints={
            getattr(config, name): file_fingerprint(config.path(name))
            for name in ("train_annotations", "val_annotations")
        },
    )


def file_fingerprint(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
