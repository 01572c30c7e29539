"""Sheet of images with their true boxes and a model's predictions, found, missed and wrong."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import ImageOps

from hf_detr_ft.plots.box_overlay import BoxStyle, ComparedPhoto, explain_styles, overlay_box, overlay_boxes
from hf_detr_ft.plots.style import INK, TILE, ShownFigure, add_image_axes, shrink
from hf_detr_ft.plots.text_layout import font, readable, shorten, text_width, wrap, writable_names

SHEET_DPI = 72
"""Dots per inch: a point is a pixel, so that lines and letters are given in pixels throughout."""
MOST_COLUMNS = 4
LEAST_CELL, LEAST_WIDTH = 300, 480
"""Widths of captions and of the heading where images are narrow."""
SHEET_MARGIN, SHEET_GAP = 28, 24
TITLE, HEADING, CAPTION, FILE_NAME = 24, 18, 17, 13
"""Heights of letters."""
LINE_HEIGHT = 1.5
"""Height of a line of text, in heights of its letters."""
SAMPLE = (44, 22)
"""Width and height of a sample in the legend."""
MUTED = "#868c95"
COUNTS = (("found", "#0b7a5e"), ("missed", "#a86400"), ("wrong", "#d01228"))
"""Words of a caption, and colours that are dark enough for letters on white."""

Pieces = list[tuple[str, str]]
"""Texts and their colours, to be written side by side."""


def plot_comparison(photos: Sequence[ComparedPhoto], names: Sequence[str], title: str, tile: int = TILE) -> Figure:
    """Sheet of one image or more.

    Args:
        photos: shown from tall to wide ones, so that rows have images of like heights.
        names: of the classes, by label.
        title: over the sheet.
        tile: the longer side of an image on the sheet, in pixels.
    """
    names = writable_names(names)
    photos = sorted(photos, key=lambda photo: photo.image.width / photo.image.height)
    # Without the two lowest bits, which nobody sees, the PNG has a third less bytes.
    pictures = [ImageOps.posterize(shrink(photo.image, tile), 6) for photo in photos]
    rows, inner = _sheet_rows([picture.width for picture in pictures], tile)
    legend = explain_styles(photos)
    legend_lines = wrap([_sample_width(text) for _, _, text in legend], inner, SHEET_GAP)
    title_lines = _title_lines(title, inner)
    top = (
        SHEET_MARGIN
        + LINE_HEIGHT * (TITLE * len(title_lines) + HEADING)
        + (SAMPLE[1] + 8) * len(legend_lines)
        + SHEET_GAP
    )
    places, height = _sheet_places([picture.size for picture in pictures], rows, math.ceil(top))

    width = inner + 2 * SHEET_MARGIN
    figure = ShownFigure(figsize=(width / SHEET_DPI, height / SHEET_DPI), dpi=SHEET_DPI, facecolor="white")

    def part(x: float, y: float, size: tuple[int, int]) -> Axes:
        return add_image_axes(
            figure, x / SHEET_DPI, y / SHEET_DPI, size[0] / SHEET_DPI, size[1] / SHEET_DPI, size[::-1]
        )

    page, y = part(0, 0, (width, height)), float(SHEET_MARGIN)
    for line in title_lines:
        y = _write_pieces(page, SHEET_MARGIN, y, [(line, INK)], TITLE, bold=True)
    y = _write_pieces(
        page, SHEET_MARGIN, y, count_pieces(np.sum([photo.counts for photo in photos], axis=0)), HEADING, bold=True
    )
    for indices in legend_lines:
        y = _write_legend(page, y + 8, [legend[index] for index in indices])
    for photo, picture, (x, y) in zip(photos, pictures, places, strict=True):
        y = _write_pieces(page, x, y, count_pieces(photo.counts), CAPTION, bold=True)
        name = shorten(readable(photo.name), FILE_NAME, max(LEAST_CELL, picture.width))
        y = _write_pieces(page, x, y, [(name, MUTED)], FILE_NAME)
        axes = part(x, y, picture.size)
        axes.imshow(picture, extent=(0, picture.width, picture.height, 0), interpolation="none", aspect="auto")
        overlay_boxes(axes, photo, (picture.height, picture.width), names)
    return figure


def count_pieces(counts: np.ndarray) -> Pieces:
    """Caption such as "3 found, 1 missed, 0 wrong" or "no objects, 2 wrong", with what is 0 in grey."""
    pieces = [
        (f"{count} {word}", colour if count else MUTED) for count, (word, colour) in zip(counts, COUNTS, strict=True)
    ]
    if not counts[0] and not counts[1]:
        pieces[:2] = [("no objects", MUTED)]
    return [part for piece in pieces for part in ((", ", MUTED), piece)][1:]


def _sheet_rows(widths: Sequence[int], tile: int) -> tuple[list[list[int]], int]:
    """Positions of the images in each row, and the width of the widest row."""
    across = min(MOST_COLUMNS, math.ceil(math.sqrt(len(widths))))
    cells = [max(LEAST_CELL, width) for width in widths]
    rows = wrap(cells, across * max(LEAST_CELL, tile) + (across - 1) * SHEET_GAP, SHEET_GAP)
    return rows, max(LEAST_WIDTH, *(sum(cells[index] for index in row) + SHEET_GAP * (len(row) - 1) for row in rows))


def _sheet_places(
    sizes: Sequence[tuple[int, int]], rows: Sequence[Sequence[int]], top: int
) -> tuple[list[tuple[float, float]], int]:
    """Left and top of each image's caption, and the height of the page; a row is as high as its highest image."""
    places: list[tuple[float, float]] = []
    y = float(top)
    for row in rows:
        x = float(SHEET_MARGIN)
        for index in row:
            places.append((x, y))
            x += max(LEAST_CELL, sizes[index][0]) + SHEET_GAP
        y += LINE_HEIGHT * (CAPTION + FILE_NAME) + max(sizes[index][1] for index in row) + SHEET_GAP
    return places, math.ceil(y - SHEET_GAP + SHEET_MARGIN)


def _write_pieces(page: Axes, x: float, y: float, pieces: Pieces, size: float, bold: bool = False) -> float:
    """Writes a line of text from its top left corner; returns the top of the next line."""
    for text, colour in pieces:
        page.text(x, y + 0.95 * size, text, color=colour, fontproperties=font(size, bold), parse_math=False)
        x += text_width(text, size, bold)
    return y + LINE_HEIGHT * size


def _title_lines(title: str, width: float) -> list[str]:
    words = [shorten(word, TITLE, width, bold=True) for word in readable(title).split()]
    space = text_width(" ", TITLE, bold=True)
    lines = wrap([text_width(word, TITLE, bold=True) for word in words], width, space)
    return [" ".join(words[index] for index in line) for line in lines]


def _sample_width(text: str) -> float:
    return SAMPLE[0] + 8 + text_width(text, HEADING - 2)


def _write_legend(page: Axes, y: float, items: Sequence[tuple[BoxStyle, str, str]]) -> float:
    """Writes a line of samples and what they mean; returns the top of the next line."""
    x = float(SHEET_MARGIN)
    for style, colour, text in items:
        page.add_patch(Rectangle((x, y), *SAMPLE, linewidth=0, facecolor="#6f757d"))
        area = (x + 6, y + 5, x + SAMPLE[0] - 6, y + SAMPLE[1] - 5)
        overlay_box(page, area, style, colour, 0.75)
        _write_pieces(page, x + SAMPLE[0] + 8, y + 2, [(text, INK)], HEADING - 2)
        x += _sample_width(text) + SHEET_GAP
    return y + SAMPLE[1]
