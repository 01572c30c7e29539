"""Detections against COCO truth: the 12 COCO numbers, AP and AR per class, objects per size, threshold of the best F1.

`evaluate_detections` is the entrance. Truth is the COCO dict as read, crowd and areas included, over exactly its
images. AP and AR come from faster-coco-eval or, as the reference, pycocotools; both get fresh entries with ids of ours
from 1 on, since both take a match with annotation id 0 for no match. Everything between is numpy arrays.
"""

import contextlib
import io
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

import numpy as np

from hf_detr_ft.data.masks import Masks
from hf_detr_ft.data.segmentation_area import LARGE_AREA, MEDIUM_AREA
from hf_detr_ft.evaluation.coco_result import MAX_DETECTIONS, ClassResult, CocoResult, metrics_beyond
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.matching import IOUS, MatchedDetections, match_detections
from hf_detr_ft.evaluation.threshold_curves import RECALLS, PrecisionRecall, best_f1
from hf_detr_ft.evaluation.truth import IndexedBoxes, Predictions, Truth, read_truth

Backend = Literal["faster-coco-eval", "pycocotools"]
"""`pycocotools` is the reference; `faster-coco-eval` gives the same numbers several times faster."""

COCO_LIMITS = (1, 10, MAX_DETECTIONS)
"""Best detections per image and class that COCO's AR is computed from; AP from the last."""
SIZE_NAMES = ("small", "medium", "large")
"""COCO's names of objects' sizes, see `size_of`."""
SIZE_LIMITS = dict(zip(SIZE_NAMES, pairwise((0.0, MEDIUM_AREA, LARGE_AREA, 1e10)), strict=True))
"""COCO's least and largest area of each size, in square pixels, both included."""


def evaluate_detections(
    coco: dict,
    detections: Detections,
    *,
    backend: Backend = "faster-coco-eval",
    max_detections: int = MAX_DETECTIONS,
) -> CocoResult:
    """Scores detections against the truth of a COCO dict, over exactly the images it lists.

    Images without detections count as such. Annotations of images or categories that the dict does not list are left
    out, as COCO does. `iscrowd` may be absent (0), `area` too (width x height); nothing but ids, names and boxes is
    needed, and the dict stays as it is.

    Args:
        coco: the annotations as read; `images`, `categories` and `annotations`.
        detections: ids are the data set's, boxes in pixels of the original upright image.
        backend: the library that computes AP and AR.
        max_detections: the best detections per image and class that count for the best F1. COCO's twelve numbers, and
            those of the classes, are of 100 always; of more than that, such as 500, the result has `map_at_500`,
            `map_50_at_500`, `map_75_at_500` and `mar_500` besides.

    Raises:
        DataError: detections of unknown images or categories, boxes or scores that are not finite, negative widths or
            heights, truth without images or categories.
    """
    if backend not in ("faster-coco-eval", "pycocotools"):
        raise ValueError(f"backend must be 'faster-coco-eval' or 'pycocotools', found {backend!r}")
    truth = read_truth(coco, masks=detections.masks is not None)
    return evaluate_matched(match_detections(truth, detections, max_detections), backend)


def evaluate_matched(matched: MatchedDetections, backend: Backend = "faster-coco-eval") -> CocoResult:
    """`evaluate_detections` of detections that are matched already."""
    return evaluate_with_curves(matched, backend)[0]


def evaluate_with_curves(
    matched: MatchedDetections, backend: Backend = "faster-coco-eval"
) -> tuple[CocoResult, PrecisionRecall]:
    """`evaluate_matched`, with the curves behind AP of `matched.max_detections`."""
    truth, predictions, counts = matched.truth, matched.predictions, matched.counts
    if matched.max_detections < MAX_DETECTIONS:
        raise ValueError(f"max_detections must be {MAX_DETECTIONS} or more, found {matched.max_detections!r}")
    limits = sorted({*COCO_LIMITS, matched.max_detections})
    precision, recall = _precision_and_recall(truth, predictions, backend, limits)
    objects = truth.area[~truth.crowd]
    result = CocoResult(
        metrics=_metrics(precision, recall) | _metrics_beyond(precision, recall, limits),
        mask_metrics=_mask_metrics(truth, predictions, backend),
        per_class=_per_class(truth, precision, recall),
        sizes=dict(zip(SIZE_NAMES, np.bincount(size_of(objects), minlength=len(SIZE_NAMES)).tolist(), strict=True)),
        best_f1=best_f1(matched.is_tp[counts], predictions.score[counts], len(objects)),
        images=len(truth.image_ids),
        objects=len(objects),
        detections=len(predictions.score),
    )
    curves = precision[:, :, :, 0, -1]
    per_class = np.array([row.objects for row in result.per_class])
    curves = np.where(curves < 0, np.nan, curves)
    return result, PrecisionRecall(curves, truth.names, per_class, IOUS, RECALLS, matched.max_detections)


