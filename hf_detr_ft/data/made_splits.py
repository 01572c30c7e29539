"""Validation splits made of the training images: by a share, as one of k folds, or by the record of an earlier run."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_detr_ft.data.checks.image_checks import Progress
from hf_detr_ft.data.checks.near_duplicates import ALIKE, COMMON, describe_changes, find_alike, read_thumbnails
from hf_detr_ft.data.coco import leaves_folder
from hf_detr_ft.data.partition import assign_parts, find_group_key, join_groups, pair_equal
from hf_detr_ft.data.split_source import Origin, Source
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.formatting import join_limited, percent, pluralize
from hf_detr_ft.plain_files import largest_json, read_file
from hf_detr_ft.recipe.sections import DataConfig

DEFAULT_SHARE = 0.2
"""Share of the images for validation, where there is no such split and nothing is said of one."""
SETTINGS = ("val_share", "folds", "fold", "group_by", "val_annotations")
"""Fields of a recipe's `data` that decide which image is in which split."""


def make_splits(config: DataConfig, whole: Source, progress: Progress = iter) -> dict[str, Source]:
    """Divides the images of a source, as its record or the recipe says.

    No two near-duplicates, frames of a video, copies of a photo or images of one group of `data.group_by` are
    divided, and every class is divided by its share. What is in which part is a function of the file names, the
    annotations and the photos.

    Args:
        config: the recipe's `data` section.
        whole: all images.
        progress: wraps the images, each of which is decoded at a reduced size where there is no record.

    Raises:
        RecipeError: `data.group_by` or the record does not go with the data.
        DataError: the images cannot be divided.
    """
    images = [
        image
        for image in whole.coco["images"]
        if isinstance(image, dict) and type(image.get("id")) is int and isinstance(image.get("file_name"), str)
    ]
    settings = {name: getattr(config, name) for name in SETTINGS}
    if config.split_file is not None:
        chosen = read_record(config.path("split_file"), settings, {image["file_name"] for image in images}, whole)
        said = f"the images that {config.path('split_file')} names"
    else:
        chosen, said = _choose(config, whole, images, progress)
    if not 0 < len(chosen) < len({image["file_name"] for image in images}):
        raise DataError(
            f"{whole.annotations}: expected images for both training and validation, found "
            f"{len(images) - len(chosen)} and {len(chosen)}: near-duplicates and groups are not divided. Add images, "
            "name others in data.val_annotations, or let data.group_by make smaller groups (id: each image alone)."
        )
    val_ids = {image["id"] for image in images if image["file_name"] in chosen}
    names = {
        "training": [image["file_name"] for image in images if image["file_name"] not in chosen],
        "validation": [image["file_name"] for image in images if image["file_name"] in chosen],
    }
    digest = hashlib.sha256(json.dumps(names["validation"]).encode()).hexdigest()
    origin, notes = Origin(whole, {"made_by": settings, **names}), (*whole.notes, f"validation is {said}")
    train, val = (
        replace(whole, coco=_take(whole.coco, val_ids, is_val), origin=origin, notes=notes) for is_val in (False, True)
    )
    return {
        "train": train,
        "val": replace(val, fingerprint={f"validation images of {whole.annotations.name}": digest}),
    }


def _choose(
    config: DataConfig, whole: Source, images: list[dict[str, Any]], progress: Progress
) -> tuple[set[str], str]:
    """File names of the validation images, and how they were chosen."""
    names = [image["file_name"] for image in images]
    try:
        key = find_group_key(config.group_by, images)
    except ValueError as error:
        raise RecipeError(
            f"data.group_by: expected a key of the image entries or a regular expression, found {config.group_by!r}: "
            f"{error}. The first entry has {', '.join(map(str, images[0] if images else ()))}."
        ) from None
    keys = (names, [image["id"] for image in images], [key(image) for image in images])
    pairs = [pair for values in keys for pair in pair_equal(values)]
    alike = _pair_alike(whole.images_dir, names, progress)
    groups = join_groups(len(images), [*pairs, *alike])
    share = config.val_share or DEFAULT_SHARE
    shares = [1 / config.folds] * config.folds if config.folds else [1 - share, share]
    parts = assign_parts(_labels(whole.coco, images), groups, names, shares)
    filled = len(set(parts.tolist()))
    if config.folds and filled < config.folds:
        raise DataError(
            f"{whole.annotations}: expected images for each of {config.folds} folds, found enough for {filled}, of "
            f"{pluralize(len(images), 'image')}: near-duplicates and groups are not divided. Make fewer folds, add "
            "images, or let data.group_by make smaller groups (id: each image alone)."
        )
    chosen = {name for name, part in zip(names, parts.tolist(), strict=True) if part == (config.fold or 2) - 1}
    how = f"fold {config.fold} of {config.folds} (1 to {config.folds})" if config.folds else percent(share)
    bound = sum(size for size in Counter(groups.tolist()).values() if size > 1)
    together = f"; {pluralize(bound, 'image')} kept together as near-duplicates, videos or groups" if bound else ""
    return chosen, f"{how} of the images of {whole.annotations}, stratified by class{together}"


