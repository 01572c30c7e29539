"""Pascal VOC: an XML file for each image, and `ImageSets/Main` with the images of each split.

Boxes are taken as they are written, left, top, right and bottom edges in pixels. Where the file names one of VOC's own
databases, pixels count from 1 and the last one is in the box, as VOC's devkit has it.
"""

import re
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from hf_detr_ft.data.formats.annotation_text import decode_text, lines_of, load_text
from hf_detr_ft.data.formats.labelled import (
    Faults,
    LabelledImage,
    LabelledObject,
    OpenPhotos,
    Photos,
    Reading,
    class_name,
    corners_box,
    finite,
    read_splits,
)
from hf_detr_ft.data.formats.layout import Layout, Place, Tree, read_head, split_of
from hf_detr_ft.errors import DataError
from hf_detr_ft.plain_files import read_file

MOST_BYTES = 1 << 24
"""Largest XML file of one image."""
LISTS = re.compile(r"(?:^|.*/)ImageSets/Main/(train|val|test|trainval)\.txt$")


def find_voc(tree: Tree) -> Layout | None:
    """The splits of a folder with XML files of annotations; lists in `ImageSets/Main` go before names of folders."""
    files = tree.named(".xml")
    first = next((name for name in files[:20] if "<annotation" in decode_text(read_head(tree.root / name))), None)
    if first is None:
        return None
    lists = {match[1]: tree.root / name for name in tree.files if (match := LISTS.match(name))}
    if "train" not in lists and "trainval" in lists:
        lists["train"] = lists["trainval"]
    lists.pop("trainval", None)
    if lists:
        images = tree.images_folder(first, None, [])
        folder = (tree.root / first).parent
        return Layout("voc", {split: Place(file, images) for split, file in lists.items()}, "ImageSets/Main", folder)
    folders = sorted({str(PurePosixPath(name).parent) for name in files})
    by_split = {split: folder for folder in folders if (split := split_of(folder))} or {"train": folders[0]}
    splits = {
        split: Place(tree.root / folder, tree.images_folder(folder, split, [])) for split, folder in by_split.items()
    }
    return Layout("voc", splits, f"{first} is an annotation of Pascal VOC")


def read_voc(layout: Layout, open_photos: OpenPhotos = Photos) -> Reading:
    """The splits.

    Raises:
        DataError: lists what is wrong with the files.
    """

    def read(place: Place, photos: Photos, faults: Faults) -> list[LabelledImage]:
        images = []
        for file in _files(layout, place):
            with faults.at(file):
                images.append(_read_image(parse_xml(file), file, photos, faults))
        return images

    return read_splits(layout, open_photos, read), None


def _files(layout: Layout, place: Place) -> list[Path]:
    """XML files of a split, of its list or of its folder."""
    if layout.classes is None:
        return sorted(path for path in place.annotations.rglob("*.xml") if not path.name.startswith("."))
    names = [line.split()[0] for _, line in lines_of(load_text(place.annotations))]
    wrong = [name for name in names if PurePosixPath(name).name != name or "\\" in name or "\0" in name]
    if wrong:
        raise DataError(f"{place.annotations}: expected names of images without a folder, found {wrong[0]!r}")
    return [layout.classes / f"{name.removesuffix('.xml')}.xml" for name in names]


def parse_xml(path: Path) -> Element:
    """The root of an XML file.

    Raises:
        DataError: it cannot be read, is no XML, or defines entities, which can make gigabytes of a few lines.
    """
    try:
        root: Element = fromstring(read_file(path, MOST_BYTES), forbid_dtd=True)
    except FileNotFoundError:
        raise DataError("expected an XML file of this name, found none") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    except DefusedXmlException as error:
        raise DataError("it has a document type or entities, which no annotation needs; remove them") from error
    except (ParseError, LookupError, ValueError) as error:
        raise DataError(f"no XML: {error}") from error
    return root


def _read_image(root: Element, file: Path, photos: Photos, faults: Faults) -> LabelledImage:
    if root.tag != "annotation":
        raise DataError(f"expected <annotation>, found <{root.tag[:40]}>")
    stated = (root.findtext("filename") or "").strip()
    try:
        name = photos.find(stated)
    except DataError:
        try:
            name = photos.find(file.stem)  # exporters rename images, and forget it here
        except DataError:
            name = photos.find(stated or file.stem)
    size = photos.size(name, (root.findtext("size/height"), root.findtext("size/width")))
    from_one = "voc" in (root.findtext("source/database") or "").lower()
    objects = []
    for number, thing in enumerate(root.findall("object"), start=1):
        with faults.at(f"{file}, object {number}"):
            objects.append(_read_object(thing, from_one))
    return LabelledImage(name, size, objects)


def _read_object(thing: Element, from_one: bool) -> LabelledObject:
    label = class_name((thing.findtext("name") or "").strip())
    if thing.find("bndbox") is None:
        raise DataError(f"{label!r} has no <bndbox>; expected <xmin>, <ymin>, <xmax> and <ymax> in one")
    edges = [finite(thing.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
    if from_one:
        edges = [edge if edge is None or place > 1 else edge - 1 for place, edge in enumerate(edges)]
    return LabelledObject(label, corners_box(edges), _outline(thing))


def _outline(thing: Element) -> list[list[float]] | None:
    """The outline that some tools write beside the box: `<x1>`, `<y1>`, `<x2>`, …, or `<pt><x>`, `<y>`."""
    polygon = thing.find("polygon")
    if polygon is None:
        return None
    points = {child.tag: finite(child.text) for child in polygon}
    pairs = [(points.get(f"x{index}"), points.get(f"y{index}")) for index in range(1, len(points) // 2 + 1)]
    pairs = pairs or [(finite(point.findtext("x")), finite(point.findtext("y"))) for point in polygon.findall("pt")]
    outline = [value for pair in pairs for value in pair if value is not None]
    return [outline] if len(outline) == 2 * len(pairs) >= 6 else None
