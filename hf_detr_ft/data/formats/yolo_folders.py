"""YOLO folders: where their images and labels lie, and what `data.yaml` says of classes, splits and keypoints.

A split of `data.yaml` is a folder of images, a text file with the path of an image in each line, or a list of these.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from hf_detr_ft.data.find_images import is_image
from hf_detr_ft.data.formats.annotation_text import lines_of, load_text
from hf_detr_ft.data.formats.labelled import Faults, Photos, class_name
from hf_detr_ft.data.formats.layout import SPLIT_WORDS, Layout, Place, Tree, split_of
from hf_detr_ft.errors import DataError
from hf_detr_ft.yaml12 import parse_yaml

CLASS_LISTS = ("classes.txt", "obj.names", "labels.txt", "predefined_classes.txt")
"""Files with a class's name in each line, in darknet's and labelImg's exports."""
NO_LABELS = (*CLASS_LISTS, *(f"{name}.txt" for name in ("readme", "readme.dataset", "readme.roboflow", *SPLIT_WORDS)))
MOST_BYTES = 1 << 24
"""Largest file of labels or of settings."""


def find_yolo(tree: Tree) -> Layout | None:
    """The splits of a folder with a `data.yaml`, or with lines of labels beside or below its images."""
    for name in tree.named(".yaml", ".yml"):
        if "/" not in name and "names:" in (text := load_text(tree.root / name, MOST_BYTES)):
            settings = _parse(text, tree.root / name)
            splits = {
                split: _place(settings, key, tree.root, name)
                for split, key in (("train", "train"), ("val", "val"), ("val", "valid"), ("test", "test"))
                if settings.get(key)
            }
            if not splits:
                raise DataError(
                    f"{tree.root / name}: expected folders or lists of images as 'train' and 'val', found none"
                )
            return Layout("yolo", splits, f"{name} names its classes and folders", tree.root / name)
    labels = [name for name in tree.named(".txt") if PurePosixPath(name).name.lower() not in NO_LABELS]
    stems = {re.sub(r"\.[^./]*$", "", label_name(image)) for image in tree.images}
    paired = [name for name in labels if name[:-4] in stems]
    if not paired or not re.match(r"\s*\d+(\s+[-+.\deE]+){4,}\s*$", _first_line(tree.root, paired)):
        return None
    classes = next((name for name in tree.files if PurePosixPath(name).name.lower() in CLASS_LISTS), None)
    folders = sorted({str(PurePosixPath(image).parent) for image in tree.images})
    by_split: dict[str, list[str]] = {}
    for name in folders:
        by_split.setdefault(split_of(name) or "", []).append(name)
    common = {split: tree.root / os.path.commonpath(names) for split, names in by_split.items()}
    named = {split: Place(folder, folder) for split, folder in common.items() if split}
    splits = named or {"train": Place(common[""], common[""])}
    reason = f"{paired[0]} has lines of labels"
    return Layout("yolo", splits, reason, None if classes is None else tree.root / classes)


def _first_line(root: Path, files: list[str]) -> str:
    for name in files[:20]:
        if lines := lines_of(load_text(root / name, MOST_BYTES)):
            return lines[0][1]
    return ""


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        settings = parse_yaml(text)
    except yaml.YAMLError as error:
        raise DataError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise DataError(f"{path}: expected 'names' of classes and folders 'train' and 'val', found no mapping")
    return settings


def _place(settings: dict[str, Any], key: str, root: Path, name: str) -> Place:
    """The images of a split: below the folder of the YAML file, whatever machine that was written on."""
    value = settings[key]
    values = value if isinstance(value, list) else [value]
    above = _parts(str(settings.get("path") or ""))
    found = [_find(one, above, root) if isinstance(one, str) else None for one in values]
    wrong = [one for one, path in zip(values, found, strict=True) if path is None]
    if wrong:
        raise DataError(
            f"{root / name}: expected a folder or a list of images (.txt) below {root} as {key!r}, found "
            f"{wrong[0]!r:.80}, which is none; write it relative to the file"
        )
    paths = [path for path in found if path is not None]
    if len(paths) == 1 and paths[0].is_dir():
        images = paths[0] / "images"
        holds_images = any(is_image(entry.name) for entry in paths[0].iterdir())
        return Place(root / name, images if images.is_dir() and not holds_images else paths[0])
    return Place(root / name, root, tuple(paths))


def _find(value: str, above: list[str], root: Path) -> Path | None:
    """The folder or list below the root that is meant: ../train/images, as exports have it, is train/images."""
    parts = _parts(value)
    places = (base.joinpath(*parts[start:]) for start in range(len(parts)) for base in (root, root.joinpath(*above)))
    exists = os.path.isfile if value.endswith(".txt") else os.path.isdir
    return next((place for place in places if exists(place)), None)


def names_of_split(place: Place, photos: Photos, faults: Faults) -> list[str]:
    """Names of a split's images, relative to its folder; lines of lists that mean none are faults.

    A line is relative to the list's folder or the data set's; of a path of another machine the beginning is left out.
    """
    images = Tree(place.images_dir).images
    if not place.parts:
        return images
    known, names = set(images), dict[str, None]()
    for part in place.parts:
        within = part.relative_to(place.images_dir)
        if part.is_dir():
            names |= dict.fromkeys(image for image in images if PurePosixPath(image).is_relative_to(within))
            continue
        for number, line in lines_of(load_text(part, MOST_BYTES)):
            parts = _parts(line)
            meant = ("/".join((*a, *parts[n:])) for n in range(len(parts)) for a in (within.parent.parts, ()))
            name = next((one for one in meant if one in known), None)
            with faults.at(f"{part}, line {number}"):
                names[name or photos.find(line)] = None
    return list(names)


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def label_name(image: str) -> str:
    """Path of an image's labels, with the image's suffix: `labels` in the place of the last folder `images`."""
    before, images, after = f"/{image}".rpartition("/images/")
    return f"{before}/labels/{after}"[1:] if images else image


def load_names(path: Path | None) -> list[str]:
    """Names of the classes by number, of a `data.yaml` or of a list with a line each; none without a file."""
    if path is None:
        return []
    text = load_text(path, MOST_BYTES)
    if path.suffix == ".txt" or path.suffix == ".names":
        return [class_name(line) for _, line in lines_of(text)]
    names = _parse(text, path).get("names")
    if isinstance(names, dict):
        numbers = list(range(len(names)))
        keys = {int(key) if isinstance(key, str) and key.isdecimal() else key: key for key in names}
        if sorted(keys, key=str) != sorted(numbers, key=str):
            raise DataError(f"{path}: expected 'names' numbered from 0, each once, found {list(names)!r:.120}")
        names = [names[keys[number]] for number in numbers]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: expected 'names' to be a list or a mapping of classes, found {names!r:.80}")
    try:
        return [class_name(str(name) if isinstance(name, (float, bool)) else name) for name in names]
    except DataError as error:
        raise DataError(f"{path}: names: {error}") from None


def count_keypoint_values(path: Path | None) -> int:
    """Values of the keypoints of an object, by `kpt_shape` of a `data.yaml`: [keypoints, values of each]; 0 without."""
    if path is None or path.suffix.lower() not in (".yaml", ".yml"):
        return 0
    shape = _parse(load_text(path, MOST_BYTES), path).get("kpt_shape")
    if shape is None:
        return 0
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(side) is int and 0 < side < 999 for side in shape)
    ):
        raise DataError(f"{path}: expected 'kpt_shape' to be [keypoints, 2 or 3], found {shape!r:.60}")
    return int(shape[0] * shape[1])
