"""COCO detection JSON: reading it, its categories as labels, its areas, its image paths.

`read_coco` only makes sure that the file is COCO at all; what is wrong inside it, `check.py` finds.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from hf_detr_ft.data.segmentation_area import corrected_area, is_number
from hf_detr_ft.errors import DataError

EXPORT_REMEDY = "export it as COCO JSON from the tool that made it"
FETCH_REMEDY = "copy or download it again"


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


def read_coco(path: Path) -> dict[str, Any]:
    """Reads a COCO detection JSON.

    Returns:
        The file's object; `images`, `annotations` and `categories` are lists, their entries as they came.

    Raises:
        DataError: the file cannot be read, is no JSON, or is not COCO; the text says what it looks like instead.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: expected a COCO JSON, found no such file; check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected UTF-8 text, found {error.reason} at byte {error.start}; {EXPORT_REMEDY}"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: expected a COCO JSON, cannot read it: {error.strerror}; check the path") from None
    try:
        coco: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: expected JSON, {_describe_text(text, error)}") from None
    except (RecursionError, ValueError) as error:
        raise DataError(
            f"{path}: expected COCO JSON, found one that Python cannot hold ({error}); {EXPORT_REMEDY}"
        ) from None
    faults = structure_faults(coco)
    if faults:
        found, remedy = describe_json(coco, path)
        raise DataError(f"{path}: expected COCO JSON, found {found} ({'; '.join(faults)}); {remedy}")
    return coco


def _describe_text(text: str, error: json.JSONDecodeError) -> str:
    where = f"line {error.lineno}, column {error.colno}"
    first = text.lstrip().split("\n", 1)[0].strip()
    if not first:
        return f"found an empty file; {FETCH_REMEDY}"
    if first.startswith("version https://git-lfs"):
        return "found a Git LFS pointer; fetch the file itself with `git lfs pull`"
    if first.startswith("<"):
        return f"found XML or HTML (Pascal VOC, or a download that failed); {EXPORT_REMEDY}"
    if re.match(r"\d+(\s+-?[\d.]+(e-?\d+)?){4}(\s|$)", first):
        return f"found lines like {first[:60]!r}: a YOLO label file; {EXPORT_REMEDY}"
    if first.startswith("{") and error.msg == "Extra data":
        return f"found more after the first value ({where}), as in JSON Lines; {EXPORT_REMEDY}"
    # A cut inside a string, an escape, a number or `true` leaves at most its beginning behind the error's position.
    rest = text[error.pos :].rstrip()
    if error.msg != "Extra data" and (error.msg.startswith("Unterminated") or re.fullmatch(r"[\\\w.+-]*", rest)):
        return f"found a file that ends in the middle ({where}): it is truncated; {FETCH_REMEDY}"
    return f"found a mistake at {where} ({error.msg}); correct it there, or export the file again"


def structure_faults(coco: object) -> list[str]:
    """What keeps a parsed JSON from being a COCO detection file; the entries of its lists are not looked at."""
    if not isinstance(coco, dict):
        return [f"the top level is {_type_name(coco)}, not an object"]
    faults = []
    for key in ("images", "annotations", "categories"):
        if key not in coco:
            faults.append(f"no {key!r}")
        elif not isinstance(coco[key], list):
            faults.append(f"{key!r} is {_type_name(coco[key])}, not a list")
    return faults


def _type_name(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def describe_json(value: object, path: Path) -> tuple[str, str]:
    """What a JSON that is not COCO looks like, and the remedy."""
    if isinstance(value, list):
        return _describe_list(value)
    if not isinstance(value, dict):
        return "a single value", EXPORT_REMEDY
    regions = [entry for entry in value.values() if isinstance(entry, dict) and {"filename", "regions"} <= entry.keys()]
    if "_via_img_metadata" in value or regions:
        kind = "a VIA 2 project" if "_via_img_metadata" in value else "a VIA 1 or VIA 2 export"
        return kind, f"convert it with `hf-detr-ft convert via {path} {path.stem}_coco.json`"
    if "shapes" in value and "imagePath" in value:
        return "a labelme file (one image)", f"{EXPORT_REMEDY}, all images in one file"
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(value.get(key), list)]
    if len(missing) < 3:
        return "an incomplete COCO file", f"add {', '.join(map(repr, missing))}, each a list"
    keys = ", ".join(repr(key[:40]) for key in list(value)[:5])
    return f"an object with the keys {keys}" if keys else "an empty object", EXPORT_REMEDY


def _describe_list(value: Sequence[Any]) -> tuple[str, str]:
    keys: set[str] = set(value[0]) if value and isinstance(value[0], dict) else set()
    if {"image_id", "category_id", "score"} <= keys:
        return "a COCO results list (detections)", "give the annotations that the detections are to be compared with"
    if {"image_id", "bbox"} <= keys:
        return "a bare list of annotations", "put it under 'annotations', beside 'images' and 'categories'"
    if {"file_name"} <= keys:
        return "a bare list of images", "put it under 'images', beside 'annotations' and 'categories'"
    if {"image", "annotations"} <= keys:
        return "a CreateML file", EXPORT_REMEDY
    return "a bare list", EXPORT_REMEDY


def leaves_folder(file_name: str) -> bool:
    """True where a `file_name`, read as on Linux or on Windows, is absolute or climbs with `..`."""
    posix, windows = PurePosixPath(file_name), PureWindowsPath(file_name)
    return posix.is_absolute() or bool(windows.anchor) or ".." in windows.parts


def image_path(images_dir: Path, file_name: str) -> Path:
    """Where an image lies. Raises DataError where `file_name` leaves the image folder; the file may not exist."""
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
    annotations, written = [], 0
    for entry in coco["annotations"]:
        annotation = dict(entry) if isinstance(entry, dict) else entry
        annotations.append(annotation)
        if not isinstance(annotation, dict):
            continue
        area = corrected_area(annotation)
        box = annotation.get("bbox")
        if area is None and annotation.get("area") is None and isinstance(box, list) and len(box) == 4:
            area = float(box[2] * box[3]) if all(map(is_number, box)) else None
        if area is not None:
            annotation["area"] = area
            written += 1
    return {**coco, "annotations": annotations}, written
