"""Folders with COCO JSON files as tools export them: their splits, and what is mended in their entries."""

import re
from pathlib import Path
from typing import Any

from hf_detr_ft.data.coco import leaves_folder
from hf_detr_ft.data.formats.annotation_text import decode_text
from hf_detr_ft.data.formats.json_kinds import find_json_kinds
from hf_detr_ft.data.formats.labelled import whole_side
from hf_detr_ft.data.formats.layout import Layout, Place, Tree, group_by_split, read_head, split_of
from hf_detr_ft.data.images import upright_size
from hf_detr_ft.errors import DataError
from hf_detr_ft.formatting import pluralize

FILE_NAME = re.compile(r'"file_name"\s*:\s*"((?:[^"\\]|\\.)+)"')
OTHERS = ("captions", "panoptic", "stuff", "keypoints", "image_info")
"""Words in names of COCO's own files that are not of boxes alone."""


def find_coco(tree: Tree) -> Layout | None:
    """The splits of a folder with one COCO JSON, or with one for each split."""
    files = find_json_kinds(tree).get("coco", [])
    instances = [name for name in files if not any(word in Path(name).stem.lower() for word in OTHERS)]
    files = instances or files
    if not files:
        return None
    splits = {}
    for split, name in group_by_split(files, tree.root).items():
        samples = FILE_NAME.findall(decode_text(read_head(tree.root / name)))[:5]
        splits[split] = Place(tree.root / name, tree.images_folder(name, split_of(name), samples))
    found = ", ".join(str(place.annotations.relative_to(tree.root)) for place in splits.values())
    return Layout("coco", splits, found)


def mend_coco(coco: dict[str, Any], images_dir: Path) -> tuple[dict[str, Any], list[str]]:
    """Mends what exporters are known to write, where it is clear what is right.

    - A width or height that is missing, 0 or -1 is read from the image.
    - Roboflow's class 0, the name of the project above all classes, goes where no object is of it.

    Args:
        coco: as `read_coco` returns it; left as it is.
        images_dir: the folder that `file_name` is relative to.

    Returns:
        The COCO dict, and what was mended, a line each.
    """
    said = []
    images, measured = [], 0
    for image in coco["images"]:
        if isinstance(image, dict) and not (_is_side(image.get("width")) and _is_side(image.get("height"))):
            size = _read_size(image, images_dir)
            measured += size is not None
            image = image if size is None else {**image, "height": size[0], "width": size[1]}
        images.append(image)
    if measured:
        said.append(f"width and height of {pluralize(measured, 'image')} were read from the files: none was written")
    categories = coco["categories"]
    root = _empty_root(coco)
    if root is not None:
        categories = [category for category in categories if category is not root]
        said.append(f"class 0 ({root['name']!r}), which only stands above all others and has no objects, is left out")
    return {**coco, "images": images, "categories": categories}, said


def _is_side(value: object) -> bool:
    return type(value) is int and value > 0


def _read_size(image: dict[str, Any], images_dir: Path) -> tuple[int, int] | None:
    """Size (height, width) of an entry's image; None where something else is written, or no image can be read."""
    known = [image.get(key) for key in ("height", "width")]
    if any(value not in (None, 0, -1, "", "0", "-1") and not whole_side(value) for value in known):
        return None
    if all(map(whole_side, known)):  # "480" or 480.0
        return whole_side(known[0]), whole_side(known[1])
    name = image.get("file_name")
    if not isinstance(name, str) or not name or leaves_folder(name) or "\0" in name:
        return None
    try:
        return upright_size(images_dir / name)
    except DataError:  # the check of the images says it
        return None


def _empty_root(coco: dict[str, Any]) -> dict[str, Any] | None:
    """Roboflow's class 0, where no annotation is of it."""
    categories = [category for category in coco["categories"] if isinstance(category, dict)]
    root = next((category for category in categories if category.get("id") == 0), None)
    if root is None or root.get("supercategory") != "none" or len(categories) < 2:
        return None
    if any(category.get("supercategory") != root.get("name") for category in categories if category is not root):
        return None
    used = any(isinstance(entry, dict) and entry.get("category_id") == 0 for entry in coco["annotations"])
    return None if used or not isinstance(root.get("name"), str) else root
