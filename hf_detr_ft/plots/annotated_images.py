"""Images with their annotations as a COCO file has them, masks included, and several images side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import supervision as sv
from PIL import Image

from hf_detr_ft.boxes import xywh_to_xyxy
from hf_detr_ft.data.masks import decode_masks, encode_segmentation
from hf_detr_ft.data.segmentation_area import is_outline
from hf_detr_ft.plots.draw_boxes import class_colour
from hf_detr_ft.plots.draw_masks import OPACITY
from hf_detr_ft.plots.samples import SAMPLE_SIDE, draw_sample
from hf_detr_ft.plots.style import shrink

TILE_GAP = 8
"""Pixels between images of a sheet."""


def draw_annotations(
    image: Image.Image,
    annotations: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    *,
    masks: bool = True,
    edge: int = SAMPLE_SIDE,
) -> Image.Image:
    """Small copy of an image with the boxes of its annotations, their masks and, where there is room, their names.

    Args:
        image: RGB, upright, at the resolution that the annotations belong to.
        annotations: COCO's, with `bbox` and `category_id`; `segmentation` and `iscrowd` where they have them.
        names: of the classes, by category id; a single one is not written.
        masks: draw masks where there is a `segmentation`, polygons or RLE; those that are damaged are left out.
        edge: the longer side of the result in pixels.
    """
    ids = sorted(names)
    labels = [ids.index(annotation["category_id"]) for annotation in annotations]
    boxes_xywh_px = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64).reshape(-1, 4)
    crowd = [bool(annotation.get("iscrowd")) for annotation in annotations]
    found: dict[int, np.ndarray] = {}
    for place, annotation in enumerate(annotations):
        mask = decode_segmentation(annotation.get("segmentation"), image.size[::-1]) if masks else None
        if mask is not None and not crowd[place]:
            found[place] = mask
    if found:
        palette = sv.ColorPalette([class_colour(labels[place]) for place in found])
        annotator = sv.MaskAnnotator(palette, OPACITY, sv.ColorLookup.INDEX)
        detections = sv.Detections(xywh_to_xyxy(boxes_xywh_px[list(found)]), np.stack(list(found.values())))
        image = annotator.annotate(image.copy(), detections)
    return draw_sample(image, xywh_to_xyxy(boxes_xywh_px), labels, [names[id_] for id_ in ids], crowd, edge)


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> np.ndarray | None:
    """Mask `[height, width]` bool of COCO's polygons or RLE; None without one, and where it is damaged.

    Args:
        segmentation: `[[x, y, …], …]` in pixels, or `{"size", "counts"}`.
        size: (height, width) of the image.
    """
    if not is_outline(segmentation, *size):
        return None
    return decode_masks([encode_segmentation(segmentation, *size)["counts"]], size, size)[0].astype(bool)


def tile_images(images: Sequence[Image.Image], columns: int = 3, edge: int = 300) -> Image.Image:
    """Sheet of RGB images on white, row by row.

    Args:
        images: at least one, of any sizes.
        columns: images in a row, at most.
        edge: the longer side of each in pixels.
    """
    small = [shrink(image, edge) for image in images]
    rows = [small[start : start + columns] for start in range(0, len(small), columns)]
    heights = [max(image.height for image in row) for row in rows]
    width = max(sum(image.width + TILE_GAP for image in row) for row in rows) - TILE_GAP
    sheet = Image.new("RGB", (width, sum(heights) + TILE_GAP * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for image in row:
            sheet.paste(image, (left, top))
            left += image.width + TILE_GAP
        top += height + TILE_GAP
    return sheet
