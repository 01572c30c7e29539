"""COCO detection JSON: reading it, its categories as labels, its areas, its image paths.

`read_coco` only makes sure that the file is COCO at all; what is wrong inside it, `checks/` finds.
"""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from hf_detr_ft.data.cache.outline_cache import KEPT_FROM, keep_measurements, load_measurements, measurements_file
from hf_detr_ft.data.formats.annotation_text import decode_text
from hf_detr_ft.data.formats.other_json import EXPORT_REMEDY, describe_json, describe_text, structure_faults
from hf_detr_ft.data.segmentation_area import CHUNK, Measured, is_number, measure_segmentations
from hf_detr_ft.errors import DataError
from hf_detr_ft.plain_files import largest_json, read_file

MISSING = "expected a COCO JSON, found no such file; check the path"


@dataclass(frozen=True)
class LabelMap:
    """Category ids of a data set (any whole numbers, 0 included) and the model's labels 0..N-1, in the ids' order.

    Attributes:
        category_ids: the data set's id of each label, ascending.
        names: the class name of each label.
    """

    category_ids: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def from_coco(cls, coco: dict[str, Any]) -> "LabelMap":
        """Reads `categories`.

        Raises:
            DataError: there are none, one lacks a whole number as id or a name, or two share an id.
        """
        names: dict[int, str] = {}
        categories = coco.get("categories")
        for index, category in enumerate(categories if isinstance(categories, list) else ()):
            id_, name = (category.get("id"), category.get("name")) if isinstance(category, dict) else (None, None)
            if type(id_) is not int or not isinstance(name, str):
                raise DataError(
                    f"categories[{index}]: expected a whole number 'id' and a text 'name', found {category!r}"
                )
            if id_ in names:
                raise DataError(f"categories[{index}]: id {id_} is also that of {names[id_]!r}; give each its own id")
            names[id_] = name
        if not names:
            raise DataError("categories: expected at least one, found none; add {'id': 1, 'name': ...} for each class")
        ids = tuple(sorted(names))
        return cls(ids, tuple(names[id_] for id_ in ids))

    @cached_property
    def _labels(self) -> dict[int, int]:
        return {category_id: label for label, category_id in enumerate(self.category_ids)}

    def label(self, category_id: int) -> int:
        """The model's label of a category id. Raises DataError where the data set has no such category."""
        if category_id not in self._labels:
            known = ", ".join(f"{id_} {name!r}" for id_, name in zip(self.category_ids, self.names, strict=True))
            raise DataError(f"category id {category_id!r} is unknown; the categories are {known}")
        return self._labels[category_id]

    def category_id(self, label: int) -> int:
        """The data set's category id of a model's label. Raises DataError where there is no such label."""
        if not 0 <= label < len(self):
            raise DataError(
                f"label {label} is unknown; the labels are 0 to {len(self) - 1}: {', '.join(map(repr, self.names))}"
            )
        return self.category_ids[label]

    @property
    def id2label(self) -> dict[int, str]:
        """Label to class name, as `PreTrainedConfig.id2label` wants it."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Class name to label; the lower label where two categories share a name."""
        return {name: label for label, name in reversed(list(enumerate(self.names)))}

    def __len__(self) -> int:
        return len(self.category_ids)


def read_coco(path: Path, outlines: bool = False) -> dict[str, Any]:
    """Reads a COCO detection JSON.

    Args:
        path: of the file.
        outlines: keep them as they came.

    Returns:
        The file's object; `images`, `annotations` and `categories` are lists, their entries as they came, but for
        outlines: they take most of a file, and ten times their text in memory, so `Measured` stands in their place
        where nobody asks for them.

    Raises:
        DataError: the file cannot be read, is no JSON, or is not COCO; the text says what it looks like instead.
    """
    try:
        content = read_file(path, largest_json())
    except FileNotFoundError:
        raise DataError(f"{path}: {MISSING}") from None
    except OSError as error:
        raise DataError(f"{path}: expected a COCO JSON, cannot read it: {error.strerror}; check the path") from None
    text = decode_text(content)
    kept = measurements_file(content) if len(content) >= KEPT_FROM and not outlines else None
    del content  # which may be half a gigabyte
    try:
        coco = _parse(text, outlines, kept)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: expected JSON, {describe_text(text, error)}") from None
    except (MemoryError, RecursionError, ValueError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error) or "it is too large"
        raise DataError(
            f"{path}: expected COCO JSON, found one that Python cannot hold ({reason}); {EXPORT_REMEDY}"
        ) from None
    faults = structure_faults(coco)
    if faults:
        found, remedy = describe_json(coco, path)
        raise DataError(f"{path}: expected COCO JSON, found {found} ({'; '.join(faults)}); {remedy}")
    return coco


