"""Boxes and labels drawn into an image, and the colours of classes."""

import colorsys
from collections.abc import Sequence

import numpy as np
import supervision as sv
from PIL import Image, ImageDraw, ImageFont

from hf_detr_ft.plots.text_layout import FONT, place_labels, readable, shorten, text_width

GOLDEN_ANGLE = 0.381966
"""Share of a full turn: hues that are this far apart fill the circle evenly, however many there are."""
OUTLINE = sv.Color(32, 32, 32)
"""Colour beside a line, so that it is seen on anything."""


def class_colour(label: int) -> sv.Color:
    """Colour of a class, told apart from its predecessors by hue, then by brightness."""
    saturation, value = ((0.85, 0.95), (0.55, 1.0), (1.0, 0.6))[label // 8 % 3]
    return colour_of_hue(0.95 + label * GOLDEN_ANGLE, saturation, value)


def colour_of_hue(hue: float, saturation: float, value: float) -> sv.Color:
    """Colour of a hue in turns, with saturation and value in [0, 1]."""
    return sv.Color(*(round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, saturation, value)))


def text_colour(background: sv.Color) -> sv.Color:
    """Black or white, whichever is easier to read on the background (WCAG's relative luminance)."""
    linear = (np.array(background.as_rgb()) / 255) ** 2.2
    return sv.Color.BLACK if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else sv.Color.WHITE


def draw_detections(
    image: Image.Image, boxes_xyxy_px: np.ndarray, texts: Sequence[str], class_indices: Sequence[int] | np.ndarray
) -> Image.Image:
    """Copy of an RGB image with its detections drawn in; lines and letters grow with its resolution.

    Args:
        image: at the resolution that the boxes belong to.
        boxes_xyxy_px: `[N, 4]`, the most important last: it lies on top. They may reach over the border.
        texts: N labels, such as "balloon 0.98"; where there is no room for one, its last word, or nothing.
        class_indices: N; each class has its own colour.
    """
    short = min(image.size)
    letters = max(11, round(0.022 * short))
    widest = max((text_width(readable(text), letters) for text in texts), default=0)
    room = image.width - 2 * (letters // 4)
    if widest > room:
        letters = max(6, int(letters * room / widest))
    variants = [(text, *text.split()[-1:]) for text in texts]
    colours = [class_colour(int(index)) for index in class_indices]
    return draw_boxes(image, boxes_xyxy_px, variants, colours, reach=max(1, round(0.0015 * short)), letters=letters)


def draw_boxes(
    image: Image.Image,
    boxes_xyxy_px: np.ndarray,
    texts: Sequence[Sequence[str]],
    colours: Sequence[sv.Color],
    *,
    reach: int,
    letters: int,
) -> Image.Image:
    """Copy of an RGB image with boxes and their labels, none of which covers another.

    Args:
        image: at the resolution that the boxes belong to.
        boxes_xyxy_px: `[N, 4]`. Later ones lie on top, and their labels have the choice of place.
        texts: N times those that a label can have, the best one first, or none.
        colours: N.
        reach: pixels of a line on both sides of a box's edge; around small boxes it has less.
        letters: height of letters in pixels.
    """
    drawn = image.copy()
    limits = np.maximum(np.tile(image.size, 2) - 2 - reach, reach + 1)  # so that a box at the border is seen
    boxes = np.clip(np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4), reach + 1, limits).round()
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    small = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) < 8 * (2 * reach + 1)
    for chosen, own in ((~small, reach), (small, reach // 3)):
        if chosen.any():
            palette = sv.ColorPalette([colour for colour, is_own in zip(colours, chosen, strict=True) if is_own])
            detections = sv.Detections(xyxy=boxes[chosen])
            for side, colour in ((own + max(1, own // 3), OUTLINE), (own, palette)):
                # OpenCV draws an even thickness one pixel wider.
                annotator = sv.BoxAnnotator(colour, thickness=max(1, 2 * side), color_lookup=sv.ColorLookup.INDEX)
                drawn = annotator.annotate(drawn, detections)
    _write_labels(drawn, boxes[::-1], texts[::-1], colours[::-1], letters)
    return drawn


def _write_labels(
    drawn: Image.Image,
    boxes_xyxy_px: np.ndarray,
    texts: Sequence[Sequence[str]],
    colours: Sequence[sv.Color],
    letters: int,
) -> None:
    """Writes labels at their boxes, the first ones with the choice of place."""
    pen, font, padding = ImageDraw.Draw(drawn), ImageFont.truetype(str(FONT), letters), max(1, letters // 4)
    written = [[shorten(readable(text), letters, drawn.width - 2 * padding) for text in own] for own in texts]
    height = round(1.2 * letters) + 2 * padding
    sizes = [[(text_width(text, letters) + 2 * padding, height) for text in own] for own in written]
    places = place_labels(boxes_xyxy_px.tolist(), sizes, *drawn.size)
    for own, colour, place in zip(written, colours, places, strict=True):
        if place is not None:
            x0, y0, x1, y1 = place[1]
            pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour.as_hex())
            middle = (x0 + padding, (y0 + y1) / 2)
            pen.text(middle, own[place[0]], fill=text_colour(colour).as_hex(), font=font, anchor="lm")
