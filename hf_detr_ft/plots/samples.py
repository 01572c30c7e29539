"""Photos with their true boxes, as they are annotated and as the model gets them: drawn back from its tensors."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from transformers import DetrImageProcessor

from hf_detr_ft.boxes import cxcywh_to_xyxy
from hf_detr_ft.plots.box_overlay import CROWD
from hf_detr_ft.plots.comparison import shrink
from hf_detr_ft.plots.draw_boxes import FONT, class_colour, text_colour
from hf_detr_ft.plots.text_layout import is_readable, place_labels, readable, shorten, text_width

EDGE = 400
"""Longer side of a drawn sample, in pixels."""
LETTERS, PADDING = 12, 2
"""Height of a label's letters, and the space around them, in pixels."""
LONGEST_NAME = 110
"""Width of a class's name in pixels."""
INSET = 2
"""How far a box at or over the border is drawn inside, in pixels, so that its line is seen."""


def restore_image(pixel_values: torch.Tensor, processor: DetrImageProcessor) -> Image.Image:
    """The picture in a tensor that the model takes: without normalisation, rounded to 8 bits.

    Args:
        pixel_values: `[3, h, w]`; of a padded batch its part within `size` (height, width) of the labels.
        processor: that made it.
    """
    values = pixel_values.detach().double().cpu()
    if processor.do_normalize:
        mean, std = (torch.tensor(each, dtype=torch.double) for each in (processor.image_mean, processor.image_std))
        values = values * std[:, None, None] + mean[:, None, None]
    if processor.do_rescale:
        values = values / processor.rescale_factor
    return Image.fromarray(values.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


def restore_boxes(target: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Boxes `[N, 4]` xyxy in pixels of `restore_image`.

    Args:
        target: labels of the model: `boxes` `[N, 4]` cxcywh in [0, 1] of the image without padding, `size` (height,
            width) of it in pixels.
    """
    height, width = target["size"].tolist()
    boxes_xyxy_rel = cxcywh_to_xyxy(target["boxes"].detach().double().cpu()).reshape(-1, 4).numpy()
    return boxes_xyxy_rel * np.array([width, height, width, height])


def draw_training_sample(
    pixel_values: torch.Tensor,
    target: Mapping[str, torch.Tensor],
    processor: DetrImageProcessor,
    names: Sequence[str],
    edge: int = EDGE,
) -> Image.Image:
    """What the model gets to see of one photo, augmented and resized, with the boxes that it is to find.

    Args:
        pixel_values: `[3, H, W]`; padding at the right and below is left out.
        target: labels of the model with `boxes`, `class_labels` and `size`.
        processor: that made them.
        names: of the classes, by label.
        edge: the longer side of the result in pixels.
    """
    height, width = target["size"].tolist()
    image = restore_image(pixel_values[:, :height, :width], processor)
    return draw_sample(image, restore_boxes(target), target["class_labels"].tolist(), names, edge=edge)


def draw_sample(
    image: Image.Image,
    boxes_xyxy_px: np.ndarray,
    labels: Sequence[int],
    names: Sequence[str],
    crowd: Sequence[bool] | None = None,
    edge: int = EDGE,
) -> Image.Image:
    """A small copy of a photo with its boxes and, where there is room, the names of their classes.

    Args:
        image: RGB, upright, at the resolution that the boxes belong to.
        boxes_xyxy_px: `[N, 4]`; they may reach over the border.
        labels: N.
        names: of the classes, by label; a single one is not written.
        crowd: N, whether each is a crowd region, grey and without a name; none where not given.
        edge: the longer side of the result in pixels.
    """
    drawn = shrink(image, edge)
    areas = _scale_boxes(boxes_xyxy_px, image, drawn)
    order = np.argsort(-np.prod(areas[:, 2:] - areas[:, :2], axis=1), kind="stable").tolist()  # small ones on top
    grey = [False] * len(areas) if crowd is None else list(crowd)
    pen = ImageDraw.Draw(drawn)
    for index in order:
        colour = CROWD.colour if grey[index] else class_colour(labels[index]).as_hex()
        _draw_box(pen, areas[index].tolist(), colour)
    if len(names) > 1:
        labelled = [index for index in reversed(order) if not grey[index]]
        _write_names(pen, drawn.size, areas[labelled], [labels[index] for index in labelled], names)
    return drawn


def _scale_boxes(boxes_xyxy_px: np.ndarray, image: Image.Image, drawn: Image.Image) -> np.ndarray:
    """`[N, 4]` in pixels of the small copy, within it."""
    factors = np.tile(np.array(drawn.size) / np.array(image.size), 2)
    limits = np.maximum(np.tile(np.array(drawn.size), 2) - 1 - INSET, INSET)
    areas = np.clip(np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4) * factors, INSET, limits)
    areas[:, 2:] = np.maximum(areas[:, 2:], areas[:, :2])
    return areas


def _draw_box(pen: ImageDraw.ImageDraw, area: Sequence[float], colour: str) -> None:
    """A line between two dark ones, so that it is seen on anything; thin around what is small."""
    x0, y0, x1, y1 = (round(value) for value in area)
    half = 1 if min(x1 - x0, y1 - y0) >= 24 else 0
    for reach, ink in ((half + 1, "#000000"), (half, colour)):
        outline = (x0 - reach, y0 - reach, x1 + reach, y1 + reach)
        pen.rectangle(outline, outline=ink, width=2 * reach + 1)


def _write_names(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    areas: np.ndarray,
    labels: Sequence[int],
    names: Sequence[str],
) -> None:
    """Names at their boxes, those of the first ones first, none over another; what finds no room is left out."""
    font = ImageFont.truetype(str(FONT), LETTERS)
    texts = [
        shorten(readable(names[label]) if is_readable(names[label]) else f"class {label}", LETTERS, LONGEST_NAME)
        for label in labels
    ]
    sizes = [[(text_width(text, LETTERS) + 2 * PADDING, LETTERS + 2 * PADDING + 2.0)] for text in texts]
    places = place_labels([tuple(area) for area in areas.tolist()], sizes, *size)
    for label, text, place in zip(labels, texts, places, strict=True):
        if place is None:
            continue
        x0, y0, x1, y1 = place[1]
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=class_colour(label).as_hex())
        ink = text_colour(class_colour(label)).as_hex()
        pen.text((x0 + PADDING, (y0 + y1) / 2), text, fill=ink, font=font, anchor="lm")
