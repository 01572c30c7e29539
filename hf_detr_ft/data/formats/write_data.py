"""Data sets written as COCO, YOLO or Pascal VOC folders, with copies of their images."""

import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from hf_detr_ft.atomic import write_json, write_text
from hf_detr_ft.errors import DataError
from hf_detr_ft.yaml12 import dump_yaml

XML_REFUSES = str.maketrans("", "", "".join(map(chr, [*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF])))
"""Signs that no XML can hold."""


class WholeSplit(NamedTuple):
    """One split to be written."""

    coco: dict[str, Any]
    """Content of a COCO JSON, checked, with its outlines."""
    photos: Mapping[str, Path]
    """Files of its images, by `file_name`."""


def write_coco_folder(splits: Mapping[str, WholeSplit], folder: Path) -> None:
    """Writes `annotations/{split}.json` and `{split}/…` with the images. Raises OSError where the disk refuses."""
    (folder / "annotations").mkdir()
    for split, (coco, photos) in splits.items():
        for image in coco["images"]:
            _copy(photos[image["file_name"]], folder / split / image["file_name"])
        write_json(folder / "annotations" / f"{split}.json", coco, indent=None)


def write_yolo_folder(splits: Mapping[str, WholeSplit], folder: Path) -> None:
    """Writes `data.yaml`, `images/{split}/…` and `labels/{split}/…`: boxes, and no crowd regions.

    Raises:
        OSError: the disk refuses.
    """
    categories = next(iter(splits.values())).coco["categories"]
    numbers = {category["id"]: number for number, category in enumerate(categories)}
    for split, (coco, photos) in splits.items():
        objects = objects_by_image(coco)
        for image, name in _own_names(coco):
            _copy(photos[image["file_name"]], folder / "images" / split / name)
            sides = image["width"], image["height"]
            lines = [_yolo_line(numbers[entry["category_id"]], entry["bbox"], *sides) for entry in objects[image["id"]]]
            labels = (folder / "labels" / split / name).with_suffix(".txt")
            labels.parent.mkdir(parents=True, exist_ok=True)
            write_text(labels, "".join(f"{line}\n" for line in lines))
    places = {split: f"images/{split}" for split in splits}
    names = {number: category["name"] for number, category in enumerate(categories)}
    write_text(folder / "data.yaml", dump_yaml({"path": ".", **places, "names": names}))


def _yolo_line(number: int, box_xywh_px: list[float], width: int, height: int) -> str:
    x, y, w, h = box_xywh_px
    values = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
    return f"{number} " + " ".join(f"{value:.12g}" for value in values)


def write_voc_folder(splits: Mapping[str, WholeSplit], folder: Path) -> None:
    """Writes `JPEGImages`, `Annotations` and `ImageSets/Main/{split}.txt`: boxes, and no crowd regions.

    Edges of boxes are written as they are, also between two pixels.

    Raises:
        OSError: the disk refuses.
    """
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    taken: set[str] = set()
    for split, (coco, photos) in splits.items():
        names, objects = {c["id"]: c["name"] for c in coco["categories"]}, objects_by_image(coco)
        stems = []
        for image, name in _own_names(coco):
            flat = PurePosixPath(name.replace("/", "_"))
            if flat.stem in taken:
                flat = flat.with_stem(f"{split}_{flat.stem}")
            taken.add(flat.stem)
            stems.append(flat.stem)
            _copy(photos[image["file_name"]], folder / "JPEGImages" / flat)
            root = _voc_annotation(str(flat), image, objects[image["id"]], names)
            ElementTree(root).write(folder / "Annotations" / f"{flat.stem}.xml", encoding="utf-8")
        write_text(folder / "ImageSets/Main" / f"{split}.txt", "".join(f"{stem}\n" for stem in stems))


def _voc_annotation(name: str, image: dict, objects: list[dict], names: dict[int, str]) -> Element:
    root = Element("annotation")
    SubElement(root, "filename").text = name.translate(XML_REFUSES)
    size = SubElement(root, "size")
    for key in ("width", "height"):
        SubElement(size, key).text = str(image[key])
    SubElement(size, "depth").text = "3"
    for entry in objects:
        thing = SubElement(root, "object")
        SubElement(thing, "name").text = names[entry["category_id"]].translate(XML_REFUSES)
        box = SubElement(thing, "bndbox")
        x, y, w, h = entry["bbox"]
        for key, value in (("xmin", x), ("ymin", y), ("xmax", x + w), ("ymax", y + h)):
            SubElement(box, key).text = f"{value:.12g}"
    indent(root)
    return root


WRITERS = {"coco": write_coco_folder, "yolo": write_yolo_folder, "voc": write_voc_folder}


def objects_by_image(coco: dict[str, Any], crowds: bool = False) -> defaultdict[int, list[dict]]:
    """Annotations of each image by its id, with or without crowd regions."""
    objects: defaultdict[int, list[dict]] = defaultdict(list)
    for entry in coco["annotations"]:
        if crowds or not entry.get("iscrowd"):
            objects[entry["image_id"]].append(entry)
    return objects


def _own_names(coco: dict[str, Any]) -> list[tuple[dict, str]]:
    """Images and names for them, of which no two differ in their suffix alone and none has a line break."""
    stems: set[str] = set()
    named = []
    for image in coco["images"]:
        name = PurePosixPath("".join(sign if sign.isprintable() else "_" for sign in image["file_name"]))
        if str(name.with_suffix("")) in stems:
            name = name.with_stem(f"{name.stem}_{name.suffix[1:]}")
        if str(name.with_suffix("")) in stems:
            name = name.with_stem(f"{name.stem}_{image['id']}")
        stems.add(str(name.with_suffix("")))
        named.append((image, str(name)))
    return named


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    if destination.exists():
        raise DataError(f"{destination.name}: two images have this name in one split; rename one")
    shutil.copyfile(source, destination)
