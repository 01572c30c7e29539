"""The sections Precision and recall, and Errors: what an analysis of the detections says, in figures and tables."""

from collections.abc import Sequence

from hf_detr_ft.evaluation.analysis import MOST_CONFUSED_PAIRS, Analysis
from hf_detr_ft.evaluation.coco_result import beyond_coco
from hf_detr_ft.plots.error_plots import plot_confusion, plot_errors
from hf_detr_ft.plots.precision_recall import (
    plot_calibration,
    plot_class_f1,
    plot_class_precision_recall,
    plot_f1,
    plot_precision_recall,
)
from hf_detr_ft.report.blocks import Block, Cell, Heading, Number, Plot, Section, Table, Text

MEANINGS = {
    "classification": "on an object of another class",
    "localisation": "on an object of its class, beside it: IoU 0.1 to 0.5",
    "both": "beside an object of another class",
    "duplicate": "on an object that another detection took",
    "background": "on nothing",
    "missed": "an object that no detection took or came near",
}
"""Meaning of each kind of error."""


def describe_precision(analysis: Analysis) -> Section:
    """Precision against recall, F1 against the threshold, calibration."""
    several = len(analysis.result.per_class) > 1
    blocks: list[Block] = [
        Text(
            "Precision is the share of detections that are right, recall the share of objects that are found. The area "
            "under a curve of precision against recall is its AP."
        ),
        Plot("precision-recall", plot_precision_recall(analysis.precision_recall)),
        *(
            [Plot("precision-recall-classes", plot_class_precision_recall(analysis.precision_recall))]
            if several
            else []
        ),
        Plot("f1", plot_f1(analysis.thresholds)),
        *([Plot("f1-classes", plot_class_f1(analysis.thresholds))] if several else []),
        Plot("calibration", plot_calibration(analysis.calibration)),
    ]
    return Section("Precision and recall", "precision", [*blocks, _calibration_table(analysis)])


def describe_errors(analysis: Analysis) -> Section:
    """Errors by kind, and which classes are taken for which."""
    blocks: list[Block] = [
        Text(
            "Each wrong detection is of one kind, after TIDE (arXiv:2008.08115). What fixing a kind would be worth is "
            "the AP50 with it fixed, and all else as it is, less the AP50 as it is."
        ),
        Plot("errors", plot_errors(analysis.errors)),
        Plot("confusion", plot_confusion(analysis.confusion)),
        _error_table(analysis),
        *_mistaken(analysis),
    ]
    return Section("Errors", "errors", blocks)


def interval_table(analysis: Analysis) -> list[Block]:
    """Intervals of AP over other images of the kind; none where they cannot be told."""
    names = {"map": "AP", "map_50": "AP50", "map_75": "AP75"}
    given = [(key, interval) for key, interval in analysis.intervals.items() if interval is not None]
    rows: list[Sequence[Cell]] = [
        (names[key], Number(analysis.result.metrics[key]), Number(interval.low), Number(interval.high))
        for key, interval in given
    ]
    caption = "Between which numbers it lies with a confidence of 95 %, by drawing images anew (bootstrap)"
    return [Table("intervals", caption, ["", "Measured", "From", "To"], rows)] if rows else []


def recall_table(analysis: Analysis) -> Table:
    """Objects found with the kept detections, by size."""
    rows: list[Sequence[Cell]] = [
        (size, Number(recall.found), Number(recall.objects)) for size, recall in analysis.recall.items()
    ]
    caption = f"Objects found at IoU 0.50 with scores above {analysis.threshold:.3f}"
    return Table("recall", caption, ["Size", "Found", "Of"], rows)


def _calibration_table(analysis: Analysis) -> Table:
    calibration = analysis.calibration
    rows: list[Sequence[Cell]] = [
        ("all", Number(len(analysis.errors.outcome)), Number(calibration.expected_error)),
        (f"with scores above {analysis.threshold:.3f}", Number(calibration.kept), Number(calibration.kept_error)),
    ]
    caption = "How far scores are from the share of detections that is right (expected calibration error)"
    return Table("calibration", caption, ["Detections", "Number", "Error"], rows)


def _error_table(analysis: Analysis) -> Table:
    rows: list[Sequence[Cell]] = [
        (name, MEANINGS[name], Number(kind.kept), Number(kind.count), Number(kind.gain))
        for name, kind in analysis.errors.kinds.items()
    ]
    gain = f"AP50{beyond_coco(analysis.precision_recall.max_detections)} to gain"
    columns = ["Kind", "A detection", f"With scores above {analysis.threshold:.3f}", "Of any score", gain]
    return Table("error-kinds", "Errors by kind", columns, rows)


def _mistaken(analysis: Analysis) -> list[Block]:
    names = analysis.confusion.names
    rows: list[Sequence[Cell]] = [
        (names[true], names[predicted], Number(count))
        for true, predicted, count in analysis.confusion.confused_pairs()[:MOST_CONFUSED_PAIRS]
    ]
    if not rows:
        return []
    caption = f"The most frequent confusions, of at most {MOST_CONFUSED_PAIRS}"
    return [Heading("Classes taken for others"), Table("mistaken", caption, ["True", "Predicted", "Times"], rows)]
