"""Detections of any number of images as arrays, from and to COCO's results format."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_detr_ft.boxes import xyxy_to_xywh
from hf_detr_ft.data.masks import Masks, encode_segmentation
from hf_detr_ft.errors import DataError, first_line
from hf_detr_ft.formatting import join_limited

if TYPE_CHECKING:
    from hf_detr_ft.data.coco import LabelMap

_COLUMNS = {"image_id": np.int64, "category_id": np.int64, "score": float, "boxes_xywh_px": float}


@dataclass(frozen=True, eq=False)
class Detections:
    """Scored boxes of any number of images, as arrays.

    Attributes:
        image_id: [N] int64, the data set's image ids.
        category_id: [N] int64, the data set's category ids (not labels).
        score: [N] float64.
        boxes_xywh_px: [N, 4] float64, left, top, width, height in pixels of the original upright image.
        masks: [N], of the original upright image; None of a model without a mask head.
    """

    image_id: np.ndarray
    category_id: np.ndarray
    score: np.ndarray
    boxes_xywh_px: np.ndarray
    masks: Masks | None = None

    def __post_init__(self) -> None:
        for name, dtype in _COLUMNS.items():
            values = np.asarray(getattr(self, name), dtype=dtype)
            expected = (len(self.score), 4) if name == "boxes_xywh_px" else (len(self.score),)
            if values.shape != expected:
                raise ValueError(f"Detections.{name} must have the shape {expected}, found {values.shape}")
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def empty(cls) -> "Detections":
        """Zero detections."""
        return cls(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, 4)))

    @classmethod
    def concat(cls, parts: Iterable["Detections"]) -> "Detections":
        """Detections of all parts, in their order; none for no parts."""
        parts = list(parts)
        masks = [part.masks for part in parts if part.masks is not None]
        columns: list[Any] = [np.concatenate([getattr(p, name) for p in [cls.empty(), *parts]]) for name in _COLUMNS]
        return cls(*columns, *([Masks.concat(masks)] if parts and len(masks) == len(parts) else ()))

    @classmethod
    def from_results(cls, results: list[dict]) -> "Detections":
        """Reads COCO's results format: `[{"image_id": 1, "category_id": 3, "bbox": [x, y, w, h], "score": 0.9}, …]`.

        Raises:
            DataError: an entry lacks one of the four keys, or its value is of another kind.
        """
        if not isinstance(results, list):
            raise DataError(f"COCO results must be a list of entries, found {type(results).__name__}")
        return cls(
            read_numbers(results, "image_id", "results", ids=True),
            read_numbers(results, "category_id", "results", ids=True),
            read_numbers(results, "score", "results"),
            read_numbers(results, "bbox", "results", width=4),
            _read_masks(results),
        )

    def to_results(self) -> list[dict]:
        """Entries in COCO's results format, for JSON; the inverse of `from_results`."""
        columns = (self.image_id, self.category_id, self.boxes_xywh_px, self.score)
        keys = ("image_id", "category_id", "bbox", "score")
        results = [dict(zip(keys, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]
        masks = [{}] * len(self) if self.masks is None else [{"segmentation": rle} for rle in self.masks.as_dicts()]
        return [result | mask for result, mask in zip(results, masks, strict=True)]

    @classmethod
    def from_npz(cls, content: bytes) -> "Detections":
        """Inverse of `to_npz`.

        Raises:
            DataError: it is no such file, or cut off.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                columns: list[Any] = [arrays[name] for name in _COLUMNS]
                return cls(*columns, *([_unpack_masks(arrays)] if "mask_sizes" in arrays else ()))
        except Exception as error:  # zip, zlib, NumPy and key errors alike
            raise DataError(
                f"expected the arrays {', '.join(_COLUMNS)} of an .npz file: {first_line(error)}"
            ) from error

    def to_npz(self) -> bytes:
        """Content of an .npz file: the arrays bit for bit, compressed; the same bytes for the same detections."""
        stream, masks = io.BytesIO(), {} if self.masks is None else _pack_masks(self.masks)
        np.savez_compressed(stream, allow_pickle=False, **{name: getattr(self, name) for name in _COLUMNS}, **masks)
        return stream.getvalue()


def _read_masks(results: list[dict]) -> Masks | None:
    """Masks of results each of which has an RLE as `segmentation`; None where they are of boxes alone."""
    from hf_detr_ft.data.segmentation_area import segmentation_fault  # with pycocotools

    outlines = [entry.get("segmentation") for entry in results]
    if not outlines or not all(isinstance(outline, dict) for outline in outlines):
        return None
    faults = {index: fault for index, outline in enumerate(outlines) if (fault := segmentation_fault(outline))}
    if faults:
        index, fault = next(iter(faults.items()))
        raise DataError(f"COCO results: 'segmentation' of entry {index} (counted from 0) {fault}")
    return Masks.of(encode_segmentation(outline, 0, 0) for outline in outlines)


def _pack_masks(masks: Masks) -> dict[str, np.ndarray]:
    """Arrays of plain numbers, the texts one behind the other."""
    texts = [text.encode("ascii") for text in masks.counts]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return {
        "mask_sizes": masks.sizes,
        "mask_lengths": lengths,
        "mask_counts": np.frombuffer(b"".join(texts), dtype=np.uint8),
    }


def _unpack_masks(arrays: Mapping[str, np.ndarray]) -> Masks:
    """Inverse of `_pack_masks`."""
    text, ends = arrays["mask_counts"].tobytes().decode("ascii"), np.cumsum(arrays["mask_lengths"]).tolist()
    counts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return Masks(np.array(counts, dtype=object), arrays["mask_sizes"])


def is_above(score: Any, threshold: float | np.ndarray) -> np.ndarray:
    """Scores above a threshold, not at it, of any shape: the only comparison of the two.

    It is made in fp32, the precision of a model's scores, as `post_process_object_detection` and `pipeline()` make it:
    in double precision the fp32 score 0.1, which is 0.10000000149, would be above a threshold of 0.1.
    """
    return np.asarray(score, dtype=np.float32) > np.asarray(threshold, dtype=np.float32)


def read_numbers(
    entries: list[dict], key: str, what: str, *, ids: bool = False, width: int | None = None
) -> np.ndarray:
    """Values `entry[key]` of all entries, [N] or [N, width], ids as int64; DataError where one is missing or unlike."""
    shape, kinds = (() if width is None else (width,)), "iu" if ids else "iuf"
    if not entries:
        return np.zeros((0, *shape), dtype=np.int64 if ids else float)

    def read(some: list[dict]) -> np.ndarray | None:
        try:
            values = np.asarray([entry[key] for entry in some])
        except (KeyError, TypeError, ValueError):
            return None
        return values if values.dtype.kind in kinds and values.shape == (len(some), *shape) else None

    values = read(entries)
    if values is None:
        bad = [index for index, entry in enumerate(entries) if read([entry]) is None]
        first = entries[bad[0]]
        expected = f"{width} numbers" if width else "an integer" if ids else "a number"
        found = repr(first.get(key, "nothing")) if isinstance(first, dict) else repr(first)
        raise DataError(
            f"COCO {what}: {key!r} must be {expected} in every entry; it is not in {join_limited(bad)} "
            f"(counted from 0), where the first has {found[:80]}"
        )
    return values.astype(np.int64 if ids else float)


def to_detections(
    detections: Any, image_ids: Any, label_map: "LabelMap", masks: Mapping[int, Masks] | None = None
) -> Detections:
    """Detections with the data's category ids.

    Left out are classes with a negative id, which the data do not have, and scores of images that could not be read.

    Args:
        detections: `[N, Q, 6]`: score (NaN where the image could not be read), label and xyxy in original pixels.
        image_ids: `[N]`.
        label_map: the model's labels with the data's category ids.
        masks: by image id the masks of its Q detections, of images that could be read; None without a mask head.
    """
    detections, image_ids = torch.as_tensor(detections), torch.as_tensor(image_ids)
    flat = detections.flatten(0, 1)
    category_id = torch.tensor(label_map.category_ids)[flat[:, 1].long()]
    known = (category_id >= 0) & ~flat[:, 0].isnan()
    none = Masks.empty(detections.shape[1])
    of_images = [(masks or {}).get(image_id, none) for image_id in image_ids.tolist()]
    return Detections(
        image_id=image_ids.repeat_interleave(detections.shape[1])[known].numpy(),
        category_id=category_id[known].numpy(),
        score=flat[known, 0].double().numpy(),
        boxes_xywh_px=xyxy_to_xywh(flat[known, 2:].double()).numpy(),
        masks=None if masks is None else Masks.concat(of_images).select(known.numpy()),
    )
