"""Curves of trainings, one or several laid over each other: losses, AP, learning rates and gradient norm.

A history is Transformers' own: `log_history` of a run's trainer_state.json, a dictionary for each line of its log.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from hf_detr_ft.plots.style import INK, LETTERS, PALETTE, add_legend, new_figure, write_instead
from hf_detr_ft.plots.text_layout import readable, shorten

History = Sequence[Mapping[str, Any]]
Histories = Mapping[str, History]
"""Histories by the name of their run, in the order of their colours."""

LOSS_TITLES = {
    "loss": "Loss, weighted sum",
    "loss_ce": "Class loss",
    "loss_vfl": "Class loss: varifocal (VFL)",
    "loss_mal": "Class loss: matchability-aware (MAL)",
    "loss_bbox": "L1 loss of boxes",
    "loss_giou": "GIoU loss of boxes",
    "loss_mask": "Focal loss of masks",
    "loss_dice": "Dice loss of masks",
    "loss_fgl": "Fine-grained localization (FGL)",
    "loss_ddf": "Distillation focal loss (DDF)",
    "loss_encoder_ce": "Class loss of the encoder",
    "loss_encoder_bbox": "L1 loss of the encoder's boxes",
    "loss_encoder_giou": "GIoU loss of the encoder's boxes",
    "class_error": "Matched objects with the wrong class, %",
    "cardinality_error": "Objects too many or too few, per image",
}
"""Names in the log, and what they are."""
METRIC_TITLES = {
    "map": "AP",
    "map_50": "AP50",
    "map_75": "AP75",
    "map_small": "AP small",
    "map_medium": "AP medium",
    "map_large": "AP large",
    "mask_map": "AP of masks",
    "mask_map_50": "AP50 of masks",
    "mask_map_75": "AP75 of masks",
}
MOST_POINTS = 300
"""Points of a line; of more, neighbours are averaged."""
MARKED = 12
"""Number of points up to which each is marked, so that a single one is seen."""
LEAST_TOP = 0.01
"""Upper end of an axis for AP at least: less is noise, and is not to look like much."""
LEAST_PLAIN = 1e-3
"""Values below it are written with a power of ten each; matplotlib would write that over the title."""
LONGEST_RUN = 130
"""Width of a run's name in a legend, in points."""
DOTTED = (0, (2, 1.5))


