"""A repaired copy of a data set in a folder of its own, and the list of what was changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_detr_ft.atomic import write_folder, write_json
from hf_detr_ft.data.checks.annotation_fields import read_entries
from hf_detr_ft.data.checks.equal_images import find_files, find_twins
from hf_detr_ft.data.checks.near_duplicates import describe_changes, find_alike, read_thumbnails
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.repair import repair_coco
from hf_detr_ft.data.segmentation_area import Measured
from hf_detr_ft.data.split_source import Source
from hf_detr_ft.errors import DataError

CHANGES = "changes.json"
FOLDERS = {split: (f"annotations/custom_{split}.json", f"{split}2017") for split in ("train", "val", "test")}
"""Annotations and images of a split in the copy: where a recipe looks for them of itself."""


def write_repaired(sources: dict[str, Source], target: Path, size: ImageSize) -> list[dict[str, str]]:
    """Writes a copy of all splits in which `check` finds no error.

    Photos that are in training as well as in another split stay in the other one alone, and categories are the same in
    all splits; see `repair_coco` for the rest. The source is only read.

    Args:
        sources: by split, as `check_data` returns them.
        target: a folder that is not there yet.
        size: that the model takes images in.

    Returns:
        The changes: split, kind, entry and what was done, as they are listed in changes.json of the copy.

    Raises:
        DataError: the folder is there, nothing is left of a split, or the disk refuses something.
    """
    require_new(target)
    changes: list[dict[str, str]] = []
    wholes = {split: source.origin.whole if source.origin else source for split, source in sources.items()}
    if sources["train"].origin is not None:
        del wholes["val"]
    for source in wholes.values():
        if source.images_dir is None:
            raise DataError(f"--fix: expected images in files, found drawn ones ({source.annotations}).")
        annotated = source.annotations
        for folder in (source.images_dir, annotated if annotated.is_dir() else annotated.parent):
            if target.resolve().is_relative_to(folder.resolve()):
                raise DataError(f"--fix: expected a folder beside the data, found {target}, in {folder}. Give another.")
    cocos = {
        split: repair_coco(source.coco, source.images_dir, size, _noter(changes, split))
        for split, source in wholes.items()
    }
    for split in cocos:
        if split != "train":
            _drop_shared(cocos["train"], wholes["train"], cocos[split], wholes[split], _noter(changes, "train"))
    _match_categories(cocos, changes)
    for split, coco in cocos.items():
        if not coco["images"] or all(annotation.get("iscrowd") for annotation in coco["annotations"]):
            raise DataError(f"--fix: nothing of {wholes[split].annotations} can be kept; look at what `check` lists.")
    with write_folder(target) as folder:
        for split, coco in cocos.items():
            _write_split(folder, split, coco, wholes[split])
        write_json(folder / CHANGES, changes)
    return changes


def require_new(target: Path) -> None:
    """Makes sure that nothing would be overwritten.

    Raises:
        DataError: the folder is there.
    """
    if target.exists() or target.is_symlink():
        raise DataError(f"--fix: expected a folder that is not there yet, found {target}. Give another one.")


def _noter(changes: list[dict[str, str]], split: str) -> Callable[[str, str, str], None]:
    def note(kind: str, entry: str, change: str) -> None:
        changes.append({"split": split, "kind": kind, "entry": entry, "change": change})

    return note


def _drop_shared(
    train: dict[str, Any],
    train_source: Source,
    other: dict[str, Any],
    other_source: Source,
    note: Callable[[str, str, str], None],
) -> None:
    """Takes photos out of training that another split has, too, or near-duplicates of."""
    assert train_source.images_dir is not None and other_source.images_dir is not None
    images, others = (read_entries(coco, "").images for coco in (train, other))
    twins = find_twins(
        list(find_files(others, other_source.images_dir)), list(find_files(images, train_source.images_dir))
    )
    shared = {mine.fields["id"]: "the same file" for mine, _ in twins}
    folders = (train_source.images_dir, other_source.images_dir)
    described = [
        describe_changes(read_thumbnails([folder / image.fields["file_name"] for image in entries]))
        for folder, entries in zip(folders, (images, others), strict=True)
    ]
    for mine, _, likeness in find_alike(*described):
        shared.setdefault(images[mine].fields["id"], f"a near-duplicate (likeness {likeness:.2f})")
    for image in train["images"]:
        if image["id"] in shared:
            what = f"id {image['id']} ({image['file_name']!r})"
            note("photo-of-another-split", what, f"left out: {shared[image['id']]}")
    train["images"] = [image for image in train["images"] if image["id"] not in shared]
    train["annotations"] = [entry for entry in train["annotations"] if entry["image_id"] not in shared]


def _match_categories(cocos: dict[str, dict[str, Any]], changes: list[dict[str, str]]) -> None:
    """Gives all splits the categories of training that have objects somewhere, by name."""
    train = cocos["train"]
    by_name = {category["name"]: category["id"] for category in train["categories"]}
    for split, coco in cocos.items():
        note = _noter(changes, split)
        moved = {category["id"]: by_name.get(category["name"]) for category in coco["categories"]}
        for category in coco["categories"]:
            new, what = moved[category["id"]], f"id {category['id']} ({category['name']!r})"
            if new is None:
                note("category-not-in-training", what, "left out, with its objects")
            elif new != category["id"]:
                note("category-renamed", what, f"numbered {new}")
        coco["annotations"] = [entry for entry in coco["annotations"] if moved[entry["category_id"]] is not None]
        for entry in coco["annotations"]:
            entry["category_id"] = moved[entry["category_id"]]
    used = {entry["category_id"] for entry in train["annotations"] if not entry.get("iscrowd")}
    unused = [category for category in train["categories"] if category["id"] not in used]
    for category in unused:
        _noter(changes, "train")("unused-category", f"id {category['id']} ({category['name']!r})", "left out")
    kept = [category for category in train["categories"] if category["id"] in used]
    for coco in cocos.values():
        coco["categories"] = kept
        coco["annotations"] = [entry for entry in coco["annotations"] if entry["category_id"] in used]


def _write_split(folder: Path, split: str, coco: dict[str, Any], source: Source) -> None:
    assert source.images_dir is not None
    annotations, images_dir = (folder / name for name in FOLDERS[split])
    outlines = _read_outlines(source.annotations)
    for entry in coco["annotations"]:
        if isinstance(entry.get("segmentation"), Measured):
            del entry["segmentation"]
            if entry["id"] in outlines:
                entry["segmentation"] = outlines[entry["id"]]
    annotations.parent.mkdir(exist_ok=True)
    write_json(annotations, coco, indent=None)
    for image in coco["images"]:
        copy = images_dir / image["file_name"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.images_dir / image["file_name"], copy)


def _read_outlines(path: Path) -> dict[int, Any]:
    """Segmentations of a COCO JSON by the id of the annotation, which reading left out; none of other formats."""
    try:
        coco = json.loads(path.read_bytes())
        return {entry["id"]: entry["segmentation"] for entry in coco["annotations"] if entry.get("segmentation")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
