"""Splits of a recipe: read, checked, and as data sets."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from hf_detr_ft.data.checks.annotation_fields import Entries, read_entries
from hf_detr_ft.data.checks.coco_checks import check_coco, check_splits
from hf_detr_ft.data.checks.image_checks import Progress
from hf_detr_ft.data.checks.problems import Problem, require_no_errors
from hf_detr_ft.data.checks.training_checks import Grid, check_alike, check_for_training, check_measure
from hf_detr_ft.data.class_names import map_classes, require_classes
from hf_detr_ft.data.coco import LabelMap, without_collector
from hf_detr_ft.data.dataset import iterate_column, prepare_coco
from hf_detr_ft.data.find_data import find_data, makes_validation
from hf_detr_ft.data.formats.layout import Layout, Piece
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.made_splits import make_splits
from hf_detr_ft.data.once_per_machine import once_per_machine
from hf_detr_ft.data.split_source import Source, load_source, unpack_streamed
from hf_detr_ft.data.statistics import SplitStatistics, describe_split
from hf_detr_ft.data.unlabelled import find_unlabelled, use_unlabelled
from hf_detr_ft.formatting import join_limited, pluralize
from hf_detr_ft.recipe.sections import DataConfig, MaskUse


@dataclass(frozen=True)
class HeldOut:
    """The test split of a recipe.

    Attributes:
        rows: of its images.
        truth: its COCO dict as `prepare_coco` makes it.
        fingerprint: SHA-256 of its annotations.
    """

    rows: Dataset
    truth: dict
    fingerprint: dict[str, str]


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
        record: settings and file names of splits that were made of one; None where each has its own annotations.
        test: the split that training never sees; None without one.
        pieces: where the training images lie, if they are streamed.
    """

    train: Dataset
    val: Dataset
    truth: dict
    statistics: dict[str, SplitStatistics]
    label_map: LabelMap
    problems: list[Problem]
    fingerprints: dict[str, str]
    notes: tuple[str, ...] = ()
    record: dict[str, Any] | None = None
    test: HeldOut | None = None
    pieces: tuple[Piece, ...] = ()


def load_sources(
    config: DataConfig,
    splits: Sequence[str] = ("train", "val"),
    progress: Progress = iter,
    masks: MaskUse = False,
    layout: Layout | None = None,
) -> dict[str, Source]:
    """Reads, draws or makes splits of a recipe, of "train", "val" and "test", with masks where they are asked for.

    Those of some objects are for training alone. Files are searched for where their layout is not given.

    Raises:
        InputError: see `load_source` and `make_splits`.
    """
    if layout is None and config.synthetic_images is None:
        layout = find_data(config)

    @cache
    def read(split: str) -> Source:
        return load_source(config, split, masks if split == "train" else masks is True, layout)

    made: dict[str, Source] = {}
    if layout is not None and set(splits) != {"test"} and makes_validation(config, layout):
        made = make_splits(config, _load(config, "train", read, layout), progress)
    found = {split: made.get(split) or _load(config, split, read, layout) for split in splits}
    return {split: source if split == "train" else unpack_streamed(source) for split, source in found.items()}


def _load(config: DataConfig, split: str, read: Callable[[str], Source], layout: Layout | None) -> Source:
    """A split with the classes that the recipe asks for, and of training the images that no annotation names."""
    source, notes = read(split), list[str]()
    coco, folder, file = source.coco, source.images_dir, str(source.annotations)
    if split == "train" and folder is not None and layout is not None:
        places = layout.splits
        beside = [other for other in places if other != split and _overlap(folder, places[other].images_dir)]
        others = map(read, beside)
        named = [(other.images_dir, other.coco) for other in others if other.images_dir is not None]
        names = find_unlabelled(folder, [(folder, coco), *named])
        coco, note = use_unlabelled(coco, folder, names, config.unlabelled, file)
        notes += [note] if note else []
    if split == "train" and source.pieces:
        files = pluralize(len({piece.path for piece in source.pieces}), "file")
        notes.append(f"training images are streamed from {files}: no check reads them or looks for near-duplicates")
    if config.classes:
        if split == "train":
            require_classes(coco, config.classes, file)
            notes.append(f"classes are mapped by data.classes: {join_limited([*config.classes])}")
        coco = map_classes(coco, config.classes)
    return replace(source, coco=coco, notes=(*source.notes, *notes))


def _overlap(one: Path, other: Path) -> bool:
    one, other = Path(os.path.realpath(one)), Path(os.path.realpath(other))  # `resolve` raises in a circle of links
    return one.is_relative_to(other) or other.is_relative_to(one)


def check_split(
    config: DataConfig,
    split: str,
    size: ImageSize | None = None,
    *,
    decode: bool | None,
    progress: Progress = iter,
    masks: MaskUse = False,
) -> tuple[Source, list[Problem]]:
    """Reads or draws the split "train", "val" or "test" and finds all that is wrong with it; see `check_data`."""
    source = load_sources(config, (split,), progress, masks)[split]
    entries = read_entries(source.coco, str(source.annotations))
    return source, _check_source(source, entries, split, size, decode, progress)