def _pair_alike(images_dir: Path | None, names: list[str], progress: Progress) -> list[tuple[int, int]]:
    if images_dir is None:
        return []
    inside = [place for place, name in enumerate(names) if not leaves_folder(name)]
    described = describe_changes(read_thumbnails([images_dir / names[place] for place in inside], progress))
    found = [pair for pair in find_alike(described, described) if pair[0] < pair[1]]
    for least in ALIKE:
        pairs = [(one, other) for one, other, cosine in found if cosine >= least]
        if np.bincount(join_groups(len(inside), pairs)).max(initial=0) <= COMMON * len(inside):
            break
    return [(inside[one], inside[other]) for one, other in pairs]


def _labels(coco: dict[str, Any], images: list[dict[str, Any]]) -> np.ndarray:
    """Marks whether each image has objects of each category, bool `[N, C]`."""
    places = {image["id"]: place for place, image in enumerate(images)}
    columns: dict[Any, int] = {}
    cells = []
    for entry in coco["annotations"]:
        image_id = entry.get("image_id") if isinstance(entry, dict) and not entry.get("iscrowd") else None
        place = places.get(image_id) if type(image_id) is int else None
        if place is not None:
            cells.append((place, columns.setdefault(repr(entry.get("category_id")), len(columns))))
    labels = np.zeros((len(images), len(columns)), dtype=bool)
    if cells:
        labels[tuple(np.array(cells).T)] = True
    return labels


def _take(coco: dict[str, Any], val_ids: Collection[int], is_val: bool) -> dict[str, Any]:
    """A part of the images with their annotations; entries that cannot be told are left to training's checks."""

    def belongs(entry: Any, key: str) -> bool:
        id_ = entry.get(key) if isinstance(entry, dict) else None
        return (type(id_) is int and id_ in val_ids) == is_val

    images = [image for image in coco["images"] if belongs(image, "id")]
    annotations = [annotation for annotation in coco["annotations"] if belongs(annotation, "image_id")]
    return {**coco, "images": images, "annotations": annotations}


def read_record(path: Path, settings: dict[str, Any], known: Collection[str], whole: Source) -> set[str]:
    """File names of the validation images that a record names.

    Args:
        path: a JSON object with the list `validation` and, where a run wrote it, `made_by`.
        settings: of the recipe, which have to be those that it was made by.
        known: the file names of the data set.
        whole: the data set.

    Raises:
        DataError: it cannot be read, or names images that the data set lacks.
        RecipeError: it was made by other settings.
    """
    try:
        record = json.loads(read_file(path, largest_json()))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON of the splits, cannot read it: {error}; check the path") from None
    names = record.get("validation") if isinstance(record, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f'{path}: expected {{"validation": [file names]}}, found something else; correct it')
    made_by = record.get("made_by")
    if isinstance(made_by, dict) and made_by != settings:
        before, now = (
            ", ".join(f"{name} {values.get(name)}" for name in SETTINGS if made_by.get(name) != settings[name])
            for values in (made_by, settings)
        )
        raise RecipeError(
            f"{path}: expected splits made by data.{now}, as the recipe says, found them made by {before}. Give the "
            "recipe the same, or begin a run of its own."
        )
    lacking = [name for name in names if name not in known]
    if lacking:
        raise DataError(
            f"{path}: expected names of images of {whole.annotations}, found {len(lacking)} that it lacks: "
            f"{join_limited(lacking, 3)}. Give the annotations that were divided, or correct the list."
        )
    return set(names)
