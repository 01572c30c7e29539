"""Images resized without torch, byte for byte as torch does it; Pillow's result is another in a byte of a thousand."""

import numpy as np
from PIL import Image

LARGEST_WEIGHT = 1 << 15
"""Weights are whole numbers of 16 bits, with as many digits as the largest of them has room for."""
MOST_DIGITS = 22


def resize_bytes(image: Image.Image, height: int, width: int, resample: int) -> np.ndarray:
    """An RGB image in another size, `[height, width, 3]` of uint8.

    Bilinear interpolation is torch's (`interpolate` with `antialias`, of bytes, on a CPU), which most processors use;
    other ways are Pillow's.

    Args:
        image: RGB.
        height: in pixels.
        width: in pixels.
        resample: Pillow's number of the way to interpolate.
    """
    if resample != Image.Resampling.BILINEAR:
        return np.asarray(image.resize((width, height), Image.Resampling(resample)))
    pixels = np.asarray(image)
    for axis, size in ((1, width), (0, height)):
        if pixels.shape[axis] != size:
            pixels = _resize_axis(pixels, axis, size)
    return pixels


def _resize_axis(pixels: np.ndarray, axis: int, size: int) -> np.ndarray:
    first, weights, digits = _weights(pixels.shape[axis], size)
    last = pixels.shape[axis] - 1
    total = np.array(1 << (digits - 1), np.int32)  # one half, for rounding
    for place, column in enumerate(weights.T):
        part = np.take(pixels, np.minimum(first + place, last), axis).astype(np.int32)
        part *= column.reshape((-1, 1) if axis else (-1, 1, 1))
        total = np.add(part, total, out=part)
    return (total >> digits).clip(0, 255).astype(np.uint8)


def _weights(old: int, new: int) -> tuple[np.ndarray, np.ndarray, int]:
    """First old pixel that each new one covers `[new]`, weights from there on `[new, K]`, and their binary digits."""
    scale = old / new
    reach = max(scale, 1.0)
    centres = scale * (np.arange(new) + 0.5)
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    behind = np.minimum((centres + reach + 0.5).astype(np.int64), old)
    places = np.arange((behind - first).max())
    weights = np.maximum(1 - np.abs(places + first[:, None] - centres[:, None] + 0.5) / reach, 0)
    weights *= places < (behind - first)[:, None]
    weights /= weights.sum(1, keepdims=True)
    digits = MOST_DIGITS
    while int(0.5 + weights.max() * (1 << digits)) >= LARGEST_WEIGHT:
        digits -= 1
    return first, np.floor(weights * (1 << digits) + 0.5).astype(np.int32), digits
