"""Apple's CreateML: a JSON list of images, each with boxes by their centers in pixels."""

from pathlib import Path

from hf_detr_ft.data.formats.coco_json import load_annotation_json
from hf_detr_ft.data.formats.json_kinds import find_json_kinds
from hf_detr_ft.data.formats.labelled import (
    Faults,
    LabelledImage,
    LabelledObject,
    OpenPhotos,
    Photos,
    Reading,
    class_name,
    finite,
    read_splits,
)
from hf_detr_ft.data.formats.layout import Layout, Place, Tree, group_by_split
from hf_detr_ft.errors import DataError

IMAGE, OBJECTS = ("image", "imagefilename"), ("annotations", "annotation")
"""Keys of an entry, as CreateML and other tools write them."""


def find_createml(tree: Tree) -> Layout | None:
    """The splits of a folder with JSON lists of CreateML."""
    files = find_json_kinds(tree).get("createml", [])
    if not files:
        return None
    splits = {}
    for split, name in group_by_split(files, tree.root).items():
        samples = [str(_get(entry, IMAGE)) for entry in _load(tree.root / name)[:5]]
        splits[split] = Place(tree.root / name, tree.images_folder(name, split, samples))
    return Layout("createml", splits, f"{files[0]} is a list of CreateML")


def read_createml(layout: Layout, open_photos: OpenPhotos = Photos) -> Reading:
    """The splits.

    Raises:
        DataError: lists what is wrong with the files.
    """
    return read_splits(layout, open_photos, _read_place), None


def _read_place(place: Place, photos: Photos, faults: Faults) -> list[LabelledImage]:
    images = []
    for number, entry in enumerate(_load(place.annotations)):
        where = f"{place.annotations}, entry {number}"
        with faults.at(where):
            images.append(_read_image(entry, where, photos, faults))
    return images


def _load(path: Path) -> list:
    content = load_annotation_json(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a list of images, as CreateML writes it, found something else")
    return content


def _get(entry: object, keys: tuple[str, ...]) -> object:
    return next((entry[key] for key in keys if key in entry), None) if isinstance(entry, dict) else None


def _read_image(entry: object, where: str, photos: Photos, faults: Faults) -> LabelledImage:
    name, objects = _get(entry, IMAGE), _get(entry, OBJECTS)
    if not isinstance(name, str) or not isinstance(objects, list):
        raise DataError(f"expected an object with 'image' and a list 'annotations', found {entry!r:.80}")
    file_name = photos.find(name)
    image = LabelledImage(file_name, photos.size(file_name), [])
    for number, thing in enumerate(objects):
        with faults.at(f"{where} ({name!r}), annotation {number}"):
            image.objects.append(_read_object(thing))
    return image


def _read_object(thing: object) -> LabelledObject:
    coordinates = thing.get("coordinates") if isinstance(thing, dict) else None
    if not isinstance(thing, dict) or not isinstance(coordinates, dict):
        raise DataError(f"expected an object with 'label' and 'coordinates', found {thing!r:.80}")
    found = [finite(coordinates.get(key)) for key in ("x", "y", "width", "height")]
    values = [value for value in found if value is not None]
    if len(values) < 4 or values[2] < 0 or values[3] < 0:
        raise DataError(f"expected 'coordinates' to be x, y, width and height in pixels, found {coordinates!r:.80}")
    x, y, w, h = values
    return LabelledObject(class_name(thing.get("label")), [x - w / 2, y - h / 2, w, h])
