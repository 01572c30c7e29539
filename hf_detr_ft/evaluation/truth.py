"""Truth of a COCO dict and detections to score against it, as arrays that share positions of image and category."""

from dataclasses import dataclass, field

import numpy as np

from hf_detr_ft.data.masks import Masks, encode_segmentation
from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.detections import Detections, read_numbers
from hf_detr_ft.formatting import join_limited, pluralize


@dataclass(frozen=True, eq=False)
class IndexedBoxes:
    """Boxes whose image and category are positions in `Truth.image_ids` and `Truth.category_ids`."""

    image: np.ndarray
    category: np.ndarray
    boxes_xywh_px: np.ndarray
    area: np.ndarray
    masks: Masks | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class Truth(IndexedBoxes):
    """Objects and crowd regions of a COCO dict; ids ascending and `names` in the order of the category ids.

    Attributes:
        crowd: [M] bool, regions that any number of detections can take.
        ignored: [M] bool, crowd regions and objects that do not count, see `MatchedDetections.of_size`.
    """

    crowd: np.ndarray
    ignored: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    names: list[str]


@dataclass(frozen=True, eq=False)
class Predictions(IndexedBoxes):
    """Detections with their scores, in the order given."""

    score: np.ndarray


def read_truth(coco: dict, masks: bool = False) -> Truth:
    """Reads the truth of a COCO dict, without annotations of images or categories that it does not list.

    Args:
        coco: the annotations as read.
        masks: read the annotations' masks, too; each has to have one.

    Raises:
        DataError: no images or categories, ids, boxes or areas that are not numbers, boxes that cannot be.
    """
    for key in ("images", "categories"):
        if not coco.get(key):
            raise DataError(f"COCO truth has no {key}: evaluation needs at least one entry under {key!r}")
    image_ids = np.unique(read_numbers(coco["images"], "id", "images", ids=True))
    category_ids = np.unique(read_numbers(coco["categories"], "id", "categories", ids=True))
    names = {entry["id"]: str(entry.get("name", entry["id"])) for entry in coco["categories"]}
    annotations = coco.get("annotations") or []
    image_id = read_numbers(annotations, "image_id", "annotations", ids=True)
    category_id = read_numbers(annotations, "category_id", "annotations", ids=True)
    boxes = read_numbers(annotations, "bbox", "annotations", width=4)
    _check_boxes(boxes, "annotations", "run `hf-detr-ft check` on this data set")
    area = boxes[:, 2] * boxes[:, 3]
    given = [index for index, entry in enumerate(annotations) if entry.get("area") is not None]
    area[given] = read_numbers([annotations[index] for index in given], "area", "annotations")
    crowd = np.array([bool(entry.get("iscrowd")) for entry in annotations], dtype=bool)
    known = np.isin(image_id, image_ids) & np.isin(category_id, category_ids)
    return Truth(
        image=np.searchsorted(image_ids, image_id[known]),
        category=np.searchsorted(category_ids, category_id[known]),
        boxes_xywh_px=boxes[known],
        area=area[known],
        masks=_read_masks(coco, annotations).select(known) if masks else None,
        crowd=crowd[known],
        ignored=crowd[known],
        image_ids=image_ids,
        category_ids=category_ids,
        names=[names[category] for category in category_ids.tolist()],
    )


def has_masks(coco: dict) -> bool:
    """True where every annotation of a COCO dict has a mask."""
    return all(entry.get("segmentation") for entry in coco.get("annotations") or [])


def _read_masks(coco: dict, annotations: list[dict]) -> Masks:
    """Masks of the annotations.

    Raises:
        DataError: some have none.
    """
    missing = [index for index, entry in enumerate(annotations) if not entry.get("segmentation")]
    if missing:
        raise DataError(
            f"COCO annotations: expected a mask, 'segmentation' as polygons or RLE, in every entry; found none in "
            f"{join_limited(missing)} (counted from 0). Outline these objects, or evaluate boxes alone."
        )
    sizes = {image["id"]: (image.get("height", 0), image.get("width", 0)) for image in coco["images"]}
    nothing = (0, 0)
    return Masks.of(
        encode_segmentation(entry["segmentation"], *sizes.get(entry["image_id"], nothing)) for entry in annotations
    )


def index_detections(truth: Truth, detections: Detections) -> Predictions:
    """Detections with the truth's positions in place of the ids.

    Raises:
        DataError: ids that the truth does not list, boxes or scores that are not finite, negative widths or heights.
    """
    problems = []
    for what, ids, known in (
        ("image", detections.image_id, truth.image_ids),
        ("category", detections.category_id, truth.category_ids),
    ):
        unknown = np.setdiff1d(ids, known).tolist()
        if unknown:
            problems.append(
                f"{what} ids that the truth does not list: {join_limited(unknown)} (it has {join_limited(known)})"
            )
    if problems:
        remedy = "detections must carry the ids of this very data set, not labels or positions"
        raise DataError(f"Detections have {'; '.join(problems)}; {remedy}")
    _check_boxes(detections.boxes_xywh_px, "detections", "boxes must be x, y, width, height in pixels")
    bad = np.flatnonzero(~np.isfinite(detections.score)).tolist()
    if bad:
        raise DataError(
            f"Detections {join_limited(bad)} have scores that are not finite; the model's output holds a NaN"
        )
    return Predictions(
        image=np.searchsorted(truth.image_ids, detections.image_id),
        category=np.searchsorted(truth.category_ids, detections.category_id),
        boxes_xywh_px=detections.boxes_xywh_px,
        area=detections.boxes_xywh_px[:, 2] * detections.boxes_xywh_px[:, 3],
        masks=detections.masks,
        score=detections.score,
    )


def _check_boxes(boxes_xywh_px: np.ndarray, what: str, remedy: str) -> None:
    usable = np.isfinite(boxes_xywh_px).all(axis=1) & (boxes_xywh_px[:, 2:] >= 0).all(axis=1)
    bad = np.flatnonzero(~usable).tolist()
    if bad:
        raise DataError(
            f"COCO {what}: {pluralize(len(bad), 'box')} not finite or of negative width or height, entries "
            f"{join_limited(bad)} (counted from 0), the first is {boxes_xywh_px[bad[0]].tolist()}; {remedy}"
        )
