"""Layouts of data sets: which files of a folder hold the annotations of which split, and where its images lie."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hf_detr_ft.data.find_images import is_image
from hf_detr_ft.errors import DataError
from hf_detr_ft.formatting import join_limited
from hf_detr_ft.plain_files import open_file

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
"""Words in names of files and folders, and the split that each means."""
SPLITS = ("train", "val", "test")
MOST_FILES = 5_000_000
"""Files that are looked through below a folder; with more it is no data set, but a disk."""
HEAD_BYTES = 1 << 18
"""Beginning of a file that is read to tell what it is."""


class Piece(NamedTuple):
    """Part of a split's images that is read as one, in a file: a row group of a Parquet file, or a whole archive."""

    path: Path
    group: int | None
    """Number of the row group."""
    images: int
    """Number of images."""


class Place(NamedTuple):
    """One split on the disk."""

    annotations: Path
    """File with its annotations, or the folder of such files."""
    images_dir: Path
    """Folder that the names of images are relative to."""
    parts: tuple[Path, ...] = ()
    """Folders and lists of images that are the split's, where it is not all of the folder; read by YOLO's reader."""
    pieces: tuple[Piece, ...] = ()
    """Pieces of shards that its images lie in, in their order, if they are streamed."""


class Layout(NamedTuple):
    """A data set on the disk."""

    format: str
    """Name of its format, as `data.format` takes it."""
    splits: dict[str, Place]
    """Places by split: "train", "val" and "test", those that there are."""
    reason: str
    """Why it was taken to be so, for the terminal."""
    classes: Path | None = None
    """File that lists the classes, where the format has one."""
    root: Path | None = None
    """Folder in which it was found; None where the files were named."""
    streamed: bool = False
    """Images stay in their shards, to be read as they are needed."""


class Tree:
    """Files below a folder, hidden ones aside, as paths relative to it with "/".

    Args:
        root: the folder.
        files: that are known to be there; by default it is searched.

    Raises:
        DataError: it is no folder, cannot be searched, or holds more than `MOST_FILES`.
    """

    def __init__(self, root: Path, files: Sequence[str] | None = None) -> None:
        self.root = root
        self.files = list(files) if files is not None else self._search(root)
        self.images = [name for name in self.files if is_image(name)]

    def _search(self, root: Path) -> list[str]:
        found: list[str] = []
        if not root.is_dir():
            kind = "a file" if root.exists() else "nothing"
            raise DataError(f"{root}: expected the folder of a data set, found {kind}; correct data.root")

        def refuse(error: OSError) -> None:
            raise DataError(f"{error.filename}: cannot be searched for annotations: {error.strerror}") from error

        seen: set[tuple[int, int]] = set()
        for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in seen:  # a link that leads round in circles
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = Path(folder).relative_to(root)
            found += [(inside / name).as_posix() for name in sorted(names) if not name.startswith(".")]
            if len(found) > MOST_FILES:
                raise DataError(f"{root}: more than {MOST_FILES:,} files; expected the folder of one data set")
        return found

    def only(self, name: str) -> "Tree":
        """The tree without any file but images and this one."""
        self.files = [file for file in self.files if file == name or is_image(file)]
        return self

    def named(self, *suffixes: str) -> list[str]:
        """Files with one of these suffixes, which are in small letters."""
        return [name for name in self.files if name.lower().endswith(suffixes)]

    def images_folder(self, near: str, split: str | None, samples: Sequence[str]) -> Path:
        """Folder that the names of images are most likely relative to.

        Args:
            near: annotation file or folder, relative to the root.
            split: that the images belong to.
            samples: some names of images in the annotations.
        """
        holding = {parent for image in self.images for parent in Path(image).parents}
        direct = {Path(image).parent for image in self.images}
        own = Path(near).parent if (self.root / near).is_file() else Path(near)

        def rank(folder: Path) -> tuple:
            hits = sum(os.path.isfile(self.root / folder / name) for name in samples if "\0" not in name)
            is_split = split_of(folder.as_posix()) == split
            return -hits, not is_split, folder not in direct, folder != own, len(folder.parts), folder

        chosen = min(holding | {own, Path()}, key=rank)
        return self.root / chosen


def split_of(path: str) -> str | None:
    """The split that a file or folder belongs to by its name, or else by the folders it lies in."""
    for part in reversed(Path(path).parts):
        words = re.split(r"[^a-z]+", part.lower())
        found = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
        if found:
            return found[-1]
    return None


def group_by_split(files: Sequence[str], root: Path) -> dict[str, str]:
    """The one file of each split; a single file that names no split is "train".

    Raises:
        DataError: several files are of one split.
    """
    if len(files) == 1:
        return {split_of(files[0]) or "train": files[0]}
    splits: dict[str, list[str]] = {}
    for name in files:
        splits.setdefault(split_of(name) or "train", []).append(name)
    several = {split: names for split, names in splits.items() if len(names) > 1}
    if several:
        lines = [f"{split}: {join_limited(names, 5)}" for split, names in several.items()]
        raise DataError(
            f"{root}: expected one annotation file for each split, found several that may be meant: "
            f"{'; '.join(lines)}; name them as data.train_annotations and data.val_annotations, or remove the others"
        )
    return {split: names[0] for split, names in splits.items()}


def read_head(path: Path, count: int = HEAD_BYTES) -> bytes:
    """The beginning of a file; nothing where it cannot be read, which its reader will say."""
    try:
        with open_file(path) as file:
            return file.read(count)
    except OSError:
        return b""
