"""A data set with twenty planted problems, one of each kind."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.fixtures import draw_split

PLANTED = {
    *("missing-image", "unreadable-image", "image-size", "exif-rotation", "path-outside", "missing-field", "field"),
    *("unknown-image", "unknown-category", "duplicate-annotation-id", "duplicate-file-name", "box-empty"),
    *("box-outside", "box-overhang", "box-twice", "box-long", "category-alike", "area", "near-duplicate", "same-photo"),
}
"""Kinds of the twenty."""


def write_planted(root: Path, planted: bool = True) -> Path:
    """Writes training and validation images of two classes, with the problems or without; returns `root`."""
    cocos = {}
    for split, seed, count in (("train", 1, 24), ("val", 2, 6)):
        cocos[split] = draw_split(root / f"{split}2017", [(96, 128)] * count, seed=seed, objects=[4] * count)
    if planted:
        _plant(root, cocos["train"], cocos["val"])
    (root / "annotations").mkdir()
    for split, coco in cocos.items():
        (root / "annotations" / f"custom_{split}.json").write_text(json.dumps(coco))
    return root


def _plant(root: Path, train: dict[str, Any], val: dict[str, Any]) -> None:
    images, objects, folder = train["images"], train["annotations"], root / "train2017"
    by_image = {image["id"]: [entry for entry in objects if entry["image_id"] == image["id"]] for image in images}

    def first(image: int) -> dict[str, Any]:
        """The first object of an image, by the place of that one."""
        return by_image[images[image]["id"]][0]

    (folder / images[0]["file_name"]).unlink()
    (folder / images[1]["file_name"]).write_bytes(b"not an image")
    images[2]["width"], images[2]["height"] = 256, 192
    for entry in by_image[images[2]["id"]]:
        _set_box(entry, [2 * side for side in entry["bbox"]])
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(folder / images[3]["file_name"]) as photo:
        photo.copy().save(folder / images[3]["file_name"], exif=exif, quality=95)
    images.append({**images[0], "id": 900, "file_name": "../elsewhere.jpg"})
    objects += [{"id": 901, "image_id": images[4]["id"], "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}]
    first(5)["category_id"] = "3"
    objects.append({**_plain(), "id": 902, "image_id": 7777})
    objects.append({**_plain(), "id": 903, "image_id": images[4]["id"], "category_id": 99})
    again = {"id": first(6)["id"], "image_id": images[7]["id"]}
    objects.append({**_plain(), **again, "bbox": [1, 1, 13, 9], "area": 117})
    images.append({**images[8], "id": 904})
    objects.append({**_plain(), "id": 905, "image_id": 904, "bbox": [2, 3, 12, 10], "area": 120})
    _set_box(first(9), [10, 10, 0, 20])
    _set_box(first(10), [300, 10, 20, 20])
    _set_box(first(11), [100, 40, 60, 30])
    twin = first(12)
    objects.append({**twin, "id": 906})
    _set_box(first(13), [2, 20, 110, 4])
    train["categories"].append({"id": 9, "name": "Mug "})
    for image in range(14, 20):
        for entry in by_image[images[image]["id"]]:
            entry["category_id"] = 9 if entry["category_id"] == 3 else entry["category_id"]
    val["categories"].append({"id": 9, "name": "Mug "})
    val["annotations"][0]["category_id"] = 9
    first(20)["area"] = 5 * first(20)["area"]
    with Image.open(root / "val2017" / val["images"][0]["file_name"]) as photo:
        photo.resize((160, 120)).save(folder / "near.jpg", quality=80)
    (folder / "same.jpg").write_bytes((root / "val2017" / val["images"][1]["file_name"]).read_bytes())
    for id_, name, size in ((910, "near.jpg", (120, 160)), (911, "same.jpg", (96, 128))):
        images.append({"id": id_, "file_name": name, "height": size[0], "width": size[1]})
        objects.append({**_plain(), "id": id_, "image_id": id_, "bbox": [3, 3, 20, 20], "area": 400})


def _plain() -> dict[str, Any]:
    return {"category_id": 7, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0}


def _set_box(entry: dict[str, Any], box: list[float]) -> None:
    entry["bbox"], entry["area"] = box, box[2] * box[3]
    entry.pop("segmentation", None)
