"""Images with their true boxes, as they are annotated and as the model gets them: drawn back from its tensors."""

from collections.abc import Mapping, Sequence

import numpy as np
import supervision as sv
import torch
from PIL import Image

from hf_detr_ft.boxes import cxcywh_to_xyxy
from hf_detr_ft.data.image_size import ImageProcessor
from hf_detr_ft.plots.box_overlay import CROWD_STYLE
from hf_detr_ft.plots.draw_boxes import class_colour, draw_boxes
from hf_detr_ft.plots.style import shrink
from hf_detr_ft.plots.text_layout import shorten, writable_names

SAMPLE_SIDE = 400
"""Longer side of a drawn sample, in pixels."""
SAMPLE_LETTERS, SAMPLE_NAME = 12, 110
"""Height of a label's letters, and width of a class's name, in pixels."""


def restore_image(pixel_values: torch.Tensor, processor: ImageProcessor) -> Image.Image:
    """Image in a tensor that the model takes: without normalisation, rounded to 8 bits.

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
    processor: ImageProcessor,
    names: Sequence[str],
    edge: int = SAMPLE_SIDE,
) -> Image.Image:
    """Image as the model gets it, augmented and resized, with the boxes that it is to find.

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
    edge: int = SAMPLE_SIDE,
) -> Image.Image:
    """Small copy of an image with its boxes and, where there is room, the names of their classes.

    Args:
        image: RGB, upright, at the resolution that the boxes belong to.
        boxes_xyxy_px: `[N, 4]`; they may reach over the border.
        labels: N.
        names: of the classes, by label; a single one is not written.
        crowd: N, whether each is a crowd region, grey and without a name; none where not given.
        edge: the longer side of the result in pixels.
    """
    drawn = shrink(image, edge)
    boxes = np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)
    order = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable").tolist()  # small ones on top
    is_crowd = [False] * len(boxes) if crowd is None else list(crowd)
    shown = [shorten(name, SAMPLE_LETTERS, SAMPLE_NAME) for name in writable_names(names)]
    texts = [() if is_crowd[index] or len(names) < 2 else (shown[labels[index]],) for index in order]
    grey = sv.Color.from_hex(CROWD_STYLE.colour)
    return draw_boxes(
        drawn,
        boxes[order] * np.tile(np.array(drawn.size) / np.array(image.size), 2),
        texts,
        [grey if is_crowd[index] else class_colour(labels[index]) for index in order],
        reach=1,
        letters=SAMPLE_LETTERS,
    )
