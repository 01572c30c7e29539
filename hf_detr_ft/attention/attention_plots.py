"""Attention over a photo: what a detection's query reads in the decoder, and a point's place in the encoder.

The photo is grey and dark below a map, so that all colour is attention; the brightest colour of a map is its own
largest weight. The figures of one panel are for a page, `plot_attention` is a sheet of all of them.
"""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from hf_detr_ft.attention.attention_panels import (
    POINTS,
    SCALE,
    TITLE,
    WIDTH,
    add_photo_axes,
    draw_detection,
    draw_places,
    draw_point,
    draw_scale,
    photo_size,
)
from hf_detr_ft.attention.image_attention import ImageAttention
from hf_detr_ft.plots.style import INK
from hf_detr_ft.plots.text_layout import readable, shorten

PANEL = 3.1
"""Width of a panel of the sheet, in inches."""
GAP, HEADING = 0.12, 0.36
"""Heights of the space between panels and of a line over panels, in inches."""
LETTERS = 12
"""Height of the letters of such a line, in points."""


def plot_cross_attention(
    image: Image.Image,
    attention: ImageAttention,
    index: int,
    names: Sequence[str],
    *,
    layer: int = -1,
    head: int | None = None,
) -> Figure:
    """What the decoder reads for one detection, and its box.

    Args:
        image: RGB, upright, at any resolution.
        attention: of this image.
        index: the detection's place in `attention`.
        names: of the classes, by label.
        layer: of the decoder; the last one by default.
        head: of that layer; the mean over all by default.
    """
    figure, axes = _new_photo_figure(attention, SCALE)
    draw_detection(axes, image, attention, index, names, layer, head)
    draw_scale(figure, float(attention.cross_map(index, layer, head).max()))
    return figure


def plot_self_attention(image: Image.Image, attention: ImageAttention, index: int, names: Sequence[str]) -> Figure:
    """What the encoder reads for the place of one point, and the point.

    Args:
        image: RGB, upright, at any resolution.
        attention: of this image.
        index: the point's place in `attention`.
        names: of the classes, by label.
    """
    figure, axes = _new_photo_figure(attention, SCALE)
    draw_point(axes, image, attention, index, names)
    draw_scale(figure, float(attention.encoder[index].max()))
    return figure


def plot_places(image: Image.Image, attention: ImageAttention) -> Figure:
    """The photo as it is, with the boxes of the detections, numbered from 1, and the points, from p1.

    Args:
        image: RGB, upright, at any resolution.
        attention: of this image.
    """
    figure, axes = _new_photo_figure(attention, GAP)
    draw_places(axes, image, attention)
    return figure


def plot_attention(image: Image.Image, attention: ImageAttention, names: Sequence[str], title: str) -> Figure:
    """A sheet: the photo and the decoder's attention for each detection, below it the encoder's from each point.

    Where points are the centres of the detections, each map lies below that of its detection.

    Args:
        image: RGB, upright, at any resolution.
        attention: of this image.
        names: of the classes, by label.
        title: over the sheet.
    """
    columns = 1 + len(attention)
    # A point of the background comes first, below the photo; without one that place stays free.
    points = sorted(range(len(attention.point_of)), key=lambda point: int(attention.point_of[point]))
    first = 0 if -1 in attention.point_of else 1
    rows = math.ceil((first + len(points)) / columns) if points else 0
    width = columns * (PANEL + GAP) + GAP
    step = TITLE + photo_size(attention, PANEL)[1] + GAP
    lower = 2 * HEADING + step
    figure = _new_figure(width, lower + bool(rows) * HEADING + rows * step + SCALE)
    _write_line(figure, 0, title, "bold")
    _write_line(figure, HEADING, "Decoder: what each detection's query reads")
    if points:
        _write_line(figure, lower, "Encoder: what each point's place reads")

    def panel(place: int, top: float) -> Axes:
        return add_photo_axes(figure, attention, GAP + place % columns * (PANEL + GAP), top, PANEL)

    draw_places(panel(0, 2 * HEADING), image, attention)
    for index in range(len(attention)):
        axes = panel(1 + index, 2 * HEADING)
        draw_detection(axes, image, attention, index, names, width=PANEL)
    for place, point in enumerate(points, start=first):
        axes = panel(place, lower + HEADING + place // columns * step)
        draw_point(axes, image, attention, point, names, PANEL)
    draw_scale(figure, None)
    return figure


def _new_figure(width: float, height: float) -> Figure:
    """In inches, on a transparent ground; without a layout engine, since every panel has its place."""
    figure = Figure(figsize=(width, height))
    figure.patch.set_alpha(0.0)
    return figure


def _new_photo_figure(attention: ImageAttention, below: float) -> tuple[Figure, Axes]:
    """With room for a title above the photo, and so many inches below it."""
    figure = _new_figure(WIDTH, TITLE + photo_size(attention, WIDTH)[1] + below)
    return figure, add_photo_axes(figure, attention, 0, 0, WIDTH)


def _write_line(figure: Figure, top: float, text: str, weight: str = "normal") -> None:
    """Over all panels, so many inches below the figure's top."""
    width, height = figure.get_size_inches()
    fitting = shorten(readable(text), LETTERS, POINTS * width, bold=weight == "bold")
    figure.text(
        0.5,
        1 - (top + HEADING / 2) / height,
        fitting,
        fontsize=LETTERS,
        fontweight=weight,
        color=INK,
        ha="center",
        va="center",
        parse_math=False,
    )
