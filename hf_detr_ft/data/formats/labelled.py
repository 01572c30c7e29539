"""Labelled images as every reader gives them, and the COCO dicts that are made of them."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hf_detr_ft.data.coco import leaves_folder
from hf_detr_ft.data.file_names import ImageNames
from hf_detr_ft.data.formats.layout import Layout, Piece, Place
from hf_detr_ft.data.formats.via import polygon_area
from hf_detr_ft.data.images import QUARTER_TURNS, read_frame
from hf_detr_ft.errors import DataError
from hf_detr_ft.formatting import has_half_characters, join_limited

SHOWN = 20
"""Faults that a message lists before it only counts."""


class LabelledObject(NamedTuple):
    """One object of an image."""

    name: str
    """Its class."""
    box_xywh_px: list[float]
    polygons: list[list[float]] | None = None
    """Outlines [x, y, x, y, …] in pixels."""
    crowd: bool = False


class LabelledImage(NamedTuple):
    """One image with its objects."""

    file_name: str
    """Relative to the folder of the split's images, with "/"."""
    size: tuple[int, int]
    """(height, width) in pixels."""
    objects: list[LabelledObject]


class Labelled(NamedTuple):
    """One split."""

    images: list[LabelledImage]
    images_dir: Path
    pieces: tuple[Piece, ...] = ()
    """Pieces of shards that the images lie in, if they are streamed."""


Reading = tuple[dict[str, Labelled], list[str] | None]
"""Splits as a reader gives them, and the names of all classes in their order where the format has one."""


class Faults:
    """Everything that is wrong with the files of a data set, to be said at once.

    Args:
        source: the data set's file or folder, for the message.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        self.found: list[str] = []

    def add(self, place: object, what: object) -> None:
        """Notes one fault and where it is."""
        self.found.append(f"{place}: {what}")

    @contextmanager
    def at(self, place: object) -> Iterator[None]:
        """Notes a DataError as a fault of a place, and goes on behind the block."""
        try:
            yield
        except DataError as error:
            self.add(place, error)

    def refuse(self) -> None:
        """Raises DataError where there are faults; it lists the first and counts the rest."""
        if self.found:
            count = f"{len(self.found)} problem{'s' if len(self.found) > 1 else ''}"
            more = [f"… and {len(self.found) - SHOWN} more"] if len(self.found) > SHOWN else []
            raise DataError("\n  ".join([f"{self.source}: {count}:", *self.found[:SHOWN], *more]))


class Photos:
    """Image files of a split, by the names that annotations give them.

    Args:
        images_dir: their folder.
        similar: take the one file whose name differs only in how it is written, see `ImageNames`.
        stored: sizes are those of the pixels as they are stored, before EXIF turns them.
    """

    def __init__(self, images_dir: Path, similar: bool = False, stored: bool = False) -> None:
        self.images_dir = images_dir
        self._similar = similar
        self._stored = stored
        self._names: ImageNames | None = None
        self.turned = 0
        """Photos that EXIF turns, of those whose size the annotations do not state: nothing tells what boxes are of."""

    def find(self, name: str) -> str:
        """The name of the file that is meant, relative to the folder.

        Raises:
            DataError: it leaves the folder, or there is no such file; names the file that was probably meant.
        """
        if not name.strip() or "\0" in name or has_half_characters(name):
            raise DataError(f"expected the name of an image file, found {name!r}")
        if not leaves_folder(name) and os.path.isfile(self.images_dir / name):
            return name
        if self._names is None:
            self._names = ImageNames(self.images_dir)
        found = self._names.find(name)
        if len(found) == 1 and (self._similar or found[0].rpartition(".")[0] == name):
            return found[0]
        if leaves_folder(name):
            problem = f"expected an image's name relative to {self.images_dir}, found {name!r}, which leaves it"
        else:
            problem = f"expected the image file {self.images_dir / name}, found none"
        hint = ""
        if len(found) == 1:
            hint = f"; {found[0]!r} is probably meant: set data.file_names to similar"
        elif found:
            hint = f"; one of these may be meant: {join_limited(found, 3)}"
        raise DataError(problem + hint)

    def find_size(self, name: str) -> tuple[int, int]:
        """Size (height, width) in pixels of the image that a name means. Raises DataError, see `find`."""
        return self.size(self.find(name))

    def size(self, name: str, stated: Sequence[object] = ()) -> tuple[int, int]:
        """Size (height, width) in pixels: the stated one where it is one, else that of the image.

        Raises:
            DataError: nothing is stated and the file cannot be read.
        """
        sides = [whole_side(value) for value in stated]
        if len(sides) == 2 and sides[0] and sides[1]:
            return sides[0], sides[1]
        (height, width), orientation = read_frame(self.images_dir / name)
        self.turned += 2 <= orientation <= 8
        return (width, height) if orientation in QUARTER_TURNS and not self._stored else (height, width)


OpenPhotos = Callable[[Path], Photos]


def read_splits(
    layout: Layout, open_photos: OpenPhotos, read: Callable[[Place, Photos, Faults], list[LabelledImage]]
) -> dict[str, Labelled]:
    """All splits of a layout, whose faults are said at once.

    Args:
        layout: on the disk.
        open_photos: makes `Photos` of a folder.
        read: gives the images of a place; it notes what is wrong with single ones.

    Raises:
        DataError: lists what is wrong with the files.
    """
    faults = Faults(next(iter(layout.splits.values())).annotations)
    splits = {
        split: Labelled(read(place, open_photos(place.images_dir), faults), place.images_dir)
        for split, place in layout.splits.items()
    }
    faults.refuse()
    return splits


def whole_side(value: object) -> int:
    """A number of pixels above 0, also where it is written as a text or a float; 0 for anything else."""
    number = finite(value)
    return int(number) if number is not None and 0 < number < 2**31 and number == int(number) else 0


def finite(value: object) -> float | None:
    """A finite number that a float can hold and a file can mean; also one that is written as a text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) and abs(number) < 1e9 else None


