"""COCO annotations as a `datasets.Dataset`, one row an image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, Sequence, Value

from hf_detr_ft.data.coco import LabelMap, image_path, with_polygon_areas
from hf_detr_ft.errors import RecipeError

FEATURES = Features(
    {
        "image": Image(decode=False),
        "image_id": Value("int64"),
        "file_name": Value("string"),
        "aspect_ratio": Value("float32"),
        "objects": {
            "bbox": Sequence(Sequence(Value("float32"), length=4)),
            "label": Sequence(Value("int64")),
            "area": Sequence(Value("float32")),
        },
        "crowd": Sequence(Sequence(Value("float32"), length=4)),
    }
)
"""Columns of `load_split`: `bbox` and `crowd`, the regions that do not count, are xywh in pixels of the upright image;
`aspect_ratio` is width over height."""
WINDOW = 64
"""Rows that are read at once where a column is too large to be read in one piece."""


def prepare_coco(coco: dict, limit: int | None) -> dict:
    """Reduces a COCO dict to what a run needs: the images up to the limit, right areas, and no outlines.

    The outlines are most of a file, and nothing but the areas is computed from them.

    Args:
        coco: a checked COCO dict; left as it is.
        limit: see `limit_coco`.
    """
    prepared, _ = with_polygon_areas(limit_coco(coco, limit))
    for annotation in prepared["annotations"]:
        annotation.pop("segmentation", None)
    return prepared


def limit_coco(coco: dict, limit: int | None) -> dict:
    """The COCO dict of the first `limit` images that have objects; all of it where the limit is None.

    Raises:
        RecipeError: the limit is below 1.
    """
    if limit is None:
        return coco
    if limit < 1:
        raise RecipeError(
            f"data.train_limit, data.val_limit: expected at least 1 image, found {limit}. Leave it out to use all."
        )
    with_objects = {annotation["image_id"] for annotation in coco["annotations"] if not annotation.get("iscrowd", 0)}
    images = [image for image in coco["images"] if image["id"] in with_objects][:limit]
    kept = {image["id"] for image in images}
    annotations = [annotation for annotation in coco["annotations"] if annotation["image_id"] in kept]
    return {**coco, "images": images, "annotations": annotations}


def load_split(coco: dict, images_dir: Path, label_map: LabelMap, white_level: int | None = None) -> Dataset:
    """Rows of one split: images as paths, those without objects too, and their boxes, crowd apart.

    Args:
        coco: a checked COCO dict.
        images_dir: the folder that `file_name` is relative to.
        label_map: from category ids to labels.
        white_level: of images of 16 bits, see `decode_rgb`; a column of that name where it is not None.

    Returns:
        A data set with the columns of `FEATURES`.
    """
    objects: dict[int, dict[str, list]] = {
        image["id"]: {"bbox": [], "label": [], "area": []} for image in coco["images"]
    }
    crowd: dict[int, list] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        box = [float(value) for value in annotation["bbox"]]  # Arrow refuses integers that fp32 has not exactly
        if annotation.get("iscrowd", 0):
            crowd[annotation["image_id"]].append(box)
            continue
        entry = objects[annotation["image_id"]]
        entry["bbox"].append(box)
        entry["label"].append(label_map.label(annotation["category_id"]))
        entry["area"].append(float(annotation.get("area", box[2] * box[3])))
    columns = {
        "image": [{"path": str(image_path(images_dir, image["file_name"])), "bytes": None} for image in coco["images"]],
        "image_id": [image["id"] for image in coco["images"]],
        "file_name": [image["file_name"] for image in coco["images"]],
        "aspect_ratio": [image["width"] / image["height"] for image in coco["images"]],
        "objects": list(objects.values()),
        "crowd": list(crowd.values()),
    }
    if white_level is None:
        return Dataset.from_dict(columns, features=FEATURES)
    columns["white_level"] = [white_level] * len(coco["images"])
    return Dataset.from_dict(columns, features=Features({**FEATURES, "white_level": Value("int32")}))


def read_column(dataset: Dataset, name: str) -> list:
    """A column without the data set's transform, which would decode every image for it."""
    return dataset.with_format(None)[name][:]


def iterate_column(dataset: Dataset, name: str) -> Iterator[Any]:
    """The values of `read_column`, never all of them at once."""
    column = dataset.with_format(None).select_columns(name)
    for start in range(0, len(column), WINDOW):
        yield from column[start : start + WINDOW][name]


def most_objects(dataset: Dataset) -> tuple[int, str]:
    """The largest number of objects on one image, and that image's file name."""
    counts = [len(row["label"]) for row in iterate_column(dataset, "objects")]
    if not counts:
        return 0, ""
    index = int(np.argmax(counts))
    return counts[index], read_column(dataset, "file_name")[index]
