"""Result of an evaluation: the 12 COCO numbers, classes, objects per size and best F1, as dict and table."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hf_detr_ft.formatting import pluralize, printable

MAX_DETECTIONS = 100
"""Best detections per image and class that count in COCO's numbers."""
CLASS_ROWS = 20
"""Most classes that `CocoResult.table` shows."""
COCO_METRICS = (
    ("map", "AP", "IoU 0.50:0.95, all sizes"),
    ("map_50", "AP50", "IoU 0.50, all sizes"),
    ("map_75", "AP75", "IoU 0.75, all sizes"),
    ("map_small", "AP small", "area below 32² pixels"),
    ("map_medium", "AP medium", "area from 32² to 96² pixels"),
    ("map_large", "AP large", "area above 96² pixels"),
    ("mar_1", "AR 1", "1 detection an image"),
    ("mar_10", "AR 10", "10 detections an image"),
    ("mar_100", "AR 100", "100 detections an image"),
    ("mar_small", "AR small", "area below 32² pixels"),
    ("mar_medium", "AR medium", "area from 32² to 96² pixels"),
    ("mar_large", "AR large", "area above 96² pixels"),
)
"""COCO's twelve numbers in COCO's order: key in `CocoResult.metrics`, name, meaning."""


def beyond_coco(max_detections: int) -> str:
    """Words behind the name of a number that is of more detections of an image than COCO's: " at 500"."""
    return f" at {max_detections}" if max_detections > MAX_DETECTIONS else ""


def metrics_beyond(max_detections: int) -> tuple[tuple[str, str, str], ...]:
    """The numbers that a result has beside COCO's, as in `COCO_METRICS`; none where 100 detections count."""
    if max_detections <= MAX_DETECTIONS:
        return ()
    at, of = f"_at_{max_detections}", f"{max_detections} detections an image"
    names = (("map", "AP", "IoU 0.50:0.95"), ("map_50", "AP50", "IoU 0.50"), ("map_75", "AP75", "IoU 0.75"))
    aps = ((f"{key}{at}", f"{name}{beyond_coco(max_detections)}", f"{iou}, {of}") for key, name, iou in names)
    return *aps, (f"mar_{max_detections}", f"AR {max_detections}", of)


def metric_rows(metrics: Iterable[str]) -> tuple[tuple[str, str, str], ...]:
    """Key, name and meaning of COCO's twelve numbers, and of those beside them that there are."""
    limits = sorted({int(key.removeprefix("map_at_")) for key in metrics if key.startswith("map_at_")})
    return *COCO_METRICS, *(row for limit in limits for row in metrics_beyond(limit))


@dataclass(frozen=True)
class ClassResult:
    """One class: AP over IoU 0.5:0.95, AP at 0.5, AR over 0.5:0.95, and its objects (no crowd). -1: no objects.

    The best 100 detections of an image count.
    """

    category_id: int
    name: str
    ap: float
    ap_50: float
    ar_100: float
    objects: int


