"""Sources of a recipe's splits: files, or the generator of synthetic images."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from datasets import Dataset

from hf_detr_ft.data.coco import LabelMap, read_coco
from hf_detr_ft.data.dataset import load_split
from hf_detr_ft.data.drawn_split import draw_split, load_drawn
from hf_detr_ft.data.file_names import resolve_file_names
from hf_detr_ft.data.find_data import describe_layout, find_data
from hf_detr_ft.data.formats.coco_folder import mend_coco
from hf_detr_ft.data.formats.find_format import read_layout
from hf_detr_ft.data.formats.labelled import Photos
from hf_detr_ft.data.formats.layout import Layout, Piece, Place
from hf_detr_ft.data.formats.shards import state_of
from hf_detr_ft.data.formats.turned import turn_coco
from hf_detr_ft.data.formats.unpacked import unpack_once
from hf_detr_ft.data.streamed_rows import read_parts
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.recipe.sections import DataConfig, MaskUse
from hf_detr_ft.synthetic.image_set import ImageSetConfig, find_faults, split_indices
from hf_detr_ft.synthetic.render import select_classes

SYNTHETIC = ("images", "val_images", "classes", "seed", "short_side")
"""Fields of a recipe's `data`, each behind `synthetic_`."""


@dataclass(frozen=True)
class Source:
    """One split, before any check and any limit.

    Attributes:
        coco: its COCO dict.
        annotations: what messages call it: the annotation file.
        images_dir: the folder that `file_name` is relative to; None where the images are no files.
        fingerprint: name and SHA-256 of the annotations, for the record.
        load: the rows (see `load_split`) of this COCO dict, or of a part of its images.
        white_level: of images of 16 bits, see `decode_rgb`.
        notes: what was found, taken to be so or mended, a line each, for the terminal.
        origin: what it is a part of, where its images were taken out of another source.
        read_with: what the other splits are found in as long as this one is there, where all are read at once.
        masks: outlines are kept, and the rows have the masks that are asked for.
        pieces: where the images lie, in their order, if they are streamed; the rows have none then.
    """

    coco: dict[str, Any]
    annotations: Path
    images_dir: Path | None
    fingerprint: dict[str, str]
    load: Callable[[dict[str, Any], LabelMap], Dataset]
    white_level: int | None = None
    notes: tuple[str, ...] = ()
    read_with: object = None
    origin: "Origin | None" = None
    masks: MaskUse = False
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True)
class Origin:
    """The source that training and validation were made of.

    Attributes:
        whole: all images.
        record: settings and file names of each split, for the run folder.
    """

    whole: Source
    record: dict[str, Any]


def load_source(config: DataConfig, split: str, masks: MaskUse = False, layout: Layout | None = None) -> Source:
    """The split "train", "val" or "test" of a recipe's `data`, as it is there, with masks where they are asked for.

    See `splits.load_sources`. Files are searched for where their layout is not given.

    Raises:
        RecipeError: synthetic images are described wrongly.
        DataError: annotations are not there or cannot be read, there is no such split, or images cannot be drawn.
    """
    if config.synthetic_images is not None:
        return _draw(config, split, masks)
    layout = layout or find_data(config)
    notes = [describe_layout(layout)] if layout.reason else []
    if split not in layout.splits:
        raise DataError(f"{config.root or '.'}: expected a split {split!r}, found none; {describe_layout(layout)}")
    if layout.format == "coco":
        return _read_coco(config, layout.splits[split], notes, masks)
    return _read_other(config, layout, split, notes, masks)


def _read_coco(config: DataConfig, place: Place, notes: Sequence[str], masks: MaskUse) -> Source:
    """A split of a COCO JSON."""
    coco = read_coco(place.annotations, bool(masks))
    if config.file_names == "similar":
        coco = resolve_file_names(coco, place.images_dir)
    coco, mended = mend_coco(coco, place.images_dir)
    root = Path(config.root or ".").expanduser()
    inside = place.annotations.is_relative_to(root)
    name = str(place.annotations.relative_to(root) if inside else place.annotations)
    fingerprint = {name: file_fingerprint(place.annotations)}
    return _from_coco(config, coco, place, fingerprint, (*notes, *mended), masks)


