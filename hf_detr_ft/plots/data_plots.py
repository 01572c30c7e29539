"""What the data are, as figures: classes, objects, shapes and places of one split or of two beside each other.

All but `plot_positions` take the splits by name, such as `{"training": …, "validation": …}`, at most as many as the
palette has colours, and compare shares: splits are rarely of one size.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hf_detr_ft.data.statistics import SplitStatistics
from hf_detr_ft.formatting import percent
from hf_detr_ft.plots.histogram import (
    BINS,
    LETTERS,
    add_legend,
    label_axes,
    log_edges,
    plot_histogram,
    say_instead,
    set_log_ticks,
)
from hf_detr_ft.plots.style import FAINT, INK, PALETTE, new_figure
from hf_detr_ft.plots.text_layout import is_readable, readable, shorten, text_width

MOST_CLASSES = 30
"""That have a bar of their own; the others share one."""
ROW = 0.22
"""Height of a class in inches."""
LONGEST_NAME = 110
"""Width of a class's name in points."""
WIDE_RANGE = 200
"""From which ratio of the largest to the smallest bar on they stand on a logarithmic axis."""
LARGEST_DISC = 500
"""Area in square points of the disc of a size that all images have."""
MOST_SIZES = 300
"""Of images, each drawn where it is: a page cannot hold a disc for each of 100,000 images."""

Splits = Mapping[str, SplitStatistics]


def plot_class_balance(splits: Splits) -> Figure:
    """A bar per class and split: its share of the split's objects, with the number of objects beside it.

    Classes are sorted by their share of all splits' objects; those behind the first 30 are one bar. The axis becomes
    logarithmic where bars differ by more than a factor of 200.
    """
    names, counts = _count_classes(splits)
    figure, axes = new_figure(height=0.85 + ROW * max(4, len(names)))
    axes.set_title("Objects per class", color=INK, fontsize=LETTERS + 1)
    totals = np.array([split.objects for split in splits.values()])
    if not totals.sum():
        return say_instead(figure, axes, "no objects")
    percentages = 100 * counts / np.maximum(totals, 1)[:, None]
    thickness = 0.8 / len(splits)
    for index in range(len(splits)):
        places = np.arange(len(names)) + (index - (len(splits) - 1) / 2) * thickness
        axes.barh(places, percentages[index], 0.9 * thickness, color=PALETTE[index])
    positive = percentages[percentages > 0]
    wide = positive.max() > WIDE_RANGE * positive.min()
    if wide:
        axes.set(xscale="log", xlim=(positive.min() / 2, 100))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    _write_counts(axes, counts)
    label_axes(axes, "Share in % (logarithmic), number" if wide else "Share of objects in %, number", "")
    add_legend(figure, [_with_objects(name, splits) for name in splits])
    return figure


