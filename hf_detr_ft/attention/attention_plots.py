"""Attention over an image: what a detection's query reads in the decoder, and a point's place in the encoder.

The image is grey and dark below a map, so that all colour is attention; the brightest colour of a map is its own
largest weight. The figures of one panel are for a page, `plot_attention` is a sheet of all of them.
"""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from hf_detr_ft.attention.attention_panels import (
    PANEL_TITLE,
    PANEL_WIDTH,
    POINTS,
    SCALE,
    add_panel,
    draw_detection,
    draw_places,
    draw_point,
    draw_scale,
    image_size_in,
)
from hf_detr_ft.attention.image_attention import ImageAttention
from hf_detr_ft.plots.style import INK, ShownFigure
from hf_detr_ft.plots.text_layout import readable, shorten

SHEET_PANEL = 3.1
"""Width of a panel of the sheet, in inches."""
PANEL_GAP, SHEET_HEADING = 0.12, 0.36
"""Heights of the space between panels and of a line over panels, in inches."""
HEADING_LETTERS = 12
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
    """Attention of the decoder for one detection, and its box.

    Args:
        image: RGB, upright, at any resolution.
        attention: of this image.
        index: the detection's place in `attention`.
        names: of the classes, by label.
        layer: of the decoder; the last one by default.
        head: of that layer; the mean over all by default.
    """
    figure, axes = _new_panel(attention, SCALE)
    draw_detection(axes, image, attention, index, names, layer, head)
    if attention.sampled is None:
        draw_scale(figure, float(attention.cross_map(index, layer, head).max()))
    else:
        draw_scale(figure, float(attention.sampled.of(index, layer, head)[1].max()), "a point")
    return figure


def plot_self_attention(image: Image.Image, attention: ImageAttention, index: int, names: Sequence[str]) -> Figure:
    """Attention of the encoder from the place of one point, and the point.

    Args:
        image: RGB, upright, at any resolution.
        attention: of this image.
        index: the point's place in `attention`.
        names: of the classes, by label.
    """
    figure, axes = _new_panel(attention, SCALE)
    draw_point(axes, image, attention, index, names)
    draw_scale(figure, float(attention.encoder[index].max()))
    return figure


def plot_places(image: Image.Image, attention: ImageAttention) -> Figure:
    """Image as it is, with the boxes of the detections, numbered from 1, and the points, from p1.

    Args:
        image: RGB, upright, at any resolution.
        attention: of this image.
    """
    figure, axes = _new_panel(attention, PANEL_GAP)
    draw_places(axes, image, attention)
    return figure


def plot_attention(image: Image.Image, attention: ImageAttention, names: Sequence[str], title: str) -> Figure:
    """Sheet of the image and the decoder's attention for each detection, below it the encoder's from each point.

    Where points are the centres of the detections, each map lies below that of its detection.

    Args:
        image: RGB, upright, at any resolution.
        attention: of this image.
        names: of the classes, by label.
        title: over the sheet.
    """
    columns = 1 + len(attention)
    # A point of the background comes first, below the image; without one that place stays free.
    points = sorted(range(len(attention.point_of)), key=lambda point: int(attention.point_of[point]))
    first = 0 if -1 in attention.point_of else 1
    rows = math.ceil((first + len(points)) / columns) if points else 0
    width = columns * (SHEET_PANEL + PANEL_GAP) + PANEL_GAP
    step = PANEL_TITLE + image_size_in(attention, SHEET_PANEL)[1] + PANEL_GAP
    lower = 2 * SHEET_HEADING + step
    figure = _new_sheet(width, lower + bool(rows) * SHEET_HEADING + rows * step + SCALE)
    _write_heading(figure, 0, title, "bold")
    _write_heading(figure, SHEET_HEADING, "Decoder: what each detection's query reads")
    if points:
        _write_heading(figure, lower, "Encoder: what each point's place reads")

    def panel(place: int, top: float) -> Axes:
        return add_panel(figure, attention, PANEL_GAP + place % columns * (SHEET_PANEL + PANEL_GAP), top, SHEET_PANEL)

    draw_places(panel(0, 2 * SHEET_HEADING), image, attention)
    for index in range(len(attention)):
        axes = panel(1 + index, 2 * SHEET_HEADING)
        draw_detection(axes, image, attention, index, names, width=SHEET_PANEL)
    for place, point in enumerate(points, start=first):
        axes = panel(place, lower + SHEET_HEADING + place // columns * step)
        draw_point(axes, image, attention, point, names, SHEET_PANEL)
    draw_scale(figure, None, "a cell" if attention.sampled is None else "a point")
    return figure


def _new_sheet(width: float, height: float) -> Figure:
    """Figure in inches, on a transparent ground; without a layout engine, since every panel has its place."""
    figure = ShownFigure(figsize=(width, height))
    figure.patch.set_alpha(0.0)
    return figure


def _new_panel(attention: ImageAttention, below: float) -> tuple[Figure, Axes]:
    """Figure with room for a title above the image, and so many inches below it."""
    figure = _new_sheet(PANEL_WIDTH, PANEL_TITLE + image_size_in(attention, PANEL_WIDTH)[1] + below)
    return figure, add_panel(figure, attention, 0, 0, PANEL_WIDTH)


def _write_heading(figure: Figure, top: float, text: str, weight: str = "normal") -> None:
    """Writes over all panels, so many inches below the figure's top."""
    width, height = figure.get_size_inches()
    fitting = shorten(readable(text), HEADING_LETTERS, POINTS * width, bold=weight == "bold")
    style: dict[str, Any] = {"fontweight": weight, "color": INK, "ha": "center", "va": "center", "parse_math": False}
    figure.text(0.5, 1 - (top + SHEET_HEADING / 2) / height, fitting, fontsize=HEADING_LETTERS, **style)