class _Read:
    """Splits of a format that is read as a whole, for as long as one of them is used."""

    def __init__(self, splits: dict[str, tuple[dict[str, Any], Place]], turned: int) -> None:
        self.splits = splits
        self.turned = turned


_READ: WeakValueDictionary[str, _Read] = WeakValueDictionary()
"""Splits that are in use, so that the second one need not be read once more with the first."""


def _read_other(config: DataConfig, layout: Layout, split: str, notes: Sequence[str], masks: MaskUse) -> Source:
    """A split of another format: all are read at once, since their categories are numbered together."""
    found = state_of(layout.root) if layout.root is not None else None  # files that are named may lie anywhere
    key = repr((layout, config.file_names, config.exif, found))
    read = None if found is None else _READ.get(key)
    if read is None:
        opened: list[Photos] = []

        def open_photos(folder: Path) -> Photos:
            opened.append(Photos(folder, config.file_names == "similar", config.exif == "stored"))
            return opened[-1]

        _READ[key] = read = _Read(read_layout(layout, open_photos), sum(photos.turned for photos in opened))
    if read.turned and config.exif == "upright":
        said = f"EXIF turns {pluralize(read.turned, 'photo')}, and no size in the annotations tells what boxes are of"
        notes = [*notes, f"{said}: taken as drawn on upright photos; where they were not, set data.exif to stored"]
    coco, place = read.splits[split]
    digest = hashlib.sha256(json.dumps(coco).encode()).hexdigest()
    source = _from_coco(config, coco, place, {f"{layout.format} {split}": digest}, notes, masks)
    return replace(source, read_with=read)


def _from_coco(
    config: DataConfig,
    coco: dict[str, Any],
    place: Place,
    fingerprint: dict[str, str],
    notes: Sequence[str],
    masks: MaskUse,
) -> Source:
    if config.exif == "stored":
        coco, turned = turn_coco(coco, place.images_dir)
        notes = [*notes, *turned]

    def load(coco: dict[str, Any], label_map: LabelMap) -> Dataset:
        return load_split(coco, place.images_dir, label_map, config.white_level, masks)

    level, folder = config.white_level, None if place.pieces else place.images_dir
    source = Source(coco, place.annotations, folder, fingerprint, load, level, tuple(notes), masks=masks)
    return replace(source, pieces=place.pieces)


def unpack_streamed(source: Source) -> Source:
    """The split with its images in files of the cache of `datasets`, where they would be streamed."""
    if not source.pieces:
        return source
    names = {image["id"]: image["file_name"] for image in source.coco["images"]}

    def write(folder: Path) -> None:
        for image in read_parts([(min(names, default=1), max(names, default=0))], source.pieces):
            if image["image_id"] in names:
                (folder / names[image["image_id"]]).write_bytes(image["content"])

    digest = hashlib.sha256(json.dumps(sorted(names)).encode()).hexdigest()[:32]
    folder = unpack_once(list({piece.path: None for piece in source.pieces}), write, f"unpacked/{digest}")

    def load(coco: dict[str, Any], label_map: LabelMap) -> Dataset:
        return load_split(coco, folder, label_map, source.white_level, source.masks)

    return replace(source, images_dir=folder, load=load, pieces=())


def _draw(config: DataConfig, split: str, masks: MaskUse) -> Source:
    settings = {name: getattr(config, f"synthetic_{name}") for name in SYNTHETIC}
    faults = find_faults(**settings)
    if faults:
        raise RecipeError("\n".join(f"data.synthetic_{name}: {fault}" for name, fault in faults.items()))
    least, largest = config.synthetic_short_side
    set_config = ImageSetConfig(select_classes(config.synthetic_classes), config.synthetic_seed, (least, largest))
    indices = split_indices(settings["images"], settings["val_images"])[split]
    coco, photos = draw_split(split, indices, set_config, bool(masks))
    name = f"synthetic {split}"
    digest = hashlib.sha256(json.dumps(coco).encode()).hexdigest()
    load = partial(load_drawn, images=coco["images"], photos=photos, masks=masks)
    return Source(coco, Path(name), None, {name: digest}, load, masks=masks)


def file_fingerprint(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
