"""Masks of objects: COCO's outlines as run lengths (RLE), and these as pixels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks of N objects of any images, each as COCO's compressed RLE.

    Attributes:
        counts: `[N]` of texts.
        sizes: `[N, 2]` int64, (height, width) in pixels of the images.
    """

    counts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, encoded: Iterable[Mapping[str, Any]]) -> "Masks":
        """Masks of RLEs with `size` and, as text or bytes, `counts`."""
        plain = [each if isinstance(each["counts"], str) else as_text(each) for each in encoded]
        counts = np.array([each["counts"] for each in plain], dtype=object)
        return cls(counts, np.array([each["size"] for each in plain], dtype=np.int64).reshape(-1, 2))

    @classmethod
    def empty(cls, count: int = 0) -> "Masks":
        """Masks of so many objects without any pixel, on images without any."""
        return cls(np.array([""] * count, dtype=object), np.zeros((count, 2), dtype=np.int64))

    @classmethod
    def concat(cls, parts: Iterable["Masks"]) -> "Masks":
        """Masks of all parts, in their order."""
        parts = [cls.empty(), *parts]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("counts", "sizes")))

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, chosen: Any) -> "Masks":
        """Those of a mask `[N]` or of places."""
        return Masks(self.counts[chosen], self.sizes[chosen])

    def as_dicts(self) -> list[dict[str, Any]]:
        """RLEs with `size` and `counts`, as in COCO's files."""
        return [
            {"size": size, "counts": text} for size, text in zip(self.sizes.tolist(), self.counts.tolist(), strict=True)
        ]

    def areas(self) -> np.ndarray:
        """Pixels of each, `[N]` float64."""
        return np.array(
            [_coco_mask().area(mask) for mask in self.as_dicts()], dtype=np.float64
        )  # a list holds 255 at most

    def decode(self) -> np.ndarray:
        """Pixels `[N, h, w]` bool of masks of one image."""
        size = tuple(self.sizes[0].tolist()) if len(self) else (0, 0)
        return decode_masks(self.counts.tolist(), size, size).astype(bool)


def _coco_mask() -> Any:
    """The module of pycocotools, which whoever has no masks need not wait for."""
    from pycocotools import mask

    return mask


def encode_pixels(masks: np.ndarray) -> Masks:
    """Masks of pixels `[N, h, w]`."""
    if not len(masks):
        return Masks.empty()
    return Masks.of(_coco_mask().encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))))


def encode_segmentation(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """COCO's compressed RLE, its `counts` as text, of polygons or of an RLE of either kind.

    Args:
        segmentation: without fault.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], str):
            return segmentation
        encoded = _coco_mask().frPyObjects(segmentation, *segmentation["size"])
    else:
        encoded = _coco_mask().merge(_coco_mask().frPyObjects(segmentation, height, width))
    return as_text(encoded)


def as_text(encoded: Mapping[str, Any]) -> dict[str, Any]:
    """An RLE of pycocotools with plain numbers, and its `counts` as text."""
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_masks(counts: Sequence[str], size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Masks `[n, *shape]` uint8, 1 on the object, of the `counts` of n RLEs of images of `size` (height, width).

    Where the shape is another one, each pixel takes the value of the nearest one.
    """
    masks = np.zeros((len(counts), *shape), dtype=np.uint8)
    for place, text in enumerate(counts):
        mask = _coco_mask().decode({"size": list(size), "counts": text.encode("ascii")})
        masks[place] = resize_nearest(mask[None], shape)[0]
    return masks


def resize_nearest(masks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Masks `[n, h, w]` at another shape, each pixel with the value of the nearest one; the same where it is the same.

    As `torch.nn.functional.interpolate` with the mode `nearest` does it, which facebookresearch/detr resizes masks by.
    """
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape, masks.shape[1:], strict=True))
    return masks if masks.shape[1:] == tuple(shape) else masks[:, rows[:, None], columns]
