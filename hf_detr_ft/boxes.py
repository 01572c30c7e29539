"""Box formats and frames, for torch tensors and numpy arrays alike.

A name says both: `boxes_xywh_px` is COCO's (left, top, width, height) in pixels of the original upright image,
`boxes_xyxy_px` its corners, `boxes_cxcywh_rel` is DETR's (centre x, centre y, width, height), each in [0, 1] relative
to the image without its padding. Sizes are (height, width) everywhere.
"""

from typing import TypeVar

import numpy as np
import torch

Boxes = TypeVar("Boxes", torch.Tensor, np.ndarray)
"""Boxes of shape [..., 4]; the result has the type, shape, dtype and device of what came in."""


def _stack(boxes: Boxes, columns: list) -> Boxes:
    return torch.stack(columns, dim=-1) if isinstance(boxes, torch.Tensor) else np.stack(columns, axis=-1)


def xywh_to_xyxy(boxes_xywh: Boxes) -> Boxes:
    """Left, top, width, height to left, top, right, bottom. Shape [..., 4] in and out."""
    x, y, w, h = (boxes_xywh[..., i] for i in range(4))
    return _stack(boxes_xywh, [x, y, x + w, y + h])


def xyxy_to_xywh(boxes_xyxy: Boxes) -> Boxes:
    """Left, top, right, bottom to left, top, width, height. Shape [..., 4] in and out."""
    x0, y0, x1, y1 = (boxes_xyxy[..., i] for i in range(4))
    return _stack(boxes_xyxy, [x0, y0, x1 - x0, y1 - y0])


def cxcywh_to_xyxy(boxes_cxcywh: Boxes) -> Boxes:
    """Centre x, centre y, width, height to left, top, right, bottom. Shape [..., 4] in and out."""
    cx, cy, w, h = (boxes_cxcywh[..., i] for i in range(4))
    return _stack(boxes_cxcywh, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
