"""Histograms of one or several series in the report's style, on plain and logarithmic axes."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hf_detr_ft.plots.style import INK, PALETTE, new_figure

BINS = 24
LETTERS = 9
"""Height of letters in points."""
TICKS = 11
"""Powers of a base on an axis, for which there is room."""


def plot_histogram(
    values: Mapping[str, np.ndarray], edges: np.ndarray, title: str, across: str, up: str, empty: str = "no objects"
) -> Figure:
    """Shares of each series in bins, in percent; what lies beyond the edges is counted in the outermost bins."""
    figure, axes = new_figure()
    axes.set_title(title, color=INK, fontsize=LETTERS + 1)
    if not any(series.size for series in values.values()):
        return say_instead(figure, axes, empty)
    for index, series in enumerate(values.values()):
        counts, _ = np.histogram(np.clip(series, edges[0], edges[-1]), edges)
        heights = 100 * counts / max(1, series.size)
        if not index:
            axes.stairs(heights, edges, fill=True, color=PALETTE[index], alpha=0.45)
        axes.stairs(heights, edges, color=PALETTE[index], linewidth=1.8)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
    label_axes(axes, across, up)
    add_legend(figure, list(values))
    return figure


def log_edges(
    series: Iterable[np.ndarray],
    least: tuple[float, float],
    base: int = 10,
    limits: tuple[float, float] = (0.001, 1.0),
) -> np.ndarray:
    """Edges of bins of equal ratio that reach at least from `least[0]` to `least[1]`, and at most over the limits."""
    found = np.concatenate([np.empty(0), *series])
    low, high = min(least[0], found.min(initial=np.inf)), max(least[1], found.max(initial=0))
    low, high = max(low, limits[0]), min(high, limits[1])
    # Whole powers at both ends, so that ticks fall on edges.
    powers = np.round(np.log([low, high]) / np.log(base), 9)
    return np.logspace(np.floor(powers[0]), np.ceil(powers[1]), BINS + 1, base=base)


def set_log_ticks(
    axes: Axes, edges: np.ndarray, text: Callable[[float], str], steps: Sequence[int], base: int = 10
) -> None:
    """A logarithmic axis with ticks at these multiples of the powers of the base."""
    first, last = np.round(np.log(edges[[0, -1]]) / np.log(base)).astype(int).tolist()
    powers = range(first, last + 1, -(-(last + 1 - first) // TICKS))
    ticks = [value for power in powers for step in steps if (value := step * float(base) ** power) <= edges[-1] * 1.001]
    axes.set_xscale("log", base=base)
    axes.set_xticks(ticks, [text(value) for value in ticks])
    axes.minorticks_off()
    axes.set_xlim(edges[0], edges[-1])


def label_axes(axes: Axes, across: str, up: str) -> None:
    """In the page's ink, with units."""
    axes.set_xlabel(across, color=INK, fontsize=LETTERS)
    axes.set_ylabel(up, color=INK, fontsize=LETTERS)


def add_legend(figure: Figure, texts: Sequence[str]) -> None:
    """Below the panel, where it can hide nothing."""
    samples = [Patch(color=PALETTE[index]) for index in range(len(texts))]
    legend = figure.legend(
        samples, texts, loc="outside lower center", ncols=1, fontsize=LETTERS, frameon=False, labelcolor=INK
    )
    legend.set_gid("legend")


def say_instead(figure: Figure, axes: Axes, text: str) -> Figure:
    """Text instead of a plot of nothing."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, color=INK, fontsize=LETTERS + 2, ha="center", va="center", transform=axes.transAxes)
    return figure
