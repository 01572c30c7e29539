"""`hf-detr-ft convert FORMAT SRC DST`: annotations of another format to a COCO JSON."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hf_detr_ft.atomic import write_json
from hf_detr_ft.data.coco import leaves_folder
from hf_detr_ft.data.formats.via import convert_via
from hf_detr_ft.data.images import upright_size
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.evaluation.coco_eval import LARGE_AREA, MEDIUM_AREA

FORMATS = ("via",)
VIA_FILE_NAME = "via_region_data.json"
"""What VIA 1 calls its export; looked for where the source is a folder."""


def convert(
    format: str,
    source: Path,
    destination: Path,
    images: Path | None = None,
    class_attribute: str | None = None,
    class_name: str | None = None,
    overwrite: bool = False,
    categories_from: Path | None = None,
) -> int:
    """Writes `destination`, a COCO JSON, and prints what is in it. Returns the exit status.

    Args:
        format: `via`.
        source: a VIA JSON, or a folder with `via_region_data.json`.
        destination: the COCO JSON to write.
        images: folder of the photos, whose sizes are read; by default the folder of the VIA JSON.
        class_attribute: region attribute that holds the class; without it all objects are of one class.
        class_name: name of that one class (default: "object").
        overwrite: whether `destination` may be replaced.
        categories_from: a COCO JSON whose categories to keep to, so that training and validation have the same ids.

    Raises:
        RecipeError: the arguments contradict each other.
        DataError: something cannot be read, converted or written.
    """
    if format not in FORMATS:
        raise RecipeError(f"convert: unknown format {format!r}; expected one of: {', '.join(FORMATS)}")
    if class_attribute is not None and class_name is not None:
        raise RecipeError(
            f"convert: class attribute {class_attribute!r} and class name {class_name!r} exclude each other; give one"
        )
    file = source / VIA_FILE_NAME if source.is_dir() else source
    refuse_existing(destination, file, overwrite)
    via = load_json(file)
    folder = file.parent if images is None else images
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the photos of {file}")
    categories = None if categories_from is None else load_categories(categories_from)
    coco = convert_via(
        via,
        image_size_reader(folder),
        source=str(file),
        class_attribute=class_attribute,
        class_name="object" if class_name is None else class_name,
        categories=categories,
    )
    write_coco(destination, coco)
    print(f"{destination}: {describe(coco)}")
    ignored = region_attributes(via) if class_attribute is None else []
    if ignored:
        print(f"All regions are of one class. Their attributes were ignored: {', '.join(ignored)}; name one to use it.")
    return 0


def refuse_existing(destination: Path, source: Path, overwrite: bool) -> None:
    """Raises DataError where `destination` is not to be written."""
    if destination.is_dir():
        raise DataError(f"{destination}: is a folder; expected the name of the COCO JSON to write")
    if destination.exists() and source.exists() and destination.samefile(source):
        raise DataError(f"{destination}: is the source itself; give the COCO JSON another name")
    if destination.exists() and not overwrite:
        raise DataError(f"{destination}: exists already; give another name, or allow overwriting")


def load_json(path: Path) -> object:
    """The parsed file, whatever it holds. Raises DataError where it cannot be read or is not JSON."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected a JSON of annotations, or a folder with one") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_json(content, str(path))


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
    """A function from a file name in `folder` to (height, width) of the upright photo; it raises DataError."""

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
    classes = ", ".join(f"{name} {per_class[name]}" for name in names.values())
    sizes = f"{small} small, {up_to_medium - small} medium, {len(areas) - up_to_medium} large"
    return f"{len(coco['images'])} images, {len(areas)} objects ({classes}); {sizes}"


def region_attributes(via: object) -> list[str]:
    """Names of the attributes of the regions of a VIA file that `convert_via` has accepted, sorted."""
    assert isinstance(via, dict), "convert_via accepts objects only"
    found: set[str] = set()
    for entry in via.get("_via_img_metadata", via).values():
        regions = entry["regions"]
        for region in regions.values() if isinstance(regions, dict) else regions:
            attributes = region.get("region_attributes")
            found.update(attributes if isinstance(attributes, dict) else ())
    return sorted(name for name in found if name.isprintable())
