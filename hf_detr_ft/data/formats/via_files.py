"""Files of the VGG Image Annotator in a folder: JSON or CSV, one for each split; `via.py` reads what they say."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_detr_ft.data.formats.coco_json import load_annotation_json, parse_json
from hf_detr_ft.data.formats.csv_table import load_head, load_table
from hf_detr_ft.data.formats.json_kinds import find_json_kinds
from hf_detr_ft.data.formats.labelled import Labelled, LabelledImage, LabelledObject, OpenPhotos, Photos, Reading
from hf_detr_ft.data.formats.layout import Layout, Place, Tree, group_by_split
from hf_detr_ft.data.formats.via import convert_via
from hf_detr_ft.errors import DataError

SHAPE, ATTRIBUTES = "region_shape_attributes", "region_attributes"
"""Columns of a CSV with a region's JSON."""
USUAL = ("class", "label", "name", "type", "category", "object")
"""Attributes that hold the class where regions have several."""


def find_via(tree: Tree) -> Layout | None:
    """The splits of a folder with exports or projects of VIA."""
    files = find_json_kinds(tree).get("via", [])
    files = files or [name for name in tree.named(".csv") if SHAPE in load_head(tree.root / name).heading]
    if not files:
        return None
    splits = {}
    for split, name in group_by_split(files, tree.root).items():
        entries = load_via(tree.root / name)
        samples = [str(entry.get("filename")) for entry in _entries(entries)[:5]]
        splits[split] = Place(tree.root / name, tree.images_folder(name, split, samples))
    return Layout("via", splits, f"{files[0]} is of the VGG Image Annotator")


def load_via(path: Path) -> Any:
    """A JSON of VIA as it is, or a CSV as VIA would have written it as JSON. Raises DataError where it is neither."""
    if path.suffix.lower() != ".csv":
        return load_annotation_json(path)
    table = load_table(path)
    needed = ("filename", SHAPE, ATTRIBUTES)
    if not set(needed) <= set(table.heading):
        raise DataError(f"{path}: expected the columns {', '.join(needed)}, found {', '.join(table.heading)}")
    name, shape, attributes = map(table.heading.index, needed)
    entries: dict[str, dict] = {}
    for number, cells in table.rows:
        place = f"{path}, line {number}"
        if len(cells) < len(table.heading):
            raise DataError(f"{place}: expected {len(table.heading)} cells, found {len(cells)}")
        entry = entries.setdefault(cells[name], {"filename": cells[name], "regions": []})
        drawn, said = (parse_json((cells[at] or "{}").encode(), place) for at in (shape, attributes))
        if drawn != {}:  # the row of an image without regions
            entry["regions"].append({"shape_attributes": drawn, "region_attributes": said})
    return entries


def read_via(layout: Layout, open_photos: OpenPhotos = Photos) -> Reading:
    """The splits; the class is the one attribute that all regions have, or "object" where they have none.

    Raises:
        DataError: lists what is wrong with a file, or it is not clear which attribute is the class.
    """
    vias = {split: load_via(place.annotations) for split, place in layout.splits.items()}
    attribute = choose_attribute(vias, next(iter(layout.splits.values())).annotations)
    splits, names, has_options = {}, dict[str, None](), False
    for split, place in layout.splits.items():
        photos, via = open_photos(place.images_dir), vias[split]
        coco = convert_via(via, photos.find_size, source=str(place.annotations), class_attribute=attribute)
        splits[split] = Labelled(_labelled(coco, photos), place.images_dir)
        names |= dict.fromkeys(category["name"] for category in coco["categories"])
        has_options |= isinstance(via, dict) and bool(via.get("_via_attributes"))
    return splits, list(names) if has_options else sorted(names)


def _labelled(coco: dict, photos: Photos) -> list[LabelledImage]:
    names = {category["id"]: category["name"] for category in coco["categories"]}
    images = {
        image["id"]: LabelledImage(photos.find(image["file_name"]), (image["height"], image["width"]), [])
        for image in coco["images"]
    }
    for entry in coco["annotations"]:
        thing = LabelledObject(names[entry["category_id"]], entry["bbox"], entry["segmentation"])
        images[entry["image_id"]].objects.append(thing)
    return list(images.values())


def choose_attribute(vias: Mapping[str, Any], source: Path) -> str | None:
    """The region attribute that holds the class; None where regions have none.

    Raises:
        DataError: there are several, and none has a usual name.
    """
    attributes = [region for via in vias.values() for entry in _entries(via) for region in _attributes(entry)]
    counts = Counter(key for named in attributes for key, value in named.items() if value)
    everywhere = [key for key, count in counts.items() if count == max(counts.values())]
    chosen = [key for key in USUAL for name in counts if name.lower() == key for key in (name,)] or everywhere
    if len(everywhere) > 1 and chosen == everywhere:
        raise DataError(
            f"{source}: expected one region attribute with the class, found {', '.join(sorted(counts))}; say which: "
            f"hf-detr-ft convert {source} annotations.json --class-attribute NAME"
        )
    return chosen[0] if chosen else None


def _attributes(entry: dict) -> list[dict]:
    """Attributes of an entry's regions, as far as they have some."""
    regions = entry.get("regions")
    values = regions.values() if isinstance(regions, dict) else regions if isinstance(regions, list) else ()
    named = [region.get(ATTRIBUTES) for region in values if isinstance(region, dict)]
    return [attributes for attributes in named if isinstance(attributes, dict)]


def _entries(via: Any) -> list[dict]:
    """Entries of images, as far as there are any; `convert_via` says what is wrong with the rest."""
    entries = via.get("_via_img_metadata", via) if isinstance(via, dict) else {}
    values = entries.values() if isinstance(entries, dict) else ()
    return [entry for entry in values if isinstance(entry, dict)]