def check_data(
    config: DataConfig,
    size: ImageSize | None = None,
    *,
    decode: bool | None,
    progress: Progress = iter,
    stride: int | None = None,
    masks: MaskUse = False,
) -> tuple[dict[str, Source], list[Problem]]:
    """Reads or draws the splits and finds all that is wrong with them.

    Args:
        config: the recipe's `data` section.
        size: that the model takes images in, to find those too thin for it.
        decode: read every image to its last pixel; False: its header alone, which finds all but truncated files; None:
            no image at all.
        progress: wraps the images of a split, where they are files.
        stride: pixels of a cell of the model's finest feature map, where those checks are wanted that a training does
            without, see `training_checks`.
        masks: those that training needs.

    Returns:
        The splits under "train", "val" and "test"; and the problems, errors first.

    Raises:
        RecipeError: synthetic images are described wrongly.
        DataError: a file is not there or is no COCO JSON, or images cannot be drawn.
    """
    layout = None if config.synthetic_images is not None else find_data(config)
    has_test = layout is not None and "test" in layout.splits
    splits = ("train", "val", "test") if has_test else ("train", "val")
    sources = load_sources(config, splits, progress, masks, layout)
    if has_test and not sources["test"].coco["annotations"]:
        note = f"{sources.pop('test').annotations}: no object is annotated, so there is no test split"
        sources["train"] = replace(sources["train"], notes=(*sources["train"].notes, note))
    problems = check_sources(sources, size, decode=decode, progress=progress, stride=stride)
    answered = config.exif == "stored"
    return sources, [problem for problem in problems if not answered or problem.kind != "exif-orientation"]


def check_sources(
    sources: dict[str, Source],
    size: ImageSize | None = None,
    *,
    decode: bool | None,
    progress: Progress = iter,
    stride: int | None = None,
) -> list[Problem]:
    """All that is wrong with the splits, each alone and others with "train"; see `check_data`.

    Splits that were made of one source are checked as the one that its file is.
    """
    train, problems = sources["train"], list[Problem]()
    thumbnails: dict[str, dict[int, np.ndarray]] = {split: {} for split in sources}
    grid = None if stride is None or size is None else Grid(size, stride)
    with without_collector():
        entries = {split: read_entries(source.coco, str(source.annotations)) for split, source in sources.items()}
        for split, source in sources.items():
            whole, found = source, entries[split]
            if source.origin is not None:
                if source is not train:
                    continue
                whole = source.origin.whole
                found = read_entries(whole.coco, str(whole.annotations))
            problems += _check_source(whole, found, split, size, decode, progress, thumbnails[split])
            if stride is not None:
                problems += check_for_training(found, str(source.annotations), grid, for_training=split == "train")
        for split, source in sources.items():
            if source is train:
                continue
            file, both = str(source.annotations), (entries["train"], entries[split])
            folders = [None if decode is None else other.images_dir for other in (train, source)]
            problems += check_splits(both[0], folders[0], both[1], folders[1], val_file=file)
            if stride is not None and split == "val":
                problems += check_measure(entries[split], file)
            if stride is not None and source.origin is None:
                problems += check_alike(thumbnails["train"], thumbnails[split], both, file)
    return sorted(_without_repeats(problems), key=lambda problem: problem.severity)


def _without_repeats(problems: list[Problem]) -> list[Problem]:
    """Each problem once; photos that are the same to the byte are no near-duplicates besides."""
    same = {(problem.file, problem.entry) for problem in problems if problem.kind in ("same-photo", "same-split")}
    return [
        problem
        for problem in dict.fromkeys(problems)
        if problem.kind != "near-duplicate" or not same & {(problem.file, problem.entry), (problem.file, "images")}
    ]


def _check_source(
    source: Source,
    entries: Entries,
    split: str,
    size: ImageSize | None,
    decode: bool | None,
    progress: Progress,
    thumbnails: dict[int, np.ndarray] | None = None,
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
        thumbnails=thumbnails,
        masks=source.masks is True,
    )


def load_splits(
    config: DataConfig, size: ImageSize | None = None, progress: Progress = iter, masks: MaskUse = False
) -> Splits:
    """Reads all splits and checks their images' headers, by one process of each machine for all; see `check_data`."""
    return once_per_machine(
        lambda: build_splits(config, *check_data(config, size, decode=False, progress=progress, masks=masks))
    )


def build_splits(config: DataConfig, sources: dict[str, Source], problems: list[Problem]) -> Splits:
    """Makes the splits of what `check_data` returned.

    Raises:
        DataError: lists every error that the checks found.
    """
    require_no_errors(problems)
    train, val, test = sources["train"], sources["val"], sources.get("test")
    label_map = LabelMap.from_coco(train.coco)
    with without_collector():
        limits = (config.train_limit, config.val_limit)
        used, truth = (prepare_coco(s.coco, n, s.masks) for s, n in zip((train, val), limits, strict=True))
        return Splits(
            train=train.load(used, label_map),
            val=val.load(truth, label_map),
            truth=truth,
            statistics={"training": describe_split(used), "validation": describe_split(truth)},
            label_map=label_map,
            problems=problems,
            fingerprints={name: digest for source in sources.values() for name, digest in source.fingerprint.items()},
            notes=tuple(dict.fromkeys(note for source in sources.values() for note in source.notes)),
            record=None if val.origin is None else val.origin.record,
            test=None if test is None else _hold_out(test, label_map),
            pieces=train.pieces,
        )


def _hold_out(test: Source, label_map: LabelMap) -> HeldOut:
    truth = prepare_coco(test.coco, None, test.masks)
    return HeldOut(test.load(truth, label_map), truth, test.fingerprint)


def image_files(splits: Splits) -> Iterator[str]:
    """Files of the images that a run reads; drawn ones are none."""
    for rows in (splits.train, splits.val, *([splits.test.rows] if splits.test else [])):
        for image in iterate_column(rows, "image"):
            if not image["bytes"]:
                yield image["path"]
