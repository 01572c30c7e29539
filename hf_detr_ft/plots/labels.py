"""Titles, legends and classes' names in figures of the report."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_detr_ft.plots.style import INK
from hf_detr_ft.plots.text_layout import is_readable, readable, shorten

SIZE = 9
"""Of letters, in points; a title's are one more."""


def label_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Title and labels in ink; the title stands over the left end."""
    axes.set_title(title, loc="left", color=INK, fontsize=SIZE + 1)
    axes.set_xlabel(x, color=INK, fontsize=SIZE)
    axes.set_ylabel(y, color=INK, fontsize=SIZE)


def add_legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], columns: int) -> None:
    """Below the axes, where it covers nothing."""
    legend = figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=columns,
        fontsize=SIZE,
        frameon=False,
        labelcolor=INK,
        handlelength=1.6,
        columnspacing=1.2,
        labelspacing=0.3,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a class can be called US$ or $100


def say(axes: Axes, text: str) -> None:
    """Instead of data, in the middle."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=INK, fontsize=SIZE)


def short_names(names: Sequence[str], width: float) -> list[str]:
    """Names of classes that are so wide at most, in points, and that the font can write."""
    shown = (name if is_readable(name) else f"class {label}" for label, name in enumerate(names))
    return [shorten(readable(name), SIZE, width) for name in shown]


def compact(count: int) -> str:
    """At most four letters up to ten millions: `940`, `9.4k`, `94k`, `0.9M`."""
    for least, unit, digits in ((99_500, "M", 1), (9_950, "k", 0), (1_000, "k", 1)):
        if count >= least:
            return f"{count / (1_000_000 if unit == 'M' else 1_000):.{digits}f}{unit}"
    return str(count)