def _mask_metrics(truth: Truth, predictions: Predictions, backend: Backend) -> dict[str, float]:
    """COCO's twelve numbers with the IoU of masks, which decides alone; none where there are no masks."""
    if truth.masks is None or predictions.masks is None:
        return {}
    numbers = _precision_and_recall(truth, predictions, backend, COCO_LIMITS, masks=True)
    return {f"mask_{name}": value for name, value in _metrics(*numbers).items()}


def size_of(area: np.ndarray) -> np.ndarray:
    """Places in `SIZE_NAMES` of areas in square pixels, each in one size: small < 32**2 <= medium < 96**2 <= large."""
    return np.searchsorted([MEDIUM_AREA, LARGE_AREA], area, side="right")


def _precision_and_recall(
    truth: Truth,
    predictions: Predictions,
    backend: Backend,
    limits: Sequence[int],
    masks: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """COCO's precision [IoU, recall level, class, area range, max detections] and recall, the same without level."""
    quiet: contextlib.AbstractContextManager
    if backend == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        quiet = contextlib.redirect_stdout(io.StringIO())
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval

        quiet = contextlib.nullcontext()
    listed = {
        "images": [{"id": index, **size} for index, size in enumerate(_sizes(truth, predictions))],
        "categories": [{"id": index} for index in range(len(truth.category_ids))],
    }
    with quiet:
        apis = []
        for annotations in (
            _entries(truth, "iscrowd", truth.crowd.astype(int), masks),
            _entries(predictions, "score", predictions.score, masks),
        ):
            apis.append(COCO())
            apis[-1].dataset = {**listed, "annotations": annotations}
            apis[-1].createIndex()
        evaluator = COCOeval(*apis, iouType="segm" if masks else "bbox")
        evaluator.params.maxDets = list(limits)
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval["precision"], evaluator.eval["recall"]


def _sizes(truth: Truth, predictions: Predictions) -> list[dict[str, int]]:
    """Height and width of each image, as far as masks tell it; faster-coco-eval asks for them."""
    sizes = np.zeros((len(truth.image_ids), 2), dtype=np.int64)
    for boxes in (truth, predictions):
        if boxes.masks is not None:
            sizes[boxes.image] = boxes.masks.sizes
    return [{"height": height, "width": width} for height, width in sizes.tolist()]


def _entries(boxes: IndexedBoxes, key: str, values: np.ndarray, masks: bool) -> list[dict]:
    keys = ("id", "image_id", "category_id", "bbox", "area", key)
    ids, area = range(1, len(boxes.area) + 1), boxes.area
    if masks and key == "score":  # of a detection COCO takes the mask's area, of an object what the annotation states
        area = cast(Masks, boxes.masks).areas()
    columns = (boxes.image, boxes.category, boxes.boxes_xywh_px, area, values)
    entries = [dict(zip(keys, row, strict=True)) for row in zip(ids, *(c.tolist() for c in columns), strict=True)]
    if not masks:
        return entries
    return [{**e, "segmentation": rle} for e, rle in zip(entries, cast(Masks, boxes.masks).as_dicts(), strict=True)]


def _metrics(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """COCO's twelve numbers."""
    precision, recall = precision[..., : len(COCO_LIMITS)], recall[..., : len(COCO_LIMITS)]
    metrics = {
        "map": _mean(precision[:, :, :, 0, -1]),
        "map_50": _mean(precision[0, :, :, 0, -1]),
        "map_75": _mean(precision[5, :, :, 0, -1]),
    }
    metrics |= {f"map_{size}": _mean(precision[:, :, :, area, -1]) for area, size in enumerate(SIZE_NAMES, start=1)}
    metrics |= {f"mar_{count}": _mean(recall[:, :, 0, index]) for index, count in enumerate(COCO_LIMITS)}
    return metrics | {f"mar_{size}": _mean(recall[:, :, area, -1]) for area, size in enumerate(SIZE_NAMES, start=1)}


def _metrics_beyond(precision: np.ndarray, recall: np.ndarray, limits: Sequence[int]) -> dict[str, float]:
    """AP and AR of more detections than in COCO, where they are asked for."""
    values = (*(precision[which, :, :, 0, -1] for which in (slice(None), 0, 5)), recall[:, :, 0, -1])
    return dict(zip((name for name, _, _ in metrics_beyond(limits[-1])), map(_mean, values), strict=False))


def _per_class(truth: Truth, precision: np.ndarray, recall: np.ndarray) -> list[ClassResult]:
    objects = np.bincount(truth.category[~truth.crowd], minlength=len(truth.names)).tolist()
    place = COCO_LIMITS.index(MAX_DETECTIONS)
    return [
        ClassResult(
            category_id=category_id,
            name=truth.names[index],
            ap=_mean(precision[:, :, index, 0, place]),
            ap_50=_mean(precision[0, :, index, 0, place]),
            ar_100=_mean(recall[:, index, 0, place]),
            objects=objects[index],
        )
        for index, category_id in enumerate(truth.category_ids.tolist())
    ]


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
