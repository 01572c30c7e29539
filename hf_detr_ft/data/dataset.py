"""COCO annotations as a `datasets.Dataset`, one row an image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Image, Sequence, Value

from hf_detr_ft.data.coco import LabelMap, image_path, with_polygon_areas
from hf_detr_ft.data.masks import encode_segmentation
from hf_detr_ft.data.segmentation_area import is_outline
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.recipe.sections import MaskUse

FEATURES = Features(
    {
        "image": Image(decode=False),
        "image_id": Value("int64"),
        "file_name": Value("string"),
        "aspect_ratio": Value("float32"),
        "original_size": Sequence(Value("int32"), length=2),
        "objects": {
            "bbox": Sequence(Sequence(Value("float32"), length=4)),
            "label": Sequence(Value("int64")),
            "area": Sequence(Value("float32")),
        },
        "crowd": Sequence(Sequence(Value("float32"), length=4)),
    }
)
"""Columns of `load_split`: `bbox` and `crowd`, the regions that do not count, are xywh in pixels of the upright image;
`original_size` is its (height, width), `aspect_ratio` its width over height."""
MASKS: dict[MaskUse, str] = {True: "mask", "some": "outline"}
"""Names of the field of `objects` with masks, each the `counts` of an RLE of `original_size`; see `prepare_coco`."""
WINDOW = 64
"""Rows that are read at once where a column is too large to be read in one piece."""


def prepare_coco(coco: dict, limit: int | None, masks: MaskUse = False) -> dict:
    """Reduces a COCO dict to what a run needs: the images up to the limit, right areas, and no outlines.

    The outlines are most of a file, and nothing but the areas is computed from them, unless masks are asked for.

    Args:
        coco: a checked COCO dict; left as it is.
        limit: see `limit_coco`.
        masks: turn outlines, with "some" the box of an object without one, into the RLE of `encode_segmentation`, a
            few bytes a line of pixels.
    """
    prepared, _ = with_polygon_areas(limit_coco(coco, limit))
    sizes = {image["id"]: (image["height"], image["width"]) for image in prepared["images"]} if masks else {}
    for annotation in prepared["annotations"]:
        outline = annotation.pop("segmentation", None)
        if masks:
            size = sizes[annotation["image_id"]]
            if masks == "some" and not is_outline(outline, *size):
                x, y, width, height = annotation["bbox"]
                outline = [[x, y, x + width, y, x + width, y + height, x, y + height]]
            annotation["segmentation"] = encode_segmentation(outline, *size)
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


def load_split(
    coco: dict, images_dir: Path, label_map: LabelMap, white_level: int | None = None, masks: MaskUse = False
) -> Dataset:
    """Rows of one split: images as paths, those without objects too, and their boxes, crowd apart.

    Args:
        coco: a checked COCO dict.
        images_dir: the folder that `file_name` is relative to.
        label_map: from category ids to labels.
        white_level: of images of 16 bits, see `decode_rgb`; a column of that name where it is not None.
        masks: the dict has the masks of `prepare_coco`, and the rows are to have them.

    Returns:
        A data set with the columns of `FEATURES`; with masks, `objects` has the field that `MASKS` says.
    """
    images = coco["images"]
    columns = {
        "image": [{"path": str(image_path(images_dir, image["file_name"])), "bytes": None} for image in images],
        "image_id": [image["id"] for image in images],
        "file_name": [image["file_name"] for image in images],
        "aspect_ratio": [image["width"] / image["height"] for image in images],
        "original_size": [(image["height"], image["width"]) for image in images],
        **_columns_of_annotations(coco, label_map, masks),
    }
    features = FEATURES
    if masks:
        features = Features({**features, "objects": {**features["objects"], MASKS[masks]: Sequence(Value("string"))}})
    if white_level is not None:
        columns["white_level"] = [white_level] * len(images)
        features = Features({**features, "white_level": Value("int32")})
    return Dataset(pa.Table.from_pydict(columns, schema=features.arrow_schema))


def _columns_of_annotations(coco: dict, label_map: LabelMap, masks: MaskUse) -> dict[str, pa.Array]:
    """The columns `objects` and `crowd`, made as columns: as dictionaries millions of objects would take gigabytes."""
    images, annotations = coco["images"], coco["annotations"]
    places = {image["id"]: place for place, image in enumerate(images)}
    owners = np.array([places[annotation["image_id"]] for annotation in annotations], dtype=np.int64)
    crowd = np.array([bool(annotation.get("iscrowd", 0)) for annotation in annotations], dtype=bool)
    boxes_xywh_px = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4)
    areas = boxes_xywh_px[:, 2:].prod(axis=1)
    for place, annotation in enumerate(annotations):
        areas[place] = annotation.get("area", areas[place])
    order = np.argsort(owners, kind="stable")
    objects, regions = order[~crowd[order]], order[crowd[order]]
    category_ids = [annotations[index]["category_id"] for index in objects]
    labels = {id_: label_map.label(id_) for id_ in dict.fromkeys(category_ids)}

    def by_image(chosen: np.ndarray, values: pa.Array) -> pa.Array:
        """A list for each image of the values of the annotations that are chosen."""
        ends = np.cumsum(np.bincount(owners[chosen], minlength=len(images)), dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(np.r_[np.int32(0), ends], type=pa.int32()), values)

    def boxes(chosen: np.ndarray) -> pa.Array:
        flat = pa.array(boxes_xywh_px[chosen].astype(np.float32).ravel())
        return by_image(chosen, pa.FixedSizeListArray.from_arrays(flat, 4))

    of_objects = {
        "bbox": boxes(objects),
        "label": by_image(objects, pa.array([labels[id_] for id_ in category_ids], pa.int64())),
        "area": by_image(objects, pa.array(areas[objects].astype(np.float32))),
    }
    if masks:
        counts = [annotations[index]["segmentation"]["counts"] for index in objects]
        of_objects[MASKS[masks]] = by_image(objects, pa.array(counts, pa.string()))
    return {
        "objects": pa.StructArray.from_arrays(list(of_objects.values()), names=list(of_objects)),
        "crowd": boxes(regions),
    }


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
    if not len(dataset):
        return 0, ""
    counts = count_objects(dataset)
    index = int(np.argmax(counts))
    return int(counts[index]), read_column(dataset.select([index]), "file_name")[0]


def count_objects(dataset: Dataset, *, of_one_class: bool = False) -> np.ndarray:
    """Objects of each image `[N]`, or those of the class that it has most of."""
    images, labels = read_labels(dataset)
    if not of_one_class:
        return np.bincount(images, minlength=len(dataset))
    pairs, of_pairs = np.unique(np.stack([images, labels]), axis=1, return_counts=True)
    most = np.zeros(len(dataset), dtype=np.int64)
    np.maximum.at(most, pairs[0], of_pairs)
    return most


def read_labels(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The image, by its position, and the label of every object, `[M]` each."""
    objects = dataset.with_format("arrow").select_columns("objects")[:]["objects"].combine_chunks()
    lists = objects.field("label")
    return pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists).to_numpy()
