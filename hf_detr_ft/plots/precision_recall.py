"""Curves of an analysis: precision against recall, F1 against threshold, and calibration."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hf_detr_ft.evaluation.calibration import Calibration
from hf_detr_ft.evaluation.threshold_curves import PrecisionRecall, ThresholdCurves
from hf_detr_ft.plots.labels import SIZE, add_legend, compact, label_axes, say, short_names
from hf_detr_ft.plots.style import FAINT, INK, PALETTE, new_figure

DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
"""In turn, so that lines differ without their colours."""
NAME = 66
"""Width of a class's name in a legend, in points."""
SHOWN_IOUS = (0.5, 0.75, 0.9)


def plot_precision_recall(curves: PrecisionRecall) -> Figure:
    """Precision against recall at three IoUs and their mean over all ten, whose area is AP; means over the classes."""
    figure, axes = new_figure()
    _unit_axes(axes, "Precision against recall, by IoU", "Recall", "Precision")
    means = curves.mean()
    if np.isnan(means).all():
        say(axes, "No objects: no precision, no recall")
        return figure
    lines = _line(axes, curves.recall, means.mean(axis=0), INK, "-", 2.2)
    labels = [f"AP {means.mean():.3f}, mean of ten IoUs"]
    for iou, colour, dashes in zip(SHOWN_IOUS, PALETTE, DASHES[1:], strict=False):
        values = means[int(np.argmin(np.abs(curves.iou - iou)))]
        lines += _line(axes, curves.recall, values, colour, dashes)
        labels.append(f"AP {values.mean():.3f}, IoU {iou:.2f}")
    if not means.any():
        say(axes, "No detection matches an object")
    add_legend(figure, lines, labels, columns=2)
    return figure


def plot_class_precision_recall(curves: PrecisionRecall) -> Figure:
    """Precision against recall at IoU 0.5 of each class, the eight with the most objects if there are more."""
    shown = _most_objects(curves.objects)
    figure, axes = new_figure(height=3.0 + 0.2 * max(0, (len(shown) - 3) // 2))
    _unit_axes(axes, f"Precision against recall at IoU 0.5{_which(shown, curves.objects)}", "Recall", "Precision")
    if not shown:
        say(axes, "No objects: no precision, no recall")
        return figure
    lines, labels, names = [], [], short_names(curves.names, NAME)
    for place, index in enumerate(shown):
        values = curves.precision[0, :, index]
        lines += _line(axes, curves.recall, values, PALETTE[place], DASHES[place % len(DASHES)])
        labels.append(f"AP {values.mean():.3f}  {names[index]}")
    add_legend(figure, lines, labels, columns=2)
    return figure


def plot_f1(curves: ThresholdCurves) -> Figure:
    """F1, precision and recall at IoU 0.5 against the threshold of the score; all classes together."""
    figure, axes = new_figure()
    title = "What a score threshold keeps, at IoU 0.5"
    _unit_axes(axes, title, "Score threshold", "")
    best = curves.overall.best
    if best is None:
        say(axes, "No objects: no recall, no F1")
        return figure
    lines = []
    for values, colour, dashes, width in (
        (curves.overall.f1, INK, DASHES[0], 2.2),
        (curves.overall.precision, PALETTE[0], DASHES[1], 1.6),
        (curves.overall.recall, PALETTE[1], DASHES[3], 1.6),
    ):
        lines += _line(axes, curves.thresholds, values, colour, dashes, width)
    add_legend(figure, lines, ("F1", "Precision", "Recall"), columns=3)
    if not best.f1:
        say(axes, "No detection matches an object")
        return figure
    axes.axvline(best.threshold, color=FAINT, linewidth=1)
    axes.plot(best.threshold, best.f1, "o", color=INK, markersize=5)
    title += f"\nbest F1 {best.f1:.3f}, with scores above {best.threshold:.3f}"
    label_axes(axes, title, "Score threshold", "")
    return figure


def plot_class_f1(curves: ThresholdCurves) -> Figure:
    """F1 at IoU 0.5 against the threshold of each class, the eight with the most objects if there are more."""
    objects = np.array([curve.objects for curve in curves.classes])
    shown = _most_objects(objects)
    figure, axes = new_figure(height=3.0 + 0.2 * max(0, (len(shown) - 3) // 2))
    _unit_axes(axes, f"F1 at IoU 0.5{_which(shown, objects)}", "Score threshold", "F1")
    if not shown:
        say(axes, "No objects: no F1")
        return figure
    lines, labels, names = [], [], short_names(curves.names, NAME)
    for place, index in enumerate(shown):
        curve = curves.classes[index]
        lines += _line(axes, curves.thresholds, curve.f1, PALETTE[place], DASHES[place % len(DASHES)])
        best = f"best {curve.best.f1:.3f}" if curve.best and curve.best.f1 else "none right"
        labels.append(f"{best}  {names[index]}")
    add_legend(figure, lines, labels, columns=2)
    return figure


def plot_calibration(calibration: Calibration) -> Figure:
    """The share of right detections in each bin of scores, their number above; on the diagonal scores are true."""
    figure, axes = new_figure()
    _unit_axes(axes, "Are scores probabilities?", "Score", "Share that is right, at IoU 0.5")
    if calibration.expected_error is None:
        say(axes, "No detections")
        return figure
    filled = np.flatnonzero(calibration.count)
    width = calibration.edges[1]
    middle = calibration.edges[filled] + width / 2
    axes.bar(middle, calibration.right[filled], 0.84 * width, color=PALETTE[0], alpha=0.75)
    axes.plot((0, 1), (0, 1), color=FAINT, linewidth=1)
    axes.plot(calibration.score[filled], calibration.right[filled], "o", color=INK, markersize=3)
    for place, count in zip(middle, calibration.count[filled].tolist(), strict=True):
        axes.text(place, 1.03, compact(count), ha="center", color=INK, fontsize=SIZE)
    axes.set_ylim(-0.015, 1.12)
    kept = ""
    if calibration.kept_error is not None:
        kept = f" ({calibration.kept_error:.3f} above {calibration.threshold:.3f})"
    axes.set_xlabel(f"Score\ncalibration error {calibration.expected_error:.3f}{kept}")
    return figure


def _unit_axes(axes: Axes, title: str, x: str, y: str) -> None:
    label_axes(axes, title, x, y)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))


def _line(
    axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, dashes: str | tuple, width: float = 1.6
) -> list[Line2D]:
    return axes.plot(x, y, color=colour, linestyle=dashes, linewidth=width)


def _most_objects(objects: np.ndarray) -> list[int]:
    """Classes with objects, at most as many as there are colours, in their own order."""
    order = np.argsort(-objects, kind="stable")[: len(PALETTE)]
    return sorted(index for index in order.tolist() if objects[index])


def _which(shown: Sequence[int], objects: np.ndarray) -> str:
    """What the title says of the choice."""
    there = int((objects > 0).sum())
    return ", by class" if there <= len(shown) else f",\nthe {len(shown)} classes with the most objects of {there}"
