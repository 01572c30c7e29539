"""Figures of errors: the classes that are confused, and the AP that each kind of error costs."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hf_detr_ft.evaluation.confusion import Confusion
from hf_detr_ft.evaluation.tide import TideErrors
from hf_detr_ft.plots.style import FAINT, INK, LETTERS, PALETTE, compact, new_figure, short_names, write_instead
from hf_detr_ft.plots.text_layout import text_width

MOST_CONFUSED = 10
"""Classes in a confusion matrix; of more the most confused ones are shown."""
CELL_SIDE = 0.34
"""Side of a cell, in inches."""
CELL_NAME = 75
"""Width of a class's name beside it, in points."""
DIAGONAL, OFF_DIAGONAL = PALETTE[0], PALETTE[1]


def plot_confusion(confusion: Confusion) -> Figure:
    """Objects and kept detections by true class (rows) and predicted class (columns).

    Of more than 10 classes those with the most confusions are shown, objects taken for another class before objects
    missed and detections on background; then a row does not hold all objects of its class.
    """
    classes = len(confusion.names)
    shown = _most_confused(confusion.counts)
    cells = [*shown, classes]
    names = short_names(confusion.names, CELL_NAME)
    side = max(CELL_SIDE * len(cells), 1.6)
    some = "" if len(shown) == classes else f",\nthe {len(shown)} most confused of {classes} classes"
    title = f"Confusion, scores above {confusion.threshold:.3f}{some}"
    figure, axes = new_figure(title, "Predicted", "True", width=max(4.2, side + 2.0), height=max(3.0, side + 1.5))
    axes.set(xlim=(-0.5, len(shown) + 0.5), ylim=(len(shown) + 0.5, -0.5), aspect="equal", anchor="W")
    predicted, true = ([*(names[index] for index in shown), last] for last in ("nothing", "background"))
    axes.set_xticks(range(len(cells)), predicted, parse_math=False)
    axes.set_yticks(range(len(cells)), true, parse_math=False)
    is_wide = max(text_width(name, LETTERS) for name in predicted) > 72 * side / len(cells)
    axes.tick_params(axis="x", rotation=90 if is_wide else 0)
    axes.tick_params(length=0)
    axes.grid(False)
    edges = np.arange(len(cells) + 1) - 0.5
    grid: dict[str, Any] = {"color": FAINT, "alpha": 0.25, "linewidth": 0.6}
    axes.hlines(edges, edges[0], edges[-1], **grid)
    axes.vlines(edges, edges[0], edges[-1], **grid)
    totals = confusion.counts.sum(axis=1)
    for y, row in enumerate(cells):
        for x, column in enumerate(cells):
            count = int(confusion.counts[row, column])
            if count:
                share = count / int(totals[row])
                colour = DIAGONAL if row == column else OFF_DIAGONAL
                # Never so strong that the number on it cannot be read.
                cell = Rectangle((x - 0.5, y - 0.5), 1, 1, linewidth=0, facecolor=colour, alpha=0.12 + 0.5 * share)
                axes.add_patch(cell)
                axes.text(x, y, compact(count), ha="center", va="center", color=INK, fontsize=LETTERS)
    if not confusion.counts.any():
        write_instead(axes, "No objects, nothing predicted")
    return figure


def plot_errors(errors: TideErrors) -> Figure:
    """AP50 that fixing each kind of error alone would add, and how often it is made."""
    now = "undefined without objects" if errors.ap_50 is None else f"now {errors.ap_50:.3f}"
    how_many = f"(how many, with scores above {errors.threshold:.3f})"
    figure, axes = new_figure("What fixing each kind of error would gain", f"AP50 to gain ({now})\n{how_many}")
    gains = [kind.gain or 0.0 for kind in errors.kinds.values()]
    places = range(len(gains))
    axes.barh(places, gains, 0.6, color=PALETTE[1], alpha=0.75)
    axes.set_yticks(places, [name.capitalize() for name in errors.kinds])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlim(0, 1.6 * max(0.05, *gains))
    for place, kind in zip(places, errors.kinds.values(), strict=True):
        gain = "n/a" if kind.gain is None else f"{kind.gain:+.3f}"
        text, end = f"{gain}  ({kind.kept:,})", (kind.gain or 0.0, place)
        axes.annotate(text, end, (4, 0), textcoords="offset points", va="center", color=INK, fontsize=LETTERS)
    return figure


def _most_confused(counts: np.ndarray) -> list[int]:
    """Positions of the classes to show, in their own order."""
    classes = len(counts) - 1
    if classes <= MOST_CONFUSED:
        return list(range(classes))
    across = counts[:-1, :-1] - np.diag(np.diag(counts)[:-1])
    confused = across.sum(axis=0) + across.sum(axis=1)
    background = counts[:-1, -1] + counts[-1, :-1]
    return sorted(np.lexsort((-background, -confused))[:MOST_CONFUSED].tolist())
