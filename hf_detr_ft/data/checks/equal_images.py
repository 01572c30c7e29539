"""The same image file in training and in validation, found by looking up digests."""

import hashlib
import os
import stat
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import NamedTuple

from hf_detr_ft.data.checks.annotation_fields import Entry
from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.coco import leaves_folder

PIECE = 4096
"""Bytes at the beginning, the middle and the end of a file that are read first. Files without compression all have one
length, and would else be read whole."""


class ImageFile(NamedTuple):
    """An image's file, however many names it has."""

    image: Entry
    path: str
    length: int
    """Bytes."""
    identity: tuple[int, int]
    """Device and inode."""


def check_same_images(train: list[Entry], train_dir: Path, val: list[Entry], val_dir: Path, file: str) -> list[Problem]:
    """Finds images of validation whose file, or a file of the same bytes, is in training."""
    train_files, val_files = list(find_files(train, train_dir)), list(find_files(val, val_dir))
    twins = find_twins(train_files, val_files)
    if val_files and len(twins) == len(val_files) == len(train_files):
        message = f"expected other photos than in training, found the same {len(twins)}: both splits are one"
        remedy = "give a validation split of its own: AP on photos that were trained on says nothing about new ones"
        return [Problem("warning", "same-split", file, "images", message, remedy)]
    remedy = "remove it from one of them: AP on photos that were trained on says nothing about new ones"
    return [
        Problem(
            "warning",
            "same-photo",
            file,
            image.name,
            f"expected a photo that is not in training, found the bytes of training's {other.name} in {train_dir}",
            remedy,
        )
        for image, other in twins
    ]


def find_files(images: list[Entry], images_dir: Path) -> Iterator[ImageFile]:
    """The images whose files can be found; `check_images` reports the others."""
    for image in images:
        file_name = image.fields.get("file_name")
        if file_name is None or leaves_folder(file_name):
            continue
        path = os.path.join(images_dir, file_name)
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        if stat.S_ISREG(status.st_mode):
            yield ImageFile(image, path, status.st_size, (status.st_dev, status.st_ino))


def find_twins(train: list[ImageFile], val: list[ImageFile]) -> list[tuple[Entry, Entry]]:
    """Each validation image of which training has the file or the bytes, and the first such image of training.

    Files are read only as far as they have to be: none of a length that the other split lacks, few of them whole.
    """
    same_file = {file.identity: file.image for file in reversed(train)}
    ours, theirs = [file for file in val if file.identity not in same_file], train
    found: dict[Hashable, Entry] = {}
    digests: dict[str, Hashable] = {}
    for digest in (length_of, digest_pieces, digest_whole):
        digests = {file.path: digest(file) for file in (*ours, *theirs)}
        found = {digests[file.path]: file.image for file in reversed(theirs)}
        common = {digests[file.path] for file in ours} & found.keys() - {None}
        ours, theirs = ([file for file in files if digests[file.path] in common] for files in (ours, theirs))
    equal = {file.path: found[digests[file.path]] for file in ours}
    twins = [(file.image, same_file.get(file.identity) or equal.get(file.path)) for file in val]
    return [(image, twin) for image, twin in twins if twin is not None]


def length_of(file: ImageFile) -> Hashable:
    """Bytes of a file."""
    return file.length


def digest_pieces(file: ImageFile) -> Hashable:
    """Length and SHA-256 of three pieces of a file; None where it cannot be read, which `check_images` reports."""
    try:
        with open(file.path, "rb", buffering=0) as stream:
            pieces = []
            for start in sorted({0, max(0, file.length // 2), max(0, file.length - PIECE)}):
                stream.seek(start)
                pieces.append(stream.read(PIECE))
    except OSError:
        return None
    return file.length, hashlib.sha256(b"".join(pieces)).digest()


def digest_whole(file: ImageFile) -> Hashable:
    """SHA-256 of a file; None where it cannot be read."""
    try:
        with open(file.path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return None
