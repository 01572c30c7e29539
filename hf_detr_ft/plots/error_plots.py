"""Which classes are confused, and what each kind of error costs."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hf_detr_ft.evaluation.confusion import Confusion
from hf_detr_ft.evaluation.tide import TideErrors
from hf_detr_ft.plots.labels import SIZE, compact, label_axes, say, short_names
from hf_detr_ft.plots.style import FAINT, INK, PALETTE, new_figure

MOST_CLASSES = 10
"""In a confusion matrix; of more the most confused ones are shown."""
CELL = 0.34
"""Side of a cell, in inches."""
NAME = 75
"""Width of a class's name beside it, in points."""
RIGHT, WRONG = PALETTE[0], PALETTE[1]


def plot_confusion(confusion: Confusion) -> Figure:
    """Objects and kept detections by true class (rows) and predicted class (columns).

    Of more than 10 classes those with the most mistakes are shown, objects taken for another class before objects
    missed and detections on background; then a row does not hold all objects of its class.
    """
    classes = len(confusion.names)
    shown = _most_confused(confusion.counts)
    cells = [*shown, classes]
    names = short_names(confusion.names, NAME)
    side = max(CELL * len(cells), 1.6)
    figure, axes = new_figure(max(4.2, side + 2.0), max(3.0, side + 1.5))
    some = "" if len(shown) == classes else f",\nthe {len(shown)} most confused of {classes} classes"
    label_axes(axes, f"Confusion, scores above {confusion.threshold:.3f}{some}", "Predicted", "True")
    axes.set(xlim=(-0.5, len(shown) + 0.5), ylim=(len(shown) + 0.5, -0.5), aspect="equal")
    for axis, last in ((axes.xaxis, "nothing"), (axes.yaxis, "background")):
        axis.set_ticks(range(len(cells)), [*(names[index] for index in shown), last], parse_math=False)
    axes.tick_params(axis="x", rotation=90 if len(cells) > 3 else 0)
    axes.tick_params(length=0)
    axes.grid(False)
    totals = confusion.counts.sum(axis=1)
    for y, row in enumerate(cells):
        for x, column in enumerate(cells):
            count = int(confusion.counts[row, column])
            if count:
                share = count / int(totals[row])
                colour = RIGHT if row == column else WRONG
                # Never so strong that the number on it cannot be read.
                cell = Rectangle((x - 0.5, y - 0.5), 1, 1, linewidth=0, facecolor=colour, alpha=0.12 + 0.5 * share)
                axes.add_patch(cell)
                axes.text(x, y, compact(count), ha="center", va="center", color=INK, fontsize=SIZE)
    for place in np.arange(len(cells) + 1) - 0.5:
        axes.axhline(place, color=FAINT, alpha=0.25, linewidth=0.6)
        axes.axvline(place, color=FAINT, alpha=0.25, linewidth=0.6)
    if not confusion.counts.any():
        say(axes, "No objects, nothing predicted")
    return figure


def plot_errors(errors: TideErrors) -> Figure:
    """What fixing each kind of error alone would add to AP50, and how often it is made."""
    figure, axes = new_figure()
    now = "undefined without objects" if errors.ap_50 is None else f"now {errors.ap_50:.3f}"
    how_many = f"(how many, with scores above {errors.threshold:.3f})"
    label_axes(axes, "What fixing each kind of error would gain", f"AP50 to gain ({now})\n{how_many}", "")
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
        end = (kind.gain or 0.0, place)
        text = f"{gain}  ({kind.kept:,})"
        axes.annotate(text, end, (4, 0), textcoords="offset points", va="center", color=INK, fontsize=SIZE)
    return figure


def _most_confused(counts: np.ndarray) -> list[int]:
    """Positions of the classes to show, in their own order."""
    classes = len(counts) - 1
    if classes <= MOST_CLASSES:
        return list(range(classes))
    across = counts[:-1, :-1] - np.diag(np.diag(counts)[:-1])
    mistaken = across.sum(axis=0) + across.sum(axis=1)
    background = counts[:-1, -1] + counts[-1, :-1]
    return sorted(np.lexsort((-background, -mistaken))[:MOST_CLASSES].tolist())
