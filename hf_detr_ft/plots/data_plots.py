"""Figures of the data: classes, objects, shapes and places of one split or of several beside each other.

All but `plot_positions` take the splits by name, such as `{"training": …, "validation": …}`, at most as many as the
palette has colours, and compare shares: splits are rarely of one size.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hf_detr_ft.data.statistics import SplitStatistics
from hf_detr_ft.formatting import percent, pluralize
from hf_detr_ft.plots.style import FAINT, INK, LETTERS, PALETTE, add_legend, new_figure, short_names, write_instead
from hf_detr_ft.plots.text_layout import text_width

HISTOGRAM_BINS = 24
MOST_TICKS = 11
"""Powers of a base on an axis, for which there is room."""
MOST_BARS = 30
"""Classes that have a bar of their own; the others share one."""
ROW = 0.22
"""Height of a class in inches."""
LONGEST_CLASS = 110
"""Width of a class's name in points."""
WIDE_RANGE = 200
"""Ratio of the largest to the smallest bar from which on they stand on a logarithmic axis."""
LARGEST_DISC = 500
"""Area in square points of the disc of a size that all images have."""
MOST_SIZES = 300
"""Sizes of images that are drawn where they are: a page cannot hold a disc for each of 100,000 images."""

NamedSplits = Mapping[str, SplitStatistics]