def read_series(history: History, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values, `[N]` each, of the log's lines that carry the name; those that are not finite are left out.

    AP that is not defined (-1) is left out, too.
    """
    found = [
        (entry["epoch"], entry[name])
        for entry in history
        if isinstance(entry.get(name), int | float) and math.isfinite(entry[name]) and entry.get("epoch") is not None
    ]
    if name.startswith("eval_m"):
        found = [(epoch, value) for epoch, value in found if value >= 0]
    columns = np.array(found, dtype=float).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def average_neighbours(epochs: np.ndarray, values: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, ...]:
    """Points of which there are at most so many, each the mean of equally many neighbours (but for the last one)."""
    size = math.ceil(len(values) / most)
    if size <= 1:
        return epochs, values
    starts = np.arange(0, len(values), size)
    counts = np.diff([*starts.tolist(), len(values)])
    return tuple(np.add.reduceat(column, starts) / counts for column in (epochs, values))


def plot_losses(histories: Histories, part: str = "loss") -> Figure:
    """Part of the loss, in training and in validation, of the last layer where each has its own.

    Args:
        histories: of one run, where colours tell training from validation, or of several, where they tell the runs.
        part: one of `LOSS_TITLES`.
    """
    figure, axes = new_figure(LOSS_TITLES[part], "Epoch")
    _draw_runs(axes, histories, f"eval_{part}", "validation", part, "training")
    return _finish_curves(figure, axes, "not in the log")


def plot_layers(history: History, part: str = "loss_ce", *, denoising: bool = False) -> Figure:
    """Part of the loss behind every decoder layer, of D-FINE's initial boxes and of the encoder's proposals.

    It is that of the validation where all of these have one there, and else that of the training.

    Args:
        history: of one run.
        part: `loss_ce`, `loss_vfl`, `loss_bbox`, `loss_giou`, …
        denoising: of the queries that are made of the labels with noise, in training.
    """
    stem = f"{part}_dn" if denoising else part
    logged = set().union(*history)
    names = {name.removeprefix("eval_") for name in logged}
    layers = sum(re.fullmatch(rf"{stem}_\d+", name) is not None for name in names)
    numbered = [(f"{stem}_{layer}", f"layer {layer + 1}") for layer in range(layers)]
    last = [] if denoising else [(part, f"layer {layers + 1}, the last" if layers else "last layer")]
    others = [(f"{stem}_initial", "initial boxes"), *([] if denoising else [(f"{part}_enc", "encoder")])]
    series = [(name, label) for name, label in (*numbered, *last, *others) if name in names]
    validated = all(f"eval_{name}" in logged for name, _ in series)
    queries, split = ", denoising" if denoising else "", "validation" if validated else "training"
    figure, axes = new_figure(f"{LOSS_TITLES[part]}{queries}, {split}", "Epoch")
    for number, (name, label) in enumerate(series):
        is_last, is_layer = label.endswith(("last", "last layer")), label.startswith(("layer", "last"))
        colour = PALETTE[0 if is_last else (1 + number) % len(PALETTE)]
        name = f"eval_{name}" if validated else name
        _draw_series(axes, history, name, colour, label, 2 if is_last else 1.2, "-" if is_layer else DOTTED)
    return _finish_curves(figure, axes, "not in the log")


def plot_average_precision(
    histories: Histories, names: Sequence[str] = ("map", "map_50", "map_75"), best_epoch: float | None = None
) -> Figure:
    """AP on the validation images over the epochs.

    Args:
        histories: of one run, or of several where there is one name.
        names: of `METRIC_TITLES`.
        best_epoch: is marked.
    """
    by_size = all(name.endswith(("small", "medium", "large")) for name in names)
    title = (
        METRIC_TITLES[names[0]]
        if len(names) == 1
        else f"Average precision{' by size of the object' if by_size else ''}"
    )
    figure, axes = new_figure(title, "Epoch")
    colours = cycle(PALETTE)
    for run, history in histories.items():
        for name in names:
            _draw_series(
                axes,
                history,
                f"eval_{name}",
                next(colours),
                METRIC_TITLES[name] if len(histories) == 1 else _short(run),
            )
    if axes.lines:
        top = max(float(np.max(np.asarray(line.get_ydata()))) for line in axes.lines)
        axes.set_ylim(0, 1.08 * max(top, LEAST_TOP))
        if best_epoch is not None:
            axes.axvline(best_epoch, color=INK, linewidth=1, linestyle=(0, (1, 2)), label=f"best: epoch {best_epoch:g}")
    return _finish_curves(figure, axes, "no evaluation with such objects took place")


def plot_learning_rates(histories: Histories) -> Figure:
    """Learning rates of transformer and heads, and of the backbone."""
    figure, axes = new_figure("Learning rates", "Epoch")
    _draw_runs(axes, histories, "learning_rate", "transformer and heads", "backbone_learning_rate", "backbone")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if axes.lines:
        axes.set_ylim(bottom=0)
    return _finish_curves(figure, axes, "not in the log")


def plot_gradient_norm(histories: Histories, clipped_to: float | None = None) -> Figure:
    """L2 norm of the gradient before clipping.

    Args:
        histories: of one run or several.
        clipped_to: `training.max_grad_norm`, drawn as a line; None or 0 where nothing is clipped.
    """
    figure, axes = new_figure("Gradient norm before clipping", "Epoch")
    _draw_runs(axes, histories, "grad_norm")
    if axes.lines:
        if clipped_to:
            axes.axhline(clipped_to, color=INK, linewidth=1, linestyle=(0, (4, 2)), label=f"clipped to {clipped_to:g}")
        if all((np.asarray(line.get_ydata(), dtype=float) > 0).all() for line in axes.lines):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
    return _finish_curves(figure, axes, "not in the log")


def _draw_runs(
    axes: Axes, histories: Histories, name: str, label: str = "", dotted: str = "", dotted_label: str = ""
) -> None:
    """Draws one series of each run, and perhaps a dotted one; labels are for a single run, of several their names."""
    single = len(histories) == 1
    for colour, (run, history) in zip(cycle(PALETTE), histories.items(), strict=False):
        if dotted:
            other, text = (PALETTE[1], dotted_label) if single else (colour, "")
            _draw_series(axes, history, dotted, other, text, 1.2, DOTTED)
        _draw_series(axes, history, name, colour, label if single else _short(run), 1.8)
    if dotted and not single:
        axes.plot([], [], color=INK, linewidth=1.2, linestyle=DOTTED, label=f"dotted: {dotted_label}")


def _draw_series(
    axes: Axes, history: History, name: str, colour: str, label: str = "", width: float = 1.6, line: Any = "-"
) -> None:
    """Draws one series, if the history has it."""
    epochs, values = average_neighbours(*read_series(history, name))
    if len(values):
        style = {"linewidth": width, "linestyle": line, "marker": "o" if len(values) <= MARKED else None}
        axes.plot(epochs, values, color=colour, label=label, markersize=3.5, **style)


def _finish_curves(figure: Figure, axes: Axes, instead: str) -> Figure:
    """Adds the legend, or says why there is nothing to see."""
    if not any(len(np.asarray(line.get_xdata())) for line in axes.lines):
        write_instead(axes, instead, alone=True)
        return figure
    if max(map(abs, axes.get_ylim())) < LEAST_PLAIN:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(left=0)
    if axes.dataLim.ymin >= 0 > axes.get_ylim()[0]:
        axes.set_ylim(bottom=0)  # around a value that is 0 throughout matplotlib leaves room on both sides
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=axes.get_xlim()[1] > 3))
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        add_legend(axes, handles, labels)
    return figure


def _short(name: str) -> str:
    return shorten(readable(name), LETTERS, LONGEST_RUN)
