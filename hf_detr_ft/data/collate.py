"""Rows to a batch; knows nothing of files or models."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional


def collate(rows: Sequence[Mapping[str, Any]], step: int = 1) -> dict[str, Any]:
    """Pads images of different sizes to one batch and marks the padding.

    Zeros (the mean colour, once normalised) are added right and below, up to the largest height and the largest width.
    Boxes are relative to the image without its padding, so the labels are passed on as they are.

        >>> tall = torch.full((3, 2, 1), 5.0)
        >>> wide = torch.full((3, 1, 3), 7.0)
        >>> batch = collate([{"pixel_values": tall}, {"pixel_values": wide}])
        >>> batch["pixel_values"][:, 0]
        tensor([[[5., 0., 0.],
                 [5., 0., 0.]],
        <BLANKLINE>
                [[7., 7., 7.],
                 [0., 0., 0.]]])
        >>> batch["pixel_mask"]
        tensor([[[1, 0, 0],
                 [1, 0, 0]],
        <BLANKLINE>
                [[1, 1, 1],
                 [0, 0, 0]]])

    Args:
        rows: `pixel_values` `[3, h, w]` each, and either all or none with `labels`; other keys are left out.
        step: in pixels; heights and widths of batches are multiples of it.

    Returns:
        `pixel_values` `[B, 3, H, W]`, `pixel_mask` `[B, H, W]` int64 (1 on the image, 0 on the padding) and, where the
        rows have them, `labels` as a list of B.
    """
    images = [row["pixel_values"] for row in rows]
    height, width = (-(-max(image.shape[axis] for image in images) // step) * step for axis in (1, 2))
    pixel_values = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    pixel_mask = torch.zeros(len(images), height, width, dtype=torch.int64, device=images[0].device)
    for index, image in enumerate(images):
        _, h, w = image.shape
        pixel_values[index, :, :h, :w] = image
        pixel_mask[index, :h, :w] = 1
    batch: dict[str, Any] = {"pixel_values": pixel_values, "pixel_mask": pixel_mask}
    if "labels" in rows[0]:
        batch["labels"] = [row["labels"] for row in rows]
    return batch


def resize_batch(batch: dict[str, Any], edge: int) -> dict[str, Any]:
    """The batch with all images resized to squares of `edge` pixels a side; labels, which are relative, stay.

    Averaged where they get smaller; the originals of RT-DETR and D-FINE take the nearest pixel.
    """
    images, size = batch["pixel_values"], (edge, edge)
    if images.shape[2:] == size:
        return batch
    resized = functional.interpolate(images, size, mode="bilinear", antialias=True)
    return {**batch, "pixel_values": resized, "pixel_mask": batch["pixel_mask"].new_ones(len(images), *size)}
