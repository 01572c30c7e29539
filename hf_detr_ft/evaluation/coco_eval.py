"""Detections against COCO truth: the 12 COCO numbers, AP and AR per class, objects per size, threshold of the best F1.

`evaluate_detections` is the entrance. Truth is the COCO dict as read, crowd and areas included, over exactly its
images. AP and AR come from faster-coco-eval or, as the reference, pycocotools; both get fresh entries with ids of ours
from 1 on, since both take a match with annotation id 0 for no match. Everything between is numpy arrays.
"""

import contextlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from hf_detr_ft.errors import DataError

Backend = Literal["faster-coco-eval", "pycocotools"]
"""`pycocotools` is the reference; `faster-coco-eval` gives the same numbers several times faster."""

MEDIUM_AREA, LARGE_AREA = 32**2, 96**2
"""Where COCO's medium and large objects begin, in square pixels."""

CLASS_ROWS = 20
"""How many classes `CocoResult.table` shows."""

_COLUMNS = {"image_id": np.int64, "category_id": np.int64, "score": float, "boxes_xywh_px": float}

_PAIRS_AT_ONCE = 1_000_000
"""Pairs of a detection and an object that the matching holds at once (about 150 bytes each)."""


@dataclass(frozen=True, eq=False)
class Detections:
    """Scored boxes of any number of images, as arrays.

    Attributes:
        image_id: [N] int64, the data set's image ids.
        category_id: [N] int64, the data set's category ids (not labels).
        score: [N] float64.
        boxes_xywh_px: [N, 4] float64, left, top, width, height in pixels of the original upright image.
    """

    image_id: np.ndarray
    category_id: np.ndarray
    score: np.ndarray
    boxes_xywh_px: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in _COLUMNS.items():
            values = np.asarray(getattr(self, name), dtype=dtype)
            expected = (len(self.score), 4) if name == "boxes_xywh_px" else (len(self.score),)
            if values.shape != expected:
                raise ValueError(f"Detections.{name} must have the shape {expected}, found {values.shape}")
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def empty(cls) -> "Detections":
        """No detection at all."""
        return cls(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, 4)))

    @classmethod
    def concat(cls, parts: Iterable["Detections"]) -> "Detections":
        """The detections of all parts, in their order; none for no parts."""
        parts = [cls.empty(), *parts]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS))

    @classmethod
    def from_results(cls, results: list[dict]) -> "Detections":
        """Reads COCO's results format: `[{"image_id": 1, "category_id": 3, "bbox": [x, y, w, h], "score": 0.9}, …]`.

        Raises:
            DataError: an entry lacks one of the four keys, or its value is of another kind.
        """
        if not isinstance(results, list):
            raise DataError(f"COCO results must be a list of entries, found {type(results).__name__}")
        return cls(
            _column(results, "image_id", "results", ids=True),
            _column(results, "category_id", "results", ids=True),
            _column(results, "score", "results"),
            _column(results, "bbox", "results", width=4),
        )

    def to_results(self) -> list[dict]:
        """COCO's results format, JSON-able; the inverse of `from_results`."""
        columns = (self.image_id, self.category_id, self.boxes_xywh_px, self.score)
        keys = ("image_id", "category_id", "bbox", "score")
        return [dict(zip(keys, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]


@dataclass(frozen=True)
class ClassResult:
    """One class: AP over IoU 0.5:0.95, AP at 0.5, AR over 0.5:0.95, and its objects (no crowd). -1: no objects."""

    category_id: int
    name: str
    ap: float
    ap_50: float
    ar_100: float
    objects: int


@dataclass(frozen=True)
class BestF1:
    """The best F1 over all classes together at IoU 0.5, and the score from which on detections are kept for it.

    Keep `score >= threshold`; `post_process_object_detection` and `pipeline()` keep only what is above their threshold.
    Of several thresholds with the same F1 it is the highest. Where no detection matches an object (none of either, or
    AP 0) no threshold is better than another: then f1, precision and recall are 0 and the threshold is 0.5, the
    default of `pipeline("object-detection")`.
    """

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class CocoResult:
    """What `evaluate_detections` found.

    Attributes:
        metrics: COCO's 12 numbers in COCO's order, -1 where there is no such object: `map map_50 map_75 map_small
            map_medium map_large mar_1 mar_10 mar_100 mar_small mar_medium mar_large`.
        per_class: in the order of the category ids; `ar_100` with the largest number of detections per image.
        sizes: objects without crowd, each counted once: small < 32**2 <= medium < 96**2 <= large, in square pixels of
            the annotation's area. (COCO's own ranges include both ends, so an object of exactly 32**2 enters
            `map_small` and `map_medium`.)
        best_f1: over all classes at IoU 0.5.
        images: images of the truth, those without objects or detections included.
        objects: objects without crowd.
        detections: detections given.
    """

    metrics: dict[str, float]
    per_class: list[ClassResult]
    sizes: dict[str, int]
    best_f1: BestF1
    images: int
    objects: int
    detections: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, plain floats and integers; undefined stays -1."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CocoResult":
        """The inverse of `as_dict`; other keys are ignored."""
        plain = {field.name: values[field.name] for field in fields(cls)}
        per_class = [ClassResult(**row) for row in values["per_class"]]
        return cls(**{**plain, "per_class": per_class, "best_f1": BestF1(**values["best_f1"])})

    def table(self) -> str:
        """COCO's 12 lines with the objects per size, a line per class (at most 20) and the best F1."""
        counts = f"{_counted(self.images, 'image')}, {_counted(self.objects, 'object')}"
        lines = [f"{counts}, {_counted(self.detections, 'detection')}"]
        most = list(self.metrics)[8].removeprefix("mar_")  # the last of `max_detections`
        for key, value in self.metrics.items():
            kind, _, which = key.partition("_")
            title = "Average Precision  (AP)" if kind == "map" else "Average Recall     (AR)"
            iou = f"0.{which}" if kind == "map" and which.isdigit() else "0.50:0.95"
            area, note = "all", ""
            if which in self.sizes:
                area, note = which, f"  {which} ({_counted(self.sizes[which], 'object')})"
            best = which if kind == "mar" and which.isdigit() else most
            lines.append(f" {title} @[ IoU={iou:<9} | area={area:>6} | maxDets={best:>3} ] = {_number(value)}{note}")
        return "\n".join([*lines, "", *self._class_lines(), "", self._f1_line()])

    def _class_lines(self) -> list[str]:
        shown = self.per_class[:CLASS_ROWS]
        width = max(len("class"), *(len(row.name) for row in shown))
        lines = [f" {'class':<{width}}  objects     AP   AP50     AR"]
        for row in shown:
            numbers = "  ".join(_number(value) for value in (row.ap, row.ap_50, row.ar_100))
            lines.append(f" {row.name:<{width}}  {row.objects:>7}  {numbers}")
        rest = len(self.per_class) - len(shown)
        return [*lines, f" … and {rest} more"] if rest else lines

    def _f1_line(self) -> str:
        best = self.best_f1
        if not best.f1:
            return " Best F1 at IoU 0.50: n/a, no detection matches an object"
        threshold = math.floor(best.threshold * 1000) / 1000  # rounded up it would drop the last detection counted
        numbers = f"precision {best.precision:.3f}, recall {best.recall:.3f}"
        return f" Best F1 at IoU 0.50: {best.f1:.3f} with scores from {threshold:.3f} on ({numbers})"


def evaluate_detections(
    coco: dict,
    detections: Detections,
    *,
    backend: Backend = "faster-coco-eval",
    max_detections: Sequence[int] = (1, 10, 100),
) -> CocoResult:
    """Scores detections against the truth of a COCO dict, over exactly the images it lists.

    Images without detections count as such. Annotations of images or categories that the dict does not list are left
    out, as COCO does. `iscrowd` may be absent (0), `area` too (width x height); nothing but ids, names and boxes is
    needed, and the dict stays as it is.

    Args:
        coco: the annotations as read; `images`, `categories` and `annotations`.
        detections: ids are the data set's, boxes in pixels of the original upright image.
        backend: the library that computes AP and AR.
        max_detections: three counts, ascending: the best detections per image and class that AR is computed from;
            the last one holds for AP, sizes, classes and F1. They name `mar_1`, `mar_10` and `mar_100`.

    Raises:
        DataError: detections of unknown images or categories, boxes or scores that are not finite, negative widths or
            heights, truth without images or categories.
    """
    if backend not in ("faster-coco-eval", "pycocotools"):
        raise ValueError(f"backend must be 'faster-coco-eval' or 'pycocotools', found {backend!r}")
    if len(max_detections) != 3 or not 0 < max_detections[0] < max_detections[1] < max_detections[2]:
        raise ValueError(f"max_detections must be three ascending positive numbers, found {max_detections!r}")
    truth = _read_truth(coco)
    found = _index_detections(truth, detections)
    precision, recall = _precision_and_recall(truth, found, backend, max_detections)
    objects = truth.area[~truth.crowd]
    return CocoResult(
        metrics=_metrics(precision, recall, max_detections),
        per_class=_per_class(truth, precision, recall),
        sizes={
            "small": int(np.sum(objects < MEDIUM_AREA)),
            "medium": int(np.sum((objects >= MEDIUM_AREA) & (objects < LARGE_AREA))),
            "large": int(np.sum(objects >= LARGE_AREA)),
        },
        best_f1=_best_f1(_match(truth, found, max_detections[-1]), found.score, len(objects)),
        images=len(truth.image_ids),
        objects=len(objects),
        detections=len(detections),
    )


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes whose image and category are positions in `_Truth.image_ids` and `_Truth.category_ids`."""

    image: np.ndarray
    category: np.ndarray
    boxes_xywh_px: np.ndarray
    area: np.ndarray


@dataclass(frozen=True, eq=False)
class _Truth(_Boxes):
    crowd: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    names: list[str]


@dataclass(frozen=True, eq=False)
class _Found(_Boxes):
    score: np.ndarray


def _read_truth(coco: dict) -> _Truth:
    for key in ("images", "categories"):
        if not coco.get(key):
            raise DataError(f"COCO truth has no {key}: evaluation needs at least one entry under {key!r}")
    image_ids = np.unique(_column(coco["images"], "id", "images", ids=True))
    category_ids = np.unique(_column(coco["categories"], "id", "categories", ids=True))
    names = {entry["id"]: str(entry.get("name", entry["id"])) for entry in coco["categories"]}
    annotations = coco.get("annotations") or []
    image_id = _column(annotations, "image_id", "annotations", ids=True)
    category_id = _column(annotations, "category_id", "annotations", ids=True)
    boxes = _column(annotations, "bbox", "annotations", width=4)
    _check_boxes(boxes, "annotations", "run `hf-detr-ft check` on this data set")
    area = boxes[:, 2] * boxes[:, 3]
    given = [index for index, entry in enumerate(annotations) if entry.get("area") is not None]
    area[given] = _column([annotations[index] for index in given], "area", "annotations")
    crowd = np.array([bool(entry.get("iscrowd")) for entry in annotations], dtype=bool)
    listed = np.isin(image_id, image_ids) & np.isin(category_id, category_ids)
    return _Truth(
        image=np.searchsorted(image_ids, image_id[listed]),
        category=np.searchsorted(category_ids, category_id[listed]),
        boxes_xywh_px=boxes[listed],
        area=area[listed],
        crowd=crowd[listed],
        image_ids=image_ids,
        category_ids=category_ids,
        names=[names[category] for category in category_ids.tolist()],
    )


def _index_detections(truth: _Truth, detections: Detections) -> _Found:
    problems = []
    for what, ids, known in (
        ("image", detections.image_id, truth.image_ids),
        ("category", detections.category_id, truth.category_ids),
    ):
        unknown = np.setdiff1d(ids, known).tolist()
        if unknown:
            problems.append(f"{what} ids that the truth does not list: {_listed(unknown)} (it has {_listed(known)})")
    if problems:
        remedy = "detections must carry the ids of this very data set, not labels or positions"
        raise DataError(f"Detections have {'; '.join(problems)}; {remedy}")
    _check_boxes(detections.boxes_xywh_px, "detections", "boxes must be x, y, width, height in pixels")
    bad = np.flatnonzero(~np.isfinite(detections.score)).tolist()
    if bad:
        raise DataError(f"Detections {_listed(bad)} have scores that are not finite; the model's output holds a NaN")
    return _Found(
        image=np.searchsorted(truth.image_ids, detections.image_id),
        category=np.searchsorted(truth.category_ids, detections.category_id),
        boxes_xywh_px=detections.boxes_xywh_px,
        area=detections.boxes_xywh_px[:, 2] * detections.boxes_xywh_px[:, 3],
        score=detections.score,
    )


def _precision_and_recall(
    truth: _Truth, found: _Found, backend: Backend, max_detections: Sequence[int]
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
        "images": [{"id": index} for index in range(len(truth.image_ids))],
        "categories": [{"id": index} for index in range(len(truth.category_ids))],
    }
    with quiet:
        apis = []
        for annotations in (_entries(truth, "iscrowd", truth.crowd.astype(int)), _entries(found, "score", found.score)):
            apis.append(COCO())
            apis[-1].dataset = {**listed, "annotations": annotations}
            apis[-1].createIndex()
        evaluator = COCOeval(*apis, iouType="bbox")
        evaluator.params.maxDets = list(max_detections)
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval["precision"], evaluator.eval["recall"]


def _entries(boxes: _Boxes, key: str, values: np.ndarray) -> list[dict]:
    keys = ("id", "image_id", "category_id", "bbox", "area", key)
    ids = range(1, len(boxes.area) + 1)
    columns = (boxes.image, boxes.category, boxes.boxes_xywh_px, boxes.area, values)
    return [dict(zip(keys, row, strict=True)) for row in zip(ids, *(c.tolist() for c in columns), strict=True)]


def _metrics(precision: np.ndarray, recall: np.ndarray, max_detections: Sequence[int]) -> dict[str, float]:
    metrics = {
        "map": _mean(precision[:, :, :, 0, -1]),
        "map_50": _mean(precision[0, :, :, 0, -1]),
        "map_75": _mean(precision[5, :, :, 0, -1]),
    }
    sizes = ("small", "medium", "large")
    metrics |= {f"map_{size}": _mean(precision[:, :, :, area, -1]) for area, size in enumerate(sizes, start=1)}
    metrics |= {f"mar_{count}": _mean(recall[:, :, 0, index]) for index, count in enumerate(max_detections)}
    return metrics | {f"mar_{size}": _mean(recall[:, :, area, -1]) for area, size in enumerate(sizes, start=1)}


def _per_class(truth: _Truth, precision: np.ndarray, recall: np.ndarray) -> list[ClassResult]:
    objects = np.bincount(truth.category[~truth.crowd], minlength=len(truth.names)).tolist()
    return [
        ClassResult(
            category_id=category_id,
            name=truth.names[index],
            ap=_mean(precision[:, :, index, 0, -1]),
            ap_50=_mean(precision[0, :, index, 0, -1]),
            ar_100=_mean(recall[:, index, 0, -1]),
            objects=objects[index],
        )
        for index, category_id in enumerate(truth.category_ids.tolist())
    ]


def _mean(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _match(truth: _Truth, found: _Found, most: int) -> np.ndarray:
    """COCO's greedy matching at IoU 0.5, which faster-coco-eval keeps to itself.

    Within an image and class the detections choose in the order of their scores: each takes the free object that it
    overlaps most, else a crowd region, which is never used up.

    Returns:
        [N], per detection: 1 took an object, 0 nothing, -1 does not count (it lies in a crowd region or is not among
        the best `most` of its image and class).
    """
    classes = len(truth.category_ids)
    found_group, truth_group = (boxes.image * classes + boxes.category for boxes in (found, truth))
    order = np.lexsort((-found.score, found_group))
    rank = np.arange(len(order)) - np.searchsorted(found_group[order], found_group[order])
    order = order[rank < most]
    outcome = np.full(len(found.score), -1)
    outcome[order] = 0
    by_group = np.argsort(truth_group, kind="stable")
    start, end = (np.searchsorted(truth_group[by_group], found_group[order], side) for side in ("left", "right"))
    blocks = np.array_split(np.arange(len(order)), 1 + int((end - start).sum()) // _PAIRS_AT_ONCE)
    free = bytearray(b"\1") * len(truth.area)
    for block in blocks:
        counts = end[block] - start[block]
        chooser = np.repeat(block, counts)
        within = np.arange(len(chooser)) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = by_group[start[chooser] + within]
        iou = _iou(found, order[chooser], truth, chosen)
        near = iou >= 0.5
        chooser, chosen, iou = chooser[near], chosen[near], iou[near]
        best_first = np.lexsort((-chosen, -iou, truth.crowd[chosen], chooser))
        chooser, chosen = order[chooser[best_first]], chosen[best_first]
        pairs = zip(chooser.tolist(), chosen.tolist(), truth.crowd[chosen].tolist(), strict=True)
        for detection, target, crowd in pairs:
            if outcome[detection] == 0 and (crowd or free[target]):
                outcome[detection] = -1 if crowd else 1
                free[target] = 0
    return outcome


def _iou(found: _Found, detection: np.ndarray, truth: _Truth, target: np.ndarray) -> np.ndarray:
    """IoU of pairs as COCO has it: over the detection's own area where the target is a crowd region."""
    a, b = found.boxes_xywh_px[detection], truth.boxes_xywh_px[target]
    sides = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    overlap = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    area = a[:, 2] * a[:, 3]
    union = np.where(truth.crowd[target], area, area + b[:, 2] * b[:, 3] - overlap)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def _best_f1(outcome: np.ndarray, score: np.ndarray, objects: int) -> BestF1:
    counted = np.flatnonzero(outcome >= 0)
    order = counted[np.argsort(-score[counted], kind="stable")]
    hits, kept, scores = np.cumsum(outcome[order]), np.arange(1, len(order) + 1), score[order]
    if not len(order) or not hits[-1]:
        return BestF1(threshold=0.5, f1=0.0, precision=0.0, recall=0.0)
    f1 = 2 * hits / (kept + objects)
    f1[:-1][scores[1:] == scores[:-1]] = 0.0  # a threshold keeps all detections of one score or none
    best = int(np.argmax(f1))
    return BestF1(
        threshold=float(scores[best]),
        f1=float(f1[best]),
        precision=float(hits[best] / kept[best]),
        recall=float(hits[best] / objects),
    )


def _column(entries: list[dict], key: str, what: str, *, ids: bool = False, width: int | None = None) -> np.ndarray:
    """`entry[key]` of all entries, [N] or [N, width], ids as int64; DataError where one is missing or unlike that."""
    shape, kinds = (() if width is None else (width,)), "iu" if ids else "iuf"
    if not entries:
        return np.zeros((0, *shape), dtype=np.int64 if ids else float)

    def read(some: list[dict]) -> np.ndarray | None:
        try:
            values = np.asarray([entry[key] for entry in some])
        except (KeyError, TypeError, ValueError):
            return None
        return values if values.dtype.kind in kinds and values.shape == (len(some), *shape) else None

    values = read(entries)
    if values is None:
        bad = [index for index, entry in enumerate(entries) if read([entry]) is None]
        first = entries[bad[0]]
        expected = f"{width} numbers" if width else "an integer" if ids else "a number"
        found = repr(first.get(key, "nothing")) if isinstance(first, dict) else repr(first)
        raise DataError(
            f"COCO {what}: {key!r} must be {expected} in every entry; it is not in {_listed(bad)} (counted from 0), "
            f"where the first has {found[:80]}"
        )
    return values.astype(np.int64 if ids else float)


def _check_boxes(boxes_xywh_px: np.ndarray, what: str, remedy: str) -> None:
    usable = np.isfinite(boxes_xywh_px).all(axis=1) & (boxes_xywh_px[:, 2:] >= 0).all(axis=1)
    bad = np.flatnonzero(~usable).tolist()
    if bad:
        raise DataError(
            f"COCO {what}: {_counted(len(bad), 'box')} not finite or of negative width or height, entries "
            f"{_listed(bad)} (counted from 0), the first is {boxes_xywh_px[bad[0]].tolist()}; {remedy}"
        )


def _listed(values: Sequence | np.ndarray, limit: int = 10) -> str:
    shown = ", ".join(str(value) for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} … and {len(values) - limit} more"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{'es' if noun.endswith('x') else 's'}"


def _number(value: float) -> str:
    return "  n/a" if value < 0 else f"{value:.3f}"