def plot_objects_per_image(splits: Splits) -> Figure:
    """A histogram over images of the number of their objects; crowd regions do not count."""
    values = {_with_images(name, splits): split.objects_per_image for name, split in splits.items()}
    most = max((int(counts.max()) for counts in values.values() if counts.size), default=0)
    step = max(1, -(-most // (2 * BINS)))
    edges = np.concatenate([[-0.5], np.arange(1, most + step + 1, step) - 0.5])  # none is a bin of its own
    figure = plot_histogram(values, edges, "Objects per image", "Objects on an image", "Images in %", "no images")
    figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    return figure


def plot_object_sizes(splits: Splits) -> Figure:
    """A histogram over objects of their size relative to the image: the square root of box area over image area."""
    values = {_with_objects(name, splits): split.relative_sizes for name, split in splits.items()}
    edges = log_edges(values.values(), (0.01, 1.0))
    figure = plot_histogram(values, edges, "Size of objects", "Side of an object in % of the image's", "Objects in %")
    if figure.axes[0].has_data():
        set_log_ticks(figure.axes[0], edges, lambda value: f"{100 * value:g}", (1, 2, 5))
    return figure


def plot_resized_sides(splits: Splits) -> Figure:
    """A histogram over objects of their short side in the resized image, and what is less than a cell of the map.

    DETR loses objects that are small in the image that it sees, whatever their size in the photo.
    """
    values = {_with_objects(name, splits): split.short_sides_px for name, split in splits.items()}
    edges = log_edges(values.values(), (8.0, 512.0), base=2, limits=(1.0, 4096.0))
    figure = plot_histogram(
        values, edges, "Objects as the model sees them", "Short side in pixels of the resized image", "Objects in %"
    )
    axes = figure.axes[0]
    if axes.has_data():
        set_log_ticks(axes, edges, lambda value: f"{value:g}", (1,), base=2)
        _mark_cell(axes, splits)
    return figure


def plot_aspect_ratios(splits: Splits) -> Figure:
    """A histogram over objects of width over height of their boxes."""
    values = {_with_objects(name, splits): split.aspect_ratios for name, split in splits.items()}
    edges = log_edges(values.values(), (1 / 4, 4.0), base=2, limits=(1 / 32, 32.0))
    figure = plot_histogram(values, edges, "Shape of objects", "Width : height of an object's box", "Objects in %")
    if figure.axes[0].has_data():
        set_log_ticks(figure.axes[0], edges, lambda v: f"{v:g}:1" if v >= 1 else f"1:{1 / v:g}", (1,), base=2)
    return figure


def plot_positions(statistics: SplitStatistics, name: str = "") -> Figure:
    """A map of where on the image objects are, see `SplitStatistics.positions`; as high and wide as the median image.

    Args:
        statistics: of one split.
        name: of the split, for the title.
    """
    figure, axes = new_figure()
    title = f"Where objects are: {name}" if name else "Where objects are"
    axes.set_title(title, color=INK, fontsize=LETTERS + 1)
    if not statistics.placed.any():
        return say_instead(figure, axes, "no objects")
    shape = float(np.clip(np.median(statistics.image_aspect_ratios), 0.5, 2))
    axes.grid(visible=False)
    shown = axes.imshow(statistics.positions, cmap="cividis", vmin=0, extent=(0, 100, 100, 0), interpolation="nearest")
    axes.set_aspect(1 / shape)
    axes.set(xticks=(0, 50, 100), yticks=(0, 50, 100))
    label_axes(axes, "From the left in % of the width", "From the top in % of the height")
    scale = figure.colorbar(shown, ax=axes, shrink=0.9)
    scale.set_label("Times an even spread", color=INK, fontsize=LETTERS)
    scale.ax.tick_params(colors=INK, labelsize=LETTERS)
    scale.outline.set_visible(False)
    return figure


def plot_image_sizes(splits: Splits) -> Figure:
    """Width and height of images, a disc for each size that occurs, its area in proportion to their number."""
    figure, axes = new_figure()
    axes.set_title("Size of images", color=INK, fontsize=LETTERS + 1)
    most = max((int(split.image_sizes_px.max()) for split in splits.values() if split.images), default=0)
    if not most:
        return say_instead(figure, axes, "no images")
    limit = 1.15 * most
    axes.plot([0, limit], [0, limit], color=FAINT, linewidth=1, linestyle=(0, (4, 2)))
    for index, split in enumerate(splits.values()):
        if not split.images:
            continue
        sizes_px, counts = _merge_sizes(split.image_sizes_px, limit / 60)
        areas = np.maximum(12, LARGEST_DISC * counts / split.images)
        axes.scatter(sizes_px[:, 1], sizes_px[:, 0], areas, color=PALETTE[index], alpha=0.6, linewidths=0)
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    label_axes(axes, "Width in pixels", "Height in pixels")
    add_legend(figure, [_with_images(name, splits) for name in splits])
    return figure


def _count_classes(splits: Splits) -> tuple[list[str], np.ndarray]:
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
    sorted_names = [_shown_name(names[ids[label]], label) for label in order]
    counts = counts[:, order]
    if len(ids) <= MOST_CLASSES + 1:
        return sorted_names, counts
    rest = counts[:, MOST_CLASSES:]
    empty = int((rest.sum(axis=0) == 0).sum())
    text = f"{rest.shape[1]} others" + (f", {empty} empty" if empty else "")
    rows = np.concatenate([counts[:, :MOST_CLASSES], rest.sum(axis=1, keepdims=True)], axis=1)
    return [*sorted_names[:MOST_CLASSES], text], rows


def _shown_name(name: str, label: int) -> str:
    """As it can be written: short, in letters that the font has, and no formula, as two dollars would make it."""
    text = readable(name) if is_readable(name) else f"class {label}"
    return shorten(text, LETTERS, LONGEST_NAME).replace("$", r"\$")


def _merge_sizes(sizes_px: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Different sizes and how many images have each; where they are many, those of a cell of the plane are one."""
    different, counts = np.unique(sizes_px, axis=0, return_counts=True)
    if len(different) <= MOST_SIZES:
        return different, counts
    cells, counts = np.unique(np.floor(sizes_px / cell), axis=0, return_counts=True)
    return (cells + 0.5) * cell, counts


def _write_counts(axes: Axes, counts: np.ndarray) -> None:
    """A column of numbers for each split, right of the panel, in the order of the legend."""
    right = 0.0
    for column in counts:
        texts = [f"{count:,}" for count in column.tolist()]
        right += max(text_width(text, LETTERS) for text in texts) + LETTERS
        for row, text in enumerate(texts):
            axes.annotate(
                text,
                (1, row),
                (right, 0),
                ("axes fraction", "data"),
                "offset points",
                color=INK,
                fontsize=LETTERS,
                ha="right",
                va="center",
                annotation_clip=False,
            )


def _mark_cell(axes: Axes, splits: Splits) -> None:
    """A line at one step of the feature map, and what share of each split's objects is below it."""
    stride = next(iter(splits.values())).stride
    axes.axvline(stride, color=INK, linewidth=1, linestyle=(0, (4, 2)))
    shares = [f"{name} {percent(split.below_cell / split.objects)}" for name, split in splits.items() if split.objects]
    text = "\n".join(["below one cell", "of the feature map:", *shares])
    low, high = np.log(axes.get_xlim())
    side = 1 if np.log(stride) < (low + high) / 2 else -1
    axes.annotate(
        text,
        (stride, 1),
        (5 * side, -2),
        ("data", "axes fraction"),
        "offset points",
        color=INK,
        fontsize=LETTERS,
        ha="left" if side > 0 else "right",
        va="top",
    )
    top = axes.get_ylim()[1]
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= top])
    axes.set_ylim(top=1.6 * top)


def _with_images(name: str, splits: Splits) -> str:
    count = splits[name].images
    return f"{name}, {count:,} {'image' if count == 1 else 'images'}"


def _with_objects(name: str, splits: Splits) -> str:
    count = splits[name].objects
    return f"{name}, {count:,} {'object' if count == 1 else 'objects'}"