def class_name(value: object) -> str:
    """A class's name, stripped. Raises DataError where it is none."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip() or "\0" in text or has_half_characters(text):
        raise DataError(f"expected the name of a class, found {value!r:.80}")
    return text.strip()


def corners_box(corners_xyxy_px: Sequence[object]) -> list[float]:
    """The box xywh of left, top, right and bottom. Raises DataError where they are no box."""
    values = [finite(value) for value in corners_xyxy_px]
    if len(values) != 4 or any(value is None for value in values):
        raise DataError(
            f"expected left, top, right and bottom, four finite numbers, found {list(corners_xyxy_px)!r:.80}"
        )
    left, top, right, bottom = (value for value in values if value is not None)
    if right < left or bottom < top:
        raise DataError(
            f"expected left <= right and top <= bottom, found {left:g} {top:g} {right:g} {bottom:g}; if the last two "
            "are width and height, name the columns so"
        )
    return [left, top, right - left, bottom - top]


def outline_box(points: Sequence[float]) -> list[float]:
    """The box xywh of an outline `[x, y, x, y, …]`."""
    xs, ys = points[0::2], points[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def build_cocos(splits: dict[str, Labelled], names: Sequence[str] | None = None) -> dict[str, dict]:
    """COCO dicts of the splits, with the same categories; all ids start at 1.

    Args:
        splits: by name.
        names: of the classes in their order; by default those of all objects, sorted.
    """
    if names is None:
        names = sorted({thing.name for split in splits.values() for image in split.images for thing in image.objects})
    ids = {name: index for index, name in reversed(list(enumerate(names, start=1)))}
    categories = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    return {
        key: {**_entries(split.images, ids), "categories": [dict(category) for category in categories]}
        for key, split in splits.items()
    }


def _entries(labelled: Sequence[LabelledImage], ids: dict[str, int]) -> dict[str, list]:
    images: list[dict] = []
    annotations: list[dict] = []
    for number, image in enumerate(labelled, start=1):
        height, width = image.size
        images.append({"id": number, "file_name": image.file_name, "height": height, "width": width})
        for thing in image.objects:
            entry = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": ids[thing.name],
                "bbox": thing.box_xywh_px,
                "area": thing.box_xywh_px[2] * thing.box_xywh_px[3],
                "iscrowd": int(thing.crowd),
            }
            if thing.polygons:
                entry |= {"segmentation": thing.polygons, "area": sum(map(polygon_area, thing.polygons))}
            annotations.append(entry)
    return {"images": images, "annotations": annotations}
