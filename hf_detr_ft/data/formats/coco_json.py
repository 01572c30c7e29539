"""COCO JSON files that conversions write, and what they read on the way."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hf_detr_ft.atomic import write_json
from hf_detr_ft.data.coco import leaves_folder
from hf_detr_ft.data.formats.annotation_text import load_text
from hf_detr_ft.data.images import upright_size
from hf_detr_ft.data.segmentation_area import LARGE_AREA, MEDIUM_AREA
from hf_detr_ft.errors import DataError
from hf_detr_ft.formatting import printable
from hf_detr_ft.plain_files import largest_json, read_file


def load_json(path: Path) -> object:
    """The parsed file, whatever it holds. Raises DataError where it cannot be read or is not JSON."""
    try:
        content = read_file(path, largest_json())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected a JSON of annotations, or a folder with one") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_json(content, str(path))


def load_annotation_json(path: Path, most_bytes: int | None = None) -> Any:
    """Value of a JSON file in any encoding of labelling tools. Raises DataError, see `load_text` and `parse_json`."""
    return parse_json(load_text(path, most_bytes).encode("utf-8", errors="replace"), str(path))


def parse_json(content: bytes, source: str) -> object:
    """The parsed JSON, whatever it is. Raises DataError naming `source` where it is none."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise DataError(f"{source}: nested too deeply for a JSON of annotations") from None
    except ValueError as error:  # of the encoding, the syntax, or a number of thousands of digits
        raise DataError(f"{source}: not a JSON file in UTF-8: {error}") from error


def load_categories(path: Path) -> list[dict]:
    """The categories of a COCO JSON. Raises DataError where it has none, or some without a usable id or name."""
    coco = load_json(path)
    categories = coco.get("categories") if isinstance(coco, dict) else None
    usable = isinstance(categories, list) and all(
        isinstance(c, dict) and type(c.get("id")) is int and isinstance(c.get("name"), str) for c in categories
    )
    if (
        not categories
        or not usable
        or any(len({c[key] for c in categories}) < len(categories) for key in ("id", "name"))
    ):
        raise DataError(
            f"{path}: 'categories' must be a list of objects, each with an 'id' (integer) and a 'name' of its own"
        )
    return categories


def image_size_reader(folder: Path) -> Callable[[str], tuple[int, int]]:
    """A function from a file name in `folder` to (height, width) of the upright image; it raises DataError."""

    def image_size(file_name: str) -> tuple[int, int]:
        if leaves_folder(file_name):
            raise DataError(f"photo {file_name!r} must lie in {folder}; give the name it has there")
        return upright_size(folder / file_name)

    return image_size


def write_coco(path: Path, coco: dict) -> None:
    """Makes the folder and writes the file. Raises DataError where the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, coco, indent=None)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error


def describe(coco: dict) -> str:
    """Counts of a COCO dict in one line: images, objects, objects per class and per size."""
    names = {category["id"]: category["name"] for category in coco["categories"]}
    per_class = Counter(names[annotation["category_id"]] for annotation in coco["annotations"])
    areas = [annotation["area"] for annotation in coco["annotations"]]
    small, up_to_medium = sum(area < MEDIUM_AREA for area in areas), sum(area < LARGE_AREA for area in areas)
    classes = ", ".join(f"{printable(name)} {per_class[name]}" for name in names.values())
    sizes = f"{small} small, {up_to_medium - small} medium, {len(areas) - up_to_medium} large"
    return f"{len(coco['images'])} images, {len(areas)} objects ({classes}); {sizes}"