@contextmanager
def without_collector() -> Iterator[None]:
    """Keeps Python's collector of cycles away while millions of objects are made that have none.

    It would go through all of them each time that their number has grown by a quarter: two thirds of the time that
    json takes for a file of COCO's size.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _parse(text: str, outlines: bool, kept: Path | None = None) -> Any:
    """Parses JSON, and measures the outlines in it as they come, some thousands at a time, unless they are to stay.

    Args:
        text: of the file.
        outlines: they are to stay.
        kept: where their measurements lie, or are to lie; None where they are not kept.
    """
    waiting: list[dict[str, Any]] = []
    known, found, usual = None if kept is None else load_measurements(kept), list[Measured](), Measured()

    def measure() -> None:
        for annotation, measured in zip(waiting, measure_segmentations(waiting), strict=True):
            annotation["segmentation"] = measured
            found.append(measured)
        waiting.clear()

    def notice(entry: dict[str, Any]) -> dict[str, Any]:
        if entry.get("segmentation") is not None:
            waiting.append(entry)
            if len(waiting) == CHUNK:
                measure()
        return entry

    def recall(entry: dict[str, Any]) -> dict[str, Any]:
        if known is not None and entry.get("segmentation") is not None:
            entry["segmentation"] = known.get(next(places), usual)
        return entry

    places = count()
    with without_collector():
        value = json.loads(text, object_hook=None if outlines else notice if known is None else recall)
        measure()
    if kept is not None and known is None:
        keep_measurements(kept, found)
    return value


def leaves_folder(file_name: str) -> bool:
    """True where a `file_name`, read as on Linux or on Windows, is absolute or climbs with `..`."""
    if ".." not in file_name and ":" not in file_name and not file_name.startswith(("/", "\\")):
        return False  # nearly every name; paths take a hundred times as long
    posix, windows = PurePosixPath(file_name), PureWindowsPath(file_name)
    return posix.is_absolute() or bool(windows.anchor) or ".." in windows.parts


def image_path(images_dir: Path, file_name: str) -> Path:
    """Path of an image. Raises DataError where `file_name` leaves the image folder; the file may not exist."""
    if leaves_folder(file_name):
        raise DataError(
            f"image {file_name!r}: expected a path inside {images_dir}, found one that leaves it; "
            "write file_name relative to the image folder, without '..'"
        )
    return images_dir / file_name


def with_polygon_areas(coco: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Writes right areas where they are missing or disagree with the segmentation (see `corrected_area`).

    Args:
        coco: as `read_coco` returns it; left as it is.

    Returns:
        A copy, and the number of areas that were written. A missing area without a segmentation becomes the box's.
    """
    annotations = [dict(entry) if isinstance(entry, dict) else entry for entry in coco["annotations"]]
    entries, written = [entry for entry in annotations if isinstance(entry, dict)], 0
    for annotation, measured in zip(entries, measure_segmentations(entries), strict=True):
        area, box = measured.right_area, annotation.get("bbox")
        if area is None and annotation.get("area") is None and isinstance(box, list) and len(box) == 4:
            area = float(box[2] * box[3]) if all(map(is_number, box)) else None
        if area is not None:
            annotation["area"] = area
            written += 1
    return {**coco, "annotations": annotations}, written
