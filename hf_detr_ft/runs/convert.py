"""Data sets of every format that can be read to COCO, YOLO or Pascal VOC (`hf-detr-ft convert [FORMAT] SRC DST`)."""

from pathlib import Path
from typing import Any

from hf_detr_ft.atomic import is_free, write_folder
from hf_detr_ft.data.find_data import find_data
from hf_detr_ft.data.formats.coco_json import (
    describe,
    image_size_reader,
    load_categories,
    load_json,
    write_coco,
)
from hf_detr_ft.data.formats.find_format import READERS
from hf_detr_ft.data.formats.via import VIA_FILE_NAME, convert_via
from hf_detr_ft.data.formats.write_data import WRITERS
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.formatting import pluralize, printable
from hf_detr_ft.importing import large_imports
from hf_detr_ft.recipe.sections import DataConfig

FORMATS = ("coco", *READERS)


def convert(
    format: Any,
    source: Path,
    destination: Path,
    images: Path | None = None,
    class_attribute: str | None = None,
    class_name: str | None = None,
    overwrite: bool = False,
    categories_from: Path | None = None,
    to: str = "coco",
    file_names: Any = "exact",
    exif: Any = "upright",
) -> int:
    """Writes a folder with all splits and their images, or one COCO JSON, and prints what is in it.

    Args:
        format: of the source; found out where it is None.
        source: a folder or a file of annotations; for one COCO JSON a VIA JSON, or a folder with one.
        destination: the folder to make; or, where its name ends in `.json`, the COCO JSON of a VIA JSON.
        images: folder of the images of a VIA JSON; by default that of the annotations.
        class_attribute: region attribute of VIA that holds the class; without it all objects are of one class.
        class_name: name of that one class (default: "object").
        overwrite: whether a COCO JSON may be replaced.
        categories_from: a COCO JSON whose categories to keep to, so that training and validation have the same ids.
        to: "coco", "yolo" or "voc", for a folder.
        file_names: "similar" to find images whose names are written in another way.
        exif: "stored" where boxes were drawn on photos that EXIF had not turned.

    Returns:
        The exit status.

    Raises:
        RecipeError: the arguments contradict each other.
        DataError: something cannot be read, converted or written.
    """
    if format is None and str(source) in FORMATS and not source.exists():
        raise RecipeError("convert: the following arguments are required: destination")
    if format is not None and format not in FORMATS:
        raise RecipeError(f"convert: unknown format {format!r}; expected one of: {', '.join(FORMATS)}")
    if class_attribute is not None and class_name is not None:
        raise RecipeError(
            f"convert: class attribute {class_attribute!r} and class name {class_name!r} exclude each other; give one"
        )
    if destination.suffix.lower() != ".json":
        if images or class_attribute or class_name or categories_from or overwrite:
            refuse_existing(destination, source, overwrite)
            raise RecipeError(
                "convert: --images, --class-attribute, --class-name, --categories-from and --overwrite belong to a "
                f"destination that ends in .json, found {str(destination)!r}"
            )
        config = DataConfig(root=str(source), format=format, file_names=file_names, exif=exif)
        return convert_folder(config, destination, to)
    if format not in (None, "via") or to != "coco":
        raise RecipeError(f"convert: a JSON alone is made of VIA's alone, found {format} to {to}; name a new folder")
    return convert_via_file(source, destination, images, class_attribute, class_name, overwrite, categories_from)


def convert_folder(config: DataConfig, destination: Path, to: str) -> int:
    """Writes a new folder with all splits; see `convert`."""
    if not is_free(destination):
        raise DataError(f"{destination}: is there already; give a new or empty folder")
    layout = find_data(config)
    with large_imports():
        from hf_detr_ft.data.whole_splits import load_whole_splits
    print(f"found {layout.format}: {layout.reason}")
    data = load_whole_splits(config, layout)
    with write_folder(destination) as folder:
        WRITERS[to](data.splits, folder)
    print(*data.notes, sep="\n", end="\n" if data.notes else "")
    crowds = data.count_crowds()
    if crowds and to != "coco":
        print(f"left out: {pluralize(crowds, 'crowd region')}, for which {to} has no form")
    for split, whole in data.splits.items():
        print(f"{destination} {split}: {describe(whole.coco)}")
    return 0


def convert_via_file(
    source: Path,
    destination: Path,
    images: Path | None,
    class_attribute: str | None,
    class_name: str | None,
    overwrite: bool,
    categories_from: Path | None,
) -> int:
    """Writes one COCO JSON of one VIA JSON; see `convert`."""
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
        names = ", ".join(map(printable, ignored))
        print(f"All regions are of one class. Their attributes were ignored: {names}; name one to use it.")
    return 0


def refuse_existing(destination: Path, source: Path, overwrite: bool) -> None:
    """Raises DataError where `destination` is not to be written."""
    if destination.is_dir():
        raise DataError(f"{destination}: is a folder; expected the name of the COCO JSON to write")
    if destination.exists() and source.exists() and destination.samefile(source):
        raise DataError(f"{destination}: is the source itself; give the COCO JSON another name")
    if destination.exists() and not overwrite:
        raise DataError(f"{destination}: exists already; give another name, or allow overwriting")


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
