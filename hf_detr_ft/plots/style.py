"""Look of the report's figures: colours, sizes, layout, titles and legends; their ink takes the page's colour."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine
from matplotlib.transforms import ScaledTranslation
from PIL import Image

from hf_detr_ft.plots.text_layout import measuring_renderer, readable, shorten, text_width, writable_names

INK = "#1b1f24"
"""Colour of text, axes and single lines; the page replaces it by its own ink."""
FAINT = "#8a9099"
"""Colour of grids and secondary text; replaced likewise."""
PALETTE = ("#3b82c4", "#e07b39", "#2f9e6e", "#b65fb3", "#c9a227", "#d1495b", "#5b6ee1", "#7a8b2e")
"""Colours of series: readable on white and on black, and told apart in this order by colour-blind people, too."""
LETTERS = 9
"""Height of letters in points; a title's are one more."""
TILE = 480
"""Longer side of an image on a sheet, in pixels."""


class ShownFigure(Figure):
    """Figure that a notebook shows where it is the value of a cell: on white, also in a dark theme.

    A notebook shows matplotlib's own only once pyplot has been imported.
    """

    def _repr_png_(self) -> bytes:
        return to_png(self)


def to_png(figure: Figure) -> bytes:
    """PNG of a figure, pixel for pixel, on white and without alpha."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    ground = Image.new("RGBA", drawn.size, "white")
    ground.alpha_composite(drawn)
    stream = io.BytesIO()
    ground.convert("RGB").save(stream, format="PNG")
    return stream.getvalue()


class OnePassLayout(LayoutEngine):
    """Fits the axes of a figure, their labels, and the legend below them; texts are measured once as a rule.

    Constrained layout measures all of them twice, and matplotlib the tick labels once more to put the axes' labels
    beside them: more than half of the time that a small figure takes.
    """

    _adjust_compatible = True
    _colorbar_gridspec = True
    margin = 4
    """Space at the figure's border and between labels, in points."""

    def execute(self, fig: Figure) -> None:
        """Moves the only axes of a figure of `new_figure`."""
        (axes,) = fig.axes
        for _ in range(3):
            ticks = [*axes.get_xticks(), *axes.get_yticks()]
            self._fit(fig, axes)
            # Axes of another size can have other ticks, whose labels are wider.
            if ticks == [*axes.get_xticks(), *axes.get_yticks()]:
                return

    def _fit(self, fig: Figure, axes: Axes) -> None:
        renderer, point = measuring_renderer(fig.dpi), fig.dpi / 72
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_label_coords(0.5, 0.5)  # inside, where it does not count
        around, inner = axes.get_tightbbox(renderer, for_layout_only=True), axes.bbox
        assert around is not None
        left, below = inner.x0 - around.x0, inner.y0 - around.y0
        labels = [axis.label.get_window_extent(renderer) for axis in (axes.xaxis, axes.yaxis)]
        legend = sum(legend.get_window_extent(renderer).height for legend in fig.legends)
        gap, width, height = self.margin * point, *fig.bbox.size
        right = max(0.1, 1 - (around.x1 - inner.x1 + gap) / width)
        top = max(0.1, 1 - (around.y1 - inner.y1 + gap) / height)
        # In a figure that is too small for its texts the axes are a tenth of it.
        fig.subplots_adjust(
            left=min(right - 0.1, (left + labels[1].width + 2 * gap) / width),
            bottom=min(top - 0.1, (below + labels[0].height + legend + 2 * gap) / height),
            right=right,
            top=top,
        )
        for axis, x, y in ((axes.xaxis, 0.0, below + gap / 2), (axes.yaxis, left + gap / 2, 0.0)):
            beside = ScaledTranslation(-x / fig.dpi, -y / fig.dpi, fig.dpi_scale_trans)
            axis.set_label_coords(0.5 * (y > 0), 0.5 * (x > 0), axes.transAxes + beside)


def new_figure(
    title: str = "", x: str = "", y: str = "", *, width: float = 4.2, height: float = 3.0
) -> tuple[Figure, Axes]:
    """Figure of one panel, in inches, on a transparent ground."""
    figure = ShownFigure(figsize=(width, height), layout=OnePassLayout())
    figure.patch.set_alpha(0.0)
    figure.subplots_adjust(left=0.12, bottom=0.26, right=0.97, top=0.9)  # about what the layout will find
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=LETTERS)
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    label_axes(axes, title, x, y)
    return figure, axes


def label_axes(axes: Axes, title: str, x: str, y: str) -> None:
    """Writes title and labels in ink; the title stands over the left end."""
    # Given its height, matplotlib does not look for a free one each time.
    axes.set_title(title, loc="left", y=1.0, color=INK, fontsize=LETTERS + 1)
    axes.set_xlabel(x, color=INK, fontsize=LETTERS)
    axes.set_ylabel(y, color=INK, fontsize=LETTERS)


def add_legend(axes: Axes, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Adds a legend below the axes, where it covers nothing, in as few lines as there is room for.

    With more than two lines it makes the figure higher.
    """
    widths = [text_width(readable(label), LETTERS) + 3.6 * LETTERS for label in labels]
    figure = axes.get_figure(root=True)
    assert figure is not None
    room = 72 * figure.get_figwidth()
    counts = [-(-len(labels) // lines) for lines in range(1, len(labels) + 1)]
    columns = next((n for n in counts if sum(column.max() for column in np.array_split(widths, n)) < room), 1)
    lines = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, lines - 2))
    legend = figure.legend(
        handles,
        labels,
        loc="lower left",
        borderpad=0.2,
        borderaxespad=0.2,
        ncols=columns,
        fontsize=LETTERS,
        frameon=False,
        labelcolor=INK,
        handlelength=1.6,
        columnspacing=1.2,
        labelspacing=0.3,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a class can be called US$ or $100


def write_instead(axes: Axes, text: str, alone: bool = False) -> None:
    """Writes into the middle why there is nothing to see; alone without the axes."""
    if alone:
        axes.set_axis_off()
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=INK, fontsize=LETTERS)


def short_names(names: Sequence[str], width: float) -> list[str]:
    """Names of classes in letters that the font has, so many points wide at most."""
    return [shorten(name, LETTERS, width) for name in writable_names(names)]


def compact(count: int) -> str:
    """Number in at most four letters up to ten millions: `940`, `9.4k`, `94k`, `0.9M`."""
    for least, unit, digits in ((99_500, "M", 1), (9_950, "k", 0), (1_000, "k", 1)):
        if count >= least:
            return f"{count / (1_000_000 if unit == 'M' else 1_000):.{digits}f}{unit}"
    return str(count)


def shrink(image: Image.Image, side: int) -> Image.Image:
    """Copy of an image whose longer side has so many pixels; small ones are enlarged."""
    scale = side / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def add_image_axes(figure: Figure, left: float, top: float, width: float, height: float, size: tuple[int, int]) -> Axes:
    """Adds axes without a frame, whose data coordinates are pixels of an image.

    Args:
        figure: without a layout engine.
        left: in inches from the figure's left border; `width` in inches, too.
        top: in inches from the figure's upper border; `height` in inches, too.
        width: see `left`.
        height: see `top`.
        size: (height, width) of the image in pixels.
    """
    across, down = figure.get_size_inches()
    less = 1 - 1e-9  # matplotlib before 3.11 rounds the pixels of an image up, and 333.00000000000006 to 334
    axes = figure.add_axes((left / across, 1 - (top + height) / down, less * width / across, less * height / down))
    axes.set(xlim=(0, size[1]), ylim=(size[0], 0), autoscale_on=False)
    axes.set_axis_off()
    return axes