def plot_class_balance(splits: NamedSplits) -> Figure:
    """Bar per class and split: its share of the split's objects, with the number of objects beside it.

    Classes are sorted by their share of all splits' objects; those behind the first 30 are one bar. The axis becomes
    logarithmic where bars differ by more than a factor of 200.
    """
    names, counts = _count_classes(splits)
    height = 0.85 + ROW * max(4, len(names))
    figure, axes = new_figure("Objects per class", "Share of objects in %, number", height=height)
    totals = np.array([split.objects for split in splits.values()])
    if not totals.sum():
        write_instead(axes, "no objects", alone=True)
        return figure
    percentages = 100 * counts / np.maximum(totals, 1)[:, None]
    thickness = 0.8 / len(splits)
    for index in range(len(splits)):
        places = np.arange(len(names)) + (index - (len(splits) - 1) / 2) * thickness
        axes.barh(places, percentages[index], 0.9 * thickness, color=PALETTE[index])
    positive = percentages[percentages > 0]
    if positive.max() > WIDE_RANGE * positive.min():
        axes.set(xscale="log", xlim=(positive.min() / 2, 100), xlabel="Share in % (logarithmic), number")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set(ylim=(len(names) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    _write_counts(axes, counts)
    _name_splits(axes, _with_objects(splits))
    return figure


def plot_objects_per_image(splits: NamedSplits) -> Figure:
    """Histogram over images of the number of their objects; crowd regions do not count."""
    values = [split.objects_per_image for split in splits.values()]
    most = max((int(counts.max()) for counts in values if counts.size), default=0)
    step = max(1, -(-most // (2 * HISTOGRAM_BINS)))
    edges = np.concatenate([[-0.5], np.arange(1, most + step + 1, step) - 0.5])  # none is a bin of its own
    figure, axes = new_figure("Objects per image", "Objects on an image", "Images in %")
    if not _draw_shares(axes, values, edges):
        write_instead(axes, "no images", alone=True)
        return figure
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _name_splits(axes, _with_images(splits))
    return figure


def plot_object_sizes(splits: NamedSplits) -> Figure:
    """Histogram over objects of their size relative to the image: the square root of box area over image area."""
    values = [split.relative_sizes for split in splits.values()]
    figure, axes = new_figure("Size of objects", "Side of an object in % of the image's", "Objects in %")
    edges = _log_edges(values, (0.01, 1.0), (0.001, 1.0), base=10)
    if _draw_objects(axes, splits, values, edges):
        _set_log_ticks(axes, edges, lambda value: f"{100 * value:g}", (1, 2, 5), base=10)
    return figure


def plot_resized_sides(splits: NamedSplits) -> Figure:
    """Histogram over objects of their short side in the resized image, and what is less than a cell of the map.

    DETR loses objects that are small in the image that it sees, whatever their size in the original image.
    """
    values = [split.short_sides_px for split in splits.values()]
    title = "Objects as the model sees them"
    figure, axes = new_figure(title, "Short side in pixels of the resized image", "Objects in %")
    edges = _log_edges(values, (8.0, 512.0), (1.0, 4096.0))
    if _draw_objects(axes, splits, values, edges):
        _set_log_ticks(axes, edges, lambda value: f"{value:g}")
        _mark_cell(axes, splits)
    return figure


def plot_aspect_ratios(splits: NamedSplits) -> Figure:
    """Histogram over objects of width over height of their boxes."""
    values = [split.aspect_ratios for split in splits.values()]
    figure, axes = new_figure("Shape of objects", "Width : height of an object's box", "Objects in %")
    edges = _log_edges(values, (1 / 4, 4.0), (1 / 32, 32.0))
    if _draw_objects(axes, splits, values, edges):
        _set_log_ticks(axes, edges, lambda value: f"{value:g}:1" if value >= 1 else f"1:{1 / value:g}")
    return figure


def plot_positions(statistics: SplitStatistics, name: str = "") -> Figure:
    """Map of where on the image objects are, see `SplitStatistics.positions`; as high and wide as the median image.

    Args:
        statistics: of one split.
        name: of the split, for the title.
    """
    title = f"Where objects are: {name}" if name else "Where objects are"
    figure, axes = new_figure(title, "From the left in % of the width", "From the top in % of the height")
    if not statistics.placed.any():
        write_instead(axes, "no objects", alone=True)
        return figure
    shape = float(np.clip(np.median(statistics.image_aspect_ratios), 0.5, 2))
    axes.grid(visible=False)
    shown = axes.imshow(statistics.positions, cmap="cividis", vmin=0, extent=(0, 100, 100, 0), interpolation="nearest")
    axes.set(aspect=1 / shape, xticks=(0, 50, 100), yticks=(0, 50, 100))
    scale = figure.colorbar(shown, cax=axes.inset_axes((1.05, 0.05, 0.05, 0.9)))
    scale.set_label("Times an even spread", color=INK, fontsize=LETTERS)
    scale.ax.tick_params(colors=INK, labelsize=LETTERS)
    scale.outline.set_visible(False)
    return figure


def plot_image_sizes(splits: NamedSplits) -> Figure:
    """Width and height of images, a disc for each size that occurs, its area in proportion to their number."""
    figure, axes = new_figure("Size of images", "Width in pixels", "Height in pixels")
    most = max((int(split.image_sizes_px.max()) for split in splits.values() if split.images), default=0)
    if not most:
        write_instead(axes, "no images", alone=True)
        return figure
    limit = 1.15 * most
    axes.plot([0, limit], [0, limit], color=FAINT, linewidth=1, linestyle=(0, (4, 2)))
    for index, split in enumerate(splits.values()):
        if split.images:
            sizes_px, counts = _merge_sizes(split.image_sizes_px, limit / 60)
            areas = np.maximum(12, LARGEST_DISC * counts / split.images)
            axes.scatter(sizes_px[:, 1], sizes_px[:, 0], areas, color=PALETTE[index], alpha=0.6, linewidths=0)
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    _name_splits(axes, _with_images(splits))
    return figure


def _name_splits(axes: Axes, texts: Sequence[str]) -> None:
    add_legend(axes, [Patch(color=PALETTE[index]) for index in range(len(texts))], texts)


def _with_images(splits: NamedSplits) -> list[str]:
    return [f"{name}, {pluralize(split.images, 'image')}" for name, split in splits.items()]


def _with_objects(splits: NamedSplits) -> list[str]:
    return [f"{name}, {pluralize(split.objects, 'object')}" for name, split in splits.items()]


def _draw_shares(axes: Axes, values: Sequence[np.ndarray], edges: np.ndarray) -> bool:
    """Draws shares of each series in bins, in percent; what lies beyond the edges is counted in the outermost bins.

    Returns:
        True where there is something to draw.
    """
    if not any(series.size for series in values):
        return False
    for index, series in enumerate(values):
        counts, _ = np.histogram(np.clip(series, edges[0], edges[-1]), edges)
        heights = 100 * counts / max(1, series.size)
        if not index:
            axes.stairs(heights, edges, fill=True, color=PALETTE[index], alpha=0.45)
        axes.stairs(heights, edges, color=PALETTE[index], linewidth=1.8)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, None))
    return True


def _draw_objects(axes: Axes, splits: NamedSplits, values: Sequence[np.ndarray], edges: np.ndarray) -> bool:
    """Draws a histogram over objects; returns False where there are none."""
    if not _draw_shares(axes, values, edges):
        write_instead(axes, "no objects", alone=True)
        return False
    _name_splits(axes, _with_objects(splits))
    return True


def _log_edges(
    values: Sequence[np.ndarray], least: tuple[float, float], limits: tuple[float, float], base: int = 2
) -> np.ndarray:
    """Edges of bins of equal ratio that reach at least from `least[0]` to `least[1]`, and at most over the limits."""
    found = np.concatenate([np.empty(0), *values])
    ends = min(least[0], found.min(initial=np.inf)), max(least[1], found.max(initial=0))
    # Whole powers at both ends, so that ticks fall on edges.
    powers = np.round(np.log(np.clip(ends, *limits)) / np.log(base), 9)
    return np.logspace(np.floor(powers[0]), np.ceil(powers[1]), HISTOGRAM_BINS + 1, base=base)


def _set_log_ticks(
    axes: Axes, edges: np.ndarray, text: Callable[[float], str], steps: Sequence[int] = (1,), base: int = 2
) -> None:
    """Makes the axis logarithmic, with ticks at these multiples of the powers of the base."""
    first, last = np.round(np.log(edges[[0, -1]]) / np.log(base)).astype(int).tolist()
    powers = range(first, last + 1, -(-(last + 1 - first) // MOST_TICKS))
    ticks = [value for power in powers for step in steps if (value := step * float(base) ** power) <= edges[-1] * 1.001]
    axes.set_xscale("log", base=base)
    axes.set_xticks(ticks, [text(value) for value in ticks])
    axes.minorticks_off()
    axes.set_xlim(edges[0], edges[-1])


def _count_classes(splits: NamedSplits) -> tuple[list[str], np.ndarray]:
    """Names of what has a bar, and `[S, R]` objects of each split."""
    names: dict[int, str] = {}
    for split in splits.values():
        names |= dict(zip(split.label_map.category_ids, split.label_map.names, strict=True))
    ids = sorted(names)
    counts = np.zeros((len(splits), len(ids)), dtype=np.int64)
    for row, split in zip(counts, splits.values(), strict=True):
        row[np.searchsorted(ids, split.label_map.category_ids)] = split.objects_per_class
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    order = np.argsort(-(counts / totals).sum(axis=0), kind="stable")
    shown = short_names([names[id_] for id_ in ids], LONGEST_CLASS)
    sorted_names, counts = [shown[label] for label in order], counts[:, order]
    if len(ids) <= MOST_BARS + 1:
        return sorted_names, counts
    rest = counts[:, MOST_BARS:]
    empty = int((rest.sum(axis=0) == 0).sum())
    text = f"{rest.shape[1]} others" + (f", {empty} empty" if empty else "")
    rows = np.concatenate([counts[:, :MOST_BARS], rest.sum(axis=1, keepdims=True)], axis=1)
    return [*sorted_names[:MOST_BARS], text], rows


def _merge_sizes(sizes_px: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Different sizes and how many images have each; where they are many, those of a cell of the plane are one."""
    different, counts = np.unique(sizes_px, axis=0, return_counts=True)
    if len(different) <= MOST_SIZES:
        return different, counts
    cells, counts = np.unique(np.floor(sizes_px / cell), axis=0, return_counts=True)
    return (cells + 0.5) * cell, counts


def _write_counts(axes: Axes, counts: np.ndarray) -> None:
    """Writes a column of numbers for each split, right of the panel, in the order of the legend."""
    style: dict[str, Any] = {"color": INK, "fontsize": LETTERS, "ha": "right", "va": "center", "annotation_clip": False}
    right = 0.0
    for column in counts:
        texts = [f"{count:,}" for count in column.tolist()]
        right += max(text_width(text, LETTERS) for text in texts) + LETTERS
        for row, text in enumerate(texts):
            axes.annotate(text, (1, row), (right, 0), ("axes fraction", "data"), "offset points", **style)


def _mark_cell(axes: Axes, splits: NamedSplits) -> None:
    """Draws a line at one step of the feature map, and says what share of each split's objects is below it."""
    stride = next(iter(splits.values())).stride
    axes.axvline(stride, color=INK, linewidth=1, linestyle=(0, (4, 2)))
    shares = [f"{name} {percent(split.below_cell / split.objects)}" for name, split in splits.items() if split.objects]
    text = "\n".join(["below one cell", "of the feature map:", *shares])
    low, high = np.log(axes.get_xlim())
    is_left = np.log(stride) < (low + high) / 2
    place = (5 if is_left else -5, -2)
    style: dict[str, Any] = {"color": INK, "fontsize": LETTERS, "ha": "left" if is_left else "right", "va": "top"}
    axes.annotate(text, (stride, 1), place, ("data", "axes fraction"), "offset points", **style)
    top = axes.get_ylim()[1]
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= top])
    axes.set_ylim(top=1.6 * top)
