"""Curves of an analysis: precision against recall, F1 against threshold, and calibration."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hf_detr_ft.evaluation.calibration import Calibration
from hf_detr_ft.evaluation.coco_result import beyond_coco
from hf_detr_ft.evaluation.threshold_curves import PrecisionRecall, ThresholdCurves
from hf_detr_ft.plots.style import (
    FAINT,
    INK,
    LETTERS,
    PALETTE,
    add_legend,
    compact,
    label_axes,
    new_figure,
    short_names,
    write_instead,
)

DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
"""Patterns of lines in turn, so that they differ without their colours."""
LEGEND_NAME = 66
"""Width of a class's name in a legend, in points."""
SHOWN_IOUS = (0.5, 0.75, 0.9)


def plot_precision_recall(curves: PrecisionRecall) -> Figure:
    """Precision against recall at three IoUs and their mean over all ten, whose area is AP; means over the classes."""
    figure, axes = _unit_figure("Precision against recall, by IoU", "Recall", "Precision")
    means = curves.mean()
    if np.isnan(means).all():
        write_instead(axes, "No objects: no precision, no recall")
        return figure
    lines = _line(axes, curves.recall, means.mean(axis=0), INK, "-", 2.2)
    name = f"AP{beyond_coco(curves.max_detections)}"
    labels = [f"{name} {means.mean():.3f}, mean of ten IoUs"]
    for iou, colour, dashes in zip(SHOWN_IOUS, PALETTE, DASHES[1:], strict=False):
        values = means[int(np.argmin(np.abs(curves.iou - iou)))]
        lines += _line(axes, curves.recall, values, colour, dashes)
        labels.append(f"{name} {values.mean():.3f}, IoU {iou:.2f}")
    if not means.any():
        write_instead(axes, "No detection matches an object")
    add_legend(axes, lines, labels)
    return figure


def plot_class_precision_recall(curves: PrecisionRecall) -> Figure:
    """Precision against recall at IoU 0.5 of each class, the eight with the most objects if there are more."""
    shown, title = _most_objects("Precision against recall at IoU 0.5", np.asarray(curves.objects))
    series = {index: curves.precision[0, :, index] for index in shown}
    labels = [f"AP{beyond_coco(curves.max_detections)} {values.mean():.3f}" for values in series.values()]
    figure, axes = _plot_classes(title, "Recall", "Precision", curves.recall, series, labels, curves.names)
    if not shown:
        write_instead(axes, "No objects: no precision, no recall")
    return figure


def plot_class_f1(curves: ThresholdCurves) -> Figure:
    """F1 at IoU 0.5 against the threshold of each class, the eight with the most objects if there are more."""
    shown, title = _most_objects("F1 at IoU 0.5", np.array([curve.objects for curve in curves.classes]))
    series = {index: curves.classes[index].f1 for index in shown}
    best = [curves.classes[index].best for index in shown]
    labels = [f"best {one.f1:.3f}" if one and one.f1 else "none right" for one in best]
    figure, axes = _plot_classes(title, "Score threshold", "F1", curves.thresholds, series, labels, curves.names)
    if not shown:
        write_instead(axes, "No objects: no F1")
    return figure


def plot_f1(curves: ThresholdCurves) -> Figure:
    """F1, precision and recall at IoU 0.5 against the threshold of the score; all classes together."""
    title = "What a score threshold keeps, at IoU 0.5"
    figure, axes = _unit_figure(title, "Score threshold", "")
    best = curves.overall.best
    if best is None:
        write_instead(axes, "No objects: no recall, no F1")
        return figure
    lines = [
        *_line(axes, curves.thresholds, curves.overall.f1, INK, DASHES[0], 2.2),
        *_line(axes, curves.thresholds, curves.overall.precision, PALETTE[0], DASHES[1]),
        *_line(axes, curves.thresholds, curves.overall.recall, PALETTE[1], DASHES[3]),
    ]
    add_legend(axes, lines, ("F1", "Precision", "Recall"))
    if not best.f1:
        write_instead(axes, "No detection matches an object")
        return figure
    axes.axvline(best.threshold, color=FAINT, linewidth=1)
    axes.plot(best.threshold, best.f1, "o", color=INK, markersize=5)
    title += f"\nbest F1 {best.f1:.3f}, with scores above {best.threshold:.3f}"
    label_axes(axes, title, "Score threshold", "")
    return figure


def plot_calibration(calibration: Calibration) -> Figure:
    """Share of right detections in each bin of scores, their number above; on the diagonal scores are true."""
    figure, axes = _unit_figure("Are scores probabilities?", "Score", "Share that is right, at IoU 0.5")
    if calibration.expected_error is None:
        write_instead(axes, "No detections")
        return figure
    filled = np.flatnonzero(calibration.count)
    width = calibration.edges[1]
    middle = calibration.edges[filled] + width / 2
    axes.bar(middle, calibration.right[filled], 0.84 * width, color=PALETTE[0], alpha=0.75)
    axes.plot((0, 1), (0, 1), color=FAINT, linewidth=1)
    axes.plot(calibration.score[filled], calibration.right[filled], "o", color=INK, markersize=3)
    for place, count in zip(middle, calibration.count[filled].tolist(), strict=True):
        axes.text(place, 1.03, compact(count), ha="center", color=INK, fontsize=LETTERS)
    axes.set_ylim(-0.015, 1.12)
    kept = ""
    if calibration.kept_error is not None:
        kept = f" ({calibration.kept_error:.3f} above {calibration.threshold:.3f})"
    axes.set_xlabel(f"Score\ncalibration error {calibration.expected_error:.3f}{kept}")
    return figure


def _unit_figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    """Figure of axes from 0 to 1."""
    figure, axes = new_figure(title, x, y)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
    return figure, axes


def _plot_classes(
    title: str,
    x: str,
    y: str,
    common: np.ndarray,
    series: dict[int, np.ndarray],
    labels: Sequence[str],
    names: Sequence[str],
) -> tuple[Figure, Axes]:
    """Figure with a line for each class, whose label stands in the legend before its name."""
    figure, axes = _unit_figure(title, x, y)
    lines, shown = [], short_names(names, LEGEND_NAME)
    for place, values in enumerate(series.values()):
        lines += _line(axes, common, values, PALETTE[place], DASHES[place % len(DASHES)])
    if lines:
        add_legend(axes, lines, [f"{label}  {shown[index]}" for label, index in zip(labels, series, strict=True)])
    return figure, axes


def _line(
    axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, dashes: str | tuple, width: float = 1.6
) -> list[Line2D]:
    return axes.plot(x, y, color=colour, linestyle=dashes, linewidth=width)


def _most_objects(title: str, objects: np.ndarray) -> tuple[list[int], str]:
    """Classes with objects, at most as many as there are colours, in their own order, and the title that says so."""
    order = np.argsort(-objects, kind="stable")[: len(PALETTE)]
    shown = sorted(index for index in order.tolist() if objects[index])
    there = int((objects > 0).sum())
    choice = " by class" if there <= len(shown) else f"\nthe {len(shown)} classes with the most objects of {there}"
    return shown, f"{title},{choice}"