@dataclass(frozen=True)
class BestF1:
    """Best F1 over all classes together at IoU 0.5, and the threshold that gives it.

    Detections with `score > threshold` are kept, as `post_process_object_detection`, `pipeline()` and `hf-detr-ft
    predict --threshold` do. The threshold has three decimals and is never rounded again: precision and recall are those
    of exactly this number. Of several with the same F1 it is the highest. Where no detection matches an object (none of
    either, or AP 0) no threshold is better than another: then f1, precision and recall are 0 and the threshold is 0.5,
    the default of `pipeline("object-detection")`.
    """

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True)
class CocoResult:
    """Result of `evaluate_detections`.

    Attributes:
        metrics: COCO's 12 numbers in COCO's order, -1 where there is no such object: `map map_50 map_75 map_small
            map_medium map_large mar_1 mar_10 mar_100 mar_small mar_medium mar_large`, and those of `metrics_beyond`.
        per_class: in the order of the category ids.
        sizes: objects without crowd, each counted once: small < 32**2 <= medium < 96**2 <= large, in square pixels of
            the annotation's area. (COCO's own ranges include both ends, so an object of exactly 32**2 enters
            `map_small` and `map_medium`.)
        best_f1: over all classes at IoU 0.5.
        images: images of the truth, those without objects or detections included.
        objects: objects without crowd.
        detections: detections given.
        mask_metrics: the same numbers of masks, their names behind `mask_`; empty of a model without a mask head.
    """

    metrics: dict[str, float]
    per_class: list[ClassResult]
    sizes: dict[str, int]
    best_f1: BestF1
    images: int
    objects: int
    detections: int
    mask_metrics: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain floats and integers, for JSON; undefined stays -1, and numbers of masks are there where masks are."""
        plain = asdict(self)
        return plain if self.mask_metrics else {name: plain[name] for name in plain if name != "mask_metrics"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CocoResult":
        """Inverse of `as_dict`, whatever the order of its keys; other keys are ignored."""
        plain = {entry.name: values[entry.name] for entry in fields(cls) if entry.name in values}
        for kind in {"metrics", "mask_metrics"} & plain.keys():
            plain[kind] = {name: plain[kind][name] for name in sorted(plain[kind], key=_place)}
        per_class = [ClassResult(**row) for row in values["per_class"]]
        return cls(**{**plain, "per_class": per_class, "best_f1": BestF1(**values["best_f1"])})

    def table(self) -> str:
        """COCO's 12 lines and those of more detections, objects by size, a line per class (at most 20), the best F1."""
        counts = f"{pluralize(self.images, 'image')}, {pluralize(self.objects, 'object')}"
        lines = [f"{counts}, {pluralize(self.detections, 'detection')}", *self._metric_lines(self.metrics)]
        if self.mask_metrics:
            plain = {name.removeprefix("mask_"): value for name, value in self.mask_metrics.items()}
            lines += ["", " masks:", *self._metric_lines(plain)]
        return "\n".join([*lines, "", *self._class_lines(), "", self._f1_line()])

    def _metric_lines(self, metrics: Mapping[str, float]) -> list[str]:
        lines = []
        for key, value in metrics.items():
            kind, which, at = _parts(key)
            title = "Average Precision  (AP)" if kind == "map" else "Average Recall     (AR)"
            iou = f"0.{which}" if kind == "map" and which.isdigit() else "0.50:0.95"
            area, note = "all", ""
            if which in self.sizes:
                area, note = which, f"  {which} ({pluralize(self.sizes[which], 'object')})"
            best = at or (which if kind == "mar" and which.isdigit() else MAX_DETECTIONS)
            lines.append(f" {title} @[ IoU={iou:<9} | area={area:>6} | maxDets={best:>3} ] = {_number(value)}{note}")
        return lines

    def _class_lines(self) -> list[str]:
        shown = self.per_class[:CLASS_ROWS]
        names = [printable(row.name) for row in shown]
        width = max(len("class"), *map(len, names))
        lines = [f" {'class':<{width}}  objects     AP   AP50     AR"]
        for name, row in zip(names, shown, strict=True):
            numbers = "  ".join(_number(value) for value in (row.ap, row.ap_50, row.ar_100))
            lines.append(f" {name:<{width}}  {row.objects:>7}  {numbers}")
        rest = len(self.per_class) - len(shown)
        return [*lines, f" … and {rest} more"] if rest else lines

    def _f1_line(self) -> str:
        best = self.best_f1
        if not best.f1:
            return " Best F1 at IoU 0.50: n/a, no detection matches an object"
        numbers = f"precision {best.precision:.3f}, recall {best.recall:.3f}"
        return f" Best F1 at IoU 0.50: {best.f1:.3f} with scores above {best.threshold:.3f} ({numbers})"


def _parts(metric: str) -> tuple[str, str, int]:
    """Kind, what of and limit of a metric: map_50_at_500 is "map", "50" and 500; the limit is 0 where it has none."""
    name, _, at = metric.removeprefix("mask_").partition("_at_")
    kind, _, which = name.partition("_")
    return kind, which, int(at or 0)


def _place(metric: str) -> tuple[int, str, int, int]:
    """Sort key of metrics, as COCO lists them, those of more detections behind them."""
    kind, which, at = _parts(metric)
    sizes = ("small", "medium", "large")
    if which in sizes:
        return 0, kind, 1 + sizes.index(which), 0
    number = int(which or 0)
    beyond = at or (number if kind == "mar" and number > MAX_DETECTIONS else 0)
    return beyond, kind, 0, number


def _number(value: float) -> str:
    return "  n/a" if value < 0 else f"{value:.3f}"
