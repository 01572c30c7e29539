"""Annotations of another format to a COCO JSON (`hf-detr-ft convert FORMAT SRC DST`)."""

from pathlib import Path

from hf_detr_ft.data.formats.coco_json import describe, image_size_reader, load_categories, load_json, write_coco
from hf_detr_ft.data.formats.via import VIA_FILE_NAME, convert_via
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.formatting import printable

FORMATS = ("via",)


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
        images: folder of the images, whose sizes are read; by default the folder of the VIA JSON.
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
