"""Splits of a recipe: read, checked, and as data sets."""

from collections.abc import Iterator
from dataclasses import dataclass

from datasets import Dataset

from hf_detr_ft.data.checks.annotation_fields import Entries, Problem, read_entries
from hf_detr_ft.data.checks.coco_checks import check_coco, check_splits
from hf_detr_ft.data.checks.image_checks import Progress
from hf_detr_ft.data.coco import LabelMap, without_collector
from hf_detr_ft.data.dataset import iterate_column, prepare_coco
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.once_per_machine import once_per_machine
from hf_detr_ft.data.split_source import Source, load_source
from hf_detr_ft.data.statistics import SplitStatistics, describe_split
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import DataConfig

SHOWN = 20
"""Problems that an error lists before it only counts."""


@dataclass(frozen=True)
class Splits:
    """Training and validation data of one recipe, without the training split's COCO dict, which can take gigabytes.

    Attributes:
        train: rows of the training split.
        val: rows of the validation split.
        truth: the validation split's COCO dict as `prepare_coco` makes it.
        statistics: of the splits `training` and `validation`.
        label_map: of the training split's categories.
        problems: what the checks found; no errors among them.
        fingerprints: SHA-256 of each split's annotations, for the record.
        notes: what was found, taken to be so or mended, a line each, for the terminal.
    """

    train: Dataset
    val: Dataset
    truth: dict
    statistics: dict[str, SplitStatistics]
    label_map: LabelMap
    problems: list[Problem]
    fingerprints: dict[str, str]
    notes: tuple[str, ...] = ()


def check_split(
    config: DataConfig, split: str, size: ImageSize | None = None, *, decode: bool | None, progress: Progress = iter
) -> tuple[Source, list[Problem]]:
    """Reads or draws the split "train" or "val" and finds all that is wrong with it; see `check_data`."""
    source = load_source(config, split)
    entries = read_entries(source.coco, str(source.annotations))
    return source, _check_source(source, entries, split, size, decode, progress)


def check_data(
    config: DataConfig, size: ImageSize | None = None, *, decode: bool | None, progress: Progress = iter
) -> tuple[dict[str, Source], list[Problem]]:
    """Reads or draws both splits and finds all that is wrong with them.

    Args:
        config: the recipe's `data` section.
        size: that the model takes images in, to find those too thin for it.
        decode: read every image to its last pixel; False: its header alone, which finds all but truncated files; None:
            no image at all.
        progress: wraps the images of a split, where they are files.

    Returns:
        The splits under "train" and "val"; and the problems, errors first.

    Raises:
        RecipeError: synthetic images are described wrongly.
        DataError: a file is not there or is no COCO JSON, or images cannot be drawn.
    """
    sources = {split: load_source(config, split) for split in ("train", "val")}
    return sources, check_sources(sources, size, decode=decode, progress=progress)


def check_sources(
    sources: dict[str, Source], size: ImageSize | None = None, *, decode: bool | None, progress: Progress = iter
) -> list[Problem]:
    """All that is wrong with the splits "train" and "val", each alone and with each other; see `check_data`."""
    train, val = sources["train"], sources["val"]
    train_dir, val_dir = (None if decode is None else source.images_dir for source in (train, val))
    with without_collector():
        entries = {split: read_entries(source.coco, str(source.annotations)) for split, source in sources.items()}
        problems = [
            problem
            for split, source in sources.items()
            for problem in _check_source(source, entries[split], split, size, decode, progress)
        ]
        problems += check_splits(entries["train"], train_dir, entries["val"], val_dir, val_file=val.annotations)
    return sorted(dict.fromkeys(problems), key=lambda problem: problem.severity)


def _check_source(
    source: Source, entries: Entries, split: str, size: ImageSize | None, decode: bool | None, progress: Progress
) -> list[Problem]:
    return check_coco(
        entries,
        source.annotations,
        None if decode is None else source.images_dir,
        size,
        decode=bool(decode),
        progress=progress,
        for_training=split == "train",
        white_level=source.white_level,
    )


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


def load_splits(config: DataConfig, size: ImageSize | None = None, progress: Progress = iter) -> Splits:
    """Reads both splits and checks their images' headers, by one process of each machine for all; see `check_data`."""
    return once_per_machine(lambda: build_splits(config, *check_data(config, size, decode=False, progress=progress)))


def build_splits(config: DataConfig, sources: dict[str, Source], problems: list[Problem]) -> Splits:
    """Makes both splits of what `check_data` returned.

    Raises:
        DataError: lists every error that the checks found.
    """
    require_no_errors(problems)
    train, val = sources["train"], sources["val"]
    label_map = LabelMap.from_coco(train.coco)
    with without_collector():
        used, truth = prepare_coco(train.coco, config.train_limit), prepare_coco(val.coco, config.val_limit)
        return Splits(
            train=train.load(used, label_map),
            val=val.load(truth, label_map),
            truth=truth,
            statistics={"training": describe_split(used), "validation": describe_split(truth)},
            label_map=label_map,
            problems=problems,
            fingerprints=train.fingerprint | val.fingerprint,
            notes=tuple(dict.fromkeys((*train.notes, *val.notes))),
        )


def image_files(splits: Splits) -> Iterator[str]:
    """Files of the images that a run reads; drawn ones are none."""
    for rows in (splits.train, splits.val):
        for image in iterate_column(rows, "image"):
            if not image["bytes"]:
                yield image["path"]
