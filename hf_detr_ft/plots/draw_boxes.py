"""Boxes drawn into a photo at its full resolution."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import supervision as sv
from PIL import Image, ImageFont

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
"""Comes with matplotlib; has Latin, Greek, Cyrillic and Arabic letters, not Chinese, Japanese or Korean ones."""

GOLDEN_ANGLE = 0.381966
"""Of a full turn: hues that are this far apart fill the circle evenly, however many there are."""


def class_colour(index: int) -> sv.Color:
    """The colour of a class, told apart from its predecessors by hue, then by brightness."""
    hue = (0.95 + index * GOLDEN_ANGLE) % 1
    saturation, value = ((0.85, 0.95), (0.55, 1.0), (1.0, 0.6))[index // 8 % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return sv.Color(red, green, blue)


def text_colour(background: sv.Color) -> sv.Color:
    """Black or white, whichever is easier to read on the background (WCAG's relative luminance)."""
    linear = (np.array(background.as_rgb()) / 255) ** 2.2
    return sv.Color.BLACK if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else sv.Color.WHITE


def draw_detections(
    image: Image.Image, boxes_xyxy_px: np.ndarray, texts: Sequence[str], class_indices: Sequence[int] | np.ndarray
) -> Image.Image:
    """A copy of an RGB image with its detections drawn in; lines and letters grow with its resolution.

    Args:
        image: at the resolution that the boxes belong to.
        boxes_xyxy_px: `[N, 4]`; later ones lie on top. They may reach over the border, their labels are moved inside.
        texts: N labels, such as "balloon 0.98".
        class_indices: N; each class has its own colour.
    """
    drawn = image.copy()
    if not len(texts):
        return drawn
    present, positions = np.unique(np.asarray(class_indices, dtype=np.int64), return_inverse=True)
    colours = [class_colour(int(index)) for index in present]
    limits = np.array([image.width, image.height, image.width, image.height], dtype=np.float64)
    detections = sv.Detections(
        xyxy=np.clip(np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4), 0, limits - 1), class_id=positions
    )
    size = _font_size(image, texts)
    thickness = max(2, round(0.003 * min(image.size)))
    boxes = sv.BoxAnnotator(color=sv.ColorPalette(colours), thickness=thickness)
    labels = sv.RichLabelAnnotator(
        color=sv.ColorPalette(colours),
        text_color=sv.ColorPalette([text_colour(colour) for colour in colours]),
        font_path=str(FONT),
        font_size=size,
        text_padding=max(1, size // 4),
        smart_position=True,
    )
    return labels.annotate(boxes.annotate(drawn, detections), detections, labels=list(texts))


def _font_size(image: Image.Image, texts: Sequence[str]) -> int:
    """In pixels: 2.2% of the short side, at least 11, but no wider than the image."""
    size = max(11, round(0.022 * min(image.size)))
    widest = max(ImageFont.truetype(str(FONT), size).getlength(text) for text in texts)
    room = image.width - 2 * (size // 4)
    return size if widest <= room else max(6, int(size * room / widest))
