"""Masks laid over an image, each in the colour of its class."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from hf_detr_ft.data.masks import Masks, resize_nearest
from hf_detr_ft.plots.draw_boxes import class_colour

OPACITY = 0.45


def tint_masks(image: Image.Image, masks: Masks | None, class_indices: Sequence[int] | np.ndarray) -> Image.Image:
    """Copy of an RGB image with masks in their classes' colours and a line around each; the image itself without any.

    Args:
        image: at any resolution.
        masks: of the whole image, the most important last: it lies on top; None of a model without a mask head.
        class_indices: as many as masks; each class has its own colour.
    """
    if masks is None or not len(masks):
        return image
    pixels = np.array(image)
    for mask, index in zip(resize_nearest(masks.decode(), pixels.shape[:2]), class_indices, strict=True):
        colour = np.array(class_colour(int(index)).as_rgb())
        pixels[mask] = ((1 - OPACITY) * pixels[mask] + OPACITY * colour).astype(np.uint8)
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, outlines, -1, colour.tolist(), thickness=1)
    return Image.fromarray(pixels)
