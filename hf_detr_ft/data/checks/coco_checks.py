"""Everything that is wrong with a data set, before any training: `check_coco` for a split, `check_splits` for two."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from hf_detr_ft.data.checks.annotation_fields import Entries, Entry, read_entries
from hf_detr_ft.data.checks.box_checks import check_areas, check_boxes
from hf_detr_ft.data.checks.category_checks import check_crowds, check_unused_categories, compare_categories
from hf_detr_ft.data.checks.equal_images import check_same_images
from hf_detr_ft.data.checks.image_checks import Progress, check_image_shapes, check_images
from hf_detr_ft.data.checks.mask_checks import check_masks
from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.formats.other_json import describe_json, structure_faults
from hf_detr_ft.data.image_size import ImageSize

__all__ = ["Problem", "check_coco", "check_splits"]


def check_coco(
    coco: dict[str, Any] | Entries,
    annotations_file: Path,
    images_dir: Path | None,
    size: ImageSize | None = None,
    *,
    decode: bool = True,
    progress: Progress = iter,
    for_training: bool = True,
    white_level: int | None = None,
    thumbnails: dict[int, np.ndarray] | None = None,
    masks: bool = False,
) -> list[Problem]:
    """Finds everything that is wrong with one split; no JSON makes it raise.

    Args:
        coco: as `read_coco` or `read_entries` returns it.
        annotations_file: where it came from, for the messages.
        images_dir: the folder that `file_name` is relative to; None where the images are no files.
        size: that the model takes images in, to find those too thin for it.
        decode: read every image to its end, which finds truncated ones; else no more than its header.
        progress: wraps the list of images, one item each, such as `tqdm`.
        for_training: list categories without objects; those of a validation split `check_splits` lists.
        white_level: of images of 16 bits, see `decode_rgb`.
        thumbnails: gets those of `check_images`.
        masks: every annotation has to have one.

    Returns:
        Errors first, then warnings.
    """
    file = str(annotations_file)
    if isinstance(coco, Entries):
        entries = coco
    elif faults := structure_faults(coco):
        found, remedy = describe_json(coco, annotations_file)
        return [Problem("error", "structure", file, "the file", f"found {found}: {fault}", remedy) for fault in faults]
    else:
        entries = read_entries(coco, file)
    sizes_px = {
        image.fields["id"]: (image.fields["width"], image.fields["height"])
        for image in reversed(entries.images)
        if {"id", "width", "height"} <= image.fields.keys()
    }
    problems = [
        *entries.problems,
        *_check_empty(entries, file),
        *_check_duplicates(entries, file),
        *_check_references(entries, file),
        *check_crowds(entries, file),
        *(check_unused_categories(entries, file) if for_training else ()),
        *(
            check_images(entries.images, file, images_dir, progress, decode, white_level, thumbnails)
            if images_dir is not None
            else ()
        ),
        *(check_image_shapes(entries.images, file, size) if size is not None else ()),
        *check_boxes(entries.annotations, sizes_px, file),
        *check_areas(entries.annotations, file),
        *(check_masks(entries.annotations, sizes_px, file) if masks else ()),
    ]
    return sorted(problems, key=lambda problem: problem.severity)


def _check_empty(entries: Entries, file: str) -> list[Problem]:
    problems = []
    for key, found in (("images", entries.images), ("categories", entries.categories)):
        if not found:
            message = f"expected at least one entry in {key!r}, found none"
            problems.append(Problem("error", f"no-{key}", file, key, message, "check that this is the right file"))
    if all(annotation.fields.get("iscrowd") for annotation in entries.annotations):
        crowds = f"only {len(entries.annotations)} crowds" if entries.annotations else "none"
        message = f"expected at least one object in 'annotations', found {crowds}"
        remedy = "label objects, or check that this is the right file"
        problems.append(Problem("error", "no-annotations", file, "annotations", message, remedy))
    return problems


def _check_duplicates(entries: Entries, file: str) -> list[Problem]:
    problems = []
    for kind, found in (
        ("image", entries.images),
        ("annotation", entries.annotations),
        ("category", entries.categories),
    ):
        for same in _repeated(found, "id"):
            message = f"expected an id of its own, found {len(same)} entries with it: {_names(same)}"
            remedy = "number them anew, and correct what refers to them"
            problems.append(Problem("error", f"duplicate-{kind}-id", file, same[0].name, message, remedy))
    for same in _repeated(entries.images, "file_name"):
        message = f"expected one entry for each image file, found {len(same)}: {_names(same)}"
        remedy = "merge them: each lacks the other's objects, which train as background"
        problems.append(Problem("warning", "duplicate-file-name", file, same[0].name, message, remedy))
    for same in _repeated(entries.categories, "name"):
        message = f"expected a name of its own, found {len(same)} categories with it: {_names(same)}"
        remedy = "merge or rename them: results tell them apart by the name"
        problems.append(Problem("warning", "duplicate-category-name", file, same[0].name, message, remedy))
    return problems


def _repeated(entries: list[Entry], key: str) -> list[list[Entry]]:
    values = [entry.fields[key] for entry in entries if key in entry.fields]
    if len(set(values)) == len(values):
        return []
    groups: defaultdict[Any, list[Entry]] = defaultdict(list)
    for entry in entries:
        if key in entry.fields:
            groups[entry.fields[key]].append(entry)
    return [group for group in groups.values() if len(group) > 1]


def _names(entries: list[Entry]) -> str:
    return ", ".join(entry.name for entry in entries[:5]) + (", …" if len(entries) > 5 else "")


def _check_references(entries: Entries, file: str) -> list[Problem]:
    problems = []
    images = {image.fields.get("id") for image in entries.images}
    categories = {category.fields["id"]: category for category in entries.categories if "id" in category.fields}
    known = ", ".join(str(id_) for id_ in sorted(categories)[:20]) + (", …" if len(categories) > 20 else "")
    if {annotation.fields.get("image_id") for annotation in entries.annotations} <= images | {None} and {
        annotation.fields.get("category_id") for annotation in entries.annotations
    } <= categories.keys() | {None}:
        return []
    for annotation in entries.annotations:
        image_id, category_id = annotation.fields.get("image_id"), annotation.fields.get("category_id")
        if image_id is not None and image_id not in images:
            message = f"expected the id of an image of this file as 'image_id', found {image_id}"
            remedy = "add the image, correct image_id, or remove the annotation"
            problems.append(Problem("error", "unknown-image", file, annotation.name, message, remedy))
        if category_id is not None and category_id not in categories:
            message = f"expected one of {known or 'no categories'} as 'category_id', found {category_id}"
            remedy = "add the category or correct category_id"
            problems.append(Problem("error", "unknown-category", file, annotation.name, message, remedy))
    return problems


def check_splits(
    train: dict[str, Any] | Entries,
    train_dir: Path | None,
    val: dict[str, Any] | Entries,
    val_dir: Path | None,
    *,
    val_file: Path | str = "validation annotations",
) -> list[Problem]:
    """Finds the same image in both splits, and categories that differ or cannot be measured; no JSON makes it raise.

    Args:
        train: the training split as `read_coco` or `read_entries` returns it, its images under `train_dir`.
        train_dir: the training images; None where they are no files.
        val: the validation split, its images under `val_dir`.
        val_dir: the validation images; None where they are no files.
        val_file: where `val` came from, for the messages.

    Returns:
        Errors first, then warnings.
    """
    file = str(val_file)
    splits = []
    for split in (train, val):
        if not isinstance(split, Entries) and structure_faults(split):
            return []  # check_coco's to report
        splits.append(split if isinstance(split, Entries) else read_entries(split, file))
    problems = compare_categories(splits[0], splits[1], file)
    if train_dir is not None and val_dir is not None:
        problems = check_same_images(splits[0].images, train_dir, splits[1].images, val_dir, file) + problems
    return sorted(problems, key=lambda problem: problem.severity)
