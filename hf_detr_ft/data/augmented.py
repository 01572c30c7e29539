"""Augmentation of one image: the same seed on the same image gives the same result, everywhere."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.errors import RecipeError, first_line

PIXEL_SEED_OFFSET = 2**32
"""Added to a seed, which is below it, for the draws that do not change the shape."""


@dataclass(frozen=True)
class CropParams:
    """Shape of one augmented image, drawn without its pixels."""

    window: tuple[float, float, float, float]
    """Window that is cut out, (left, top, right, bottom) in the image's pixels and parts of them."""
    size: tuple[int, int]
    """Size (height, width) that the window is resized to before the processor's resize."""
    shortest_edge: int
    """Short side in pixels that the processor resizes to."""


@dataclass(frozen=True)
class Augmented:
    """One image after augmentation, before the processor's resize."""

    image: np.ndarray
    """Pixels `[h, w, 3]` uint8."""
    boxes_xywh_px: np.ndarray
    """Boxes `[k, 4]` float32, inside the image."""
    kept: np.ndarray
    """Indices `[k]` int64 of these among the boxes that were given."""
    shortest_edge: int
    """Short side in pixels that the processor resizes to."""
    masks: np.ndarray | None = None
    """Masks `[k, h, w]` uint8 of these boxes' objects, where masks were given."""


class Augmentation:
    """Draws and applies one augmentation; the same seed on the same image gives the same result, everywhere.

    A crop is DETR's `RandomResize` and `RandomSizeCrop` in one: the image is thought of as resized to a short
    side drawn from `crop_edges`; a window of whole pixels of it, its sides drawn one by one from `crop_sides`, is
    what remains.

    Args:
        pipeline: of albumentations, for boxes in COCO's format with the label field `kept`, with a `RandomSizeCrop`
            where it crops.
        shortest_edges: short sides in pixels to draw the final size from.
        random_crop: probability.
        crop_edges: short sides in pixels.
        crop_sides: least and most pixels of a side of the window, where the resized image has them.
        mosaic: probability that an image is made part of a mosaic before, see `data/mosaic.py`.
        steps: the last so many of the pipeline are a user's; they see images as large as the model does.
        reshapes: an image may have another size after them.
        copy_paste: probability that objects of another image lie on it before, see `data/copy_paste.py`.
        min_visibility: boxes of which either leaves a smaller share go.
    """

    def __init__(
        self,
        pipeline: Any,
        shortest_edges: Sequence[int],
        random_crop: float = 0.0,
        crop_edges: Sequence[int] = (),
        crop_sides: tuple[int, int] = (0, 0),
        mosaic: float = 0.0,
        copy_paste: float = 0.0,
        steps: int = 0,
        reshapes: bool = False,
        min_visibility: float = 0.0,
    ) -> None:
        self.pipeline = pipeline
        self.mosaic = mosaic
        self.copy_paste = copy_paste
        self.steps = steps
        self.reshapes = reshapes
        self.min_visibility = min_visibility
        self.shortest_edges = list(shortest_edges)
        self.random_crop = random_crop
        self.crop_edges = list(crop_edges)
        self.crop_sides = crop_sides

    @property
    def draws_shapes(self) -> bool:
        """True where an image's shape differs from epoch to epoch."""
        return len(set(self.shortest_edges)) > 1 or self.random_crop > 0 or self.reshapes

    def draw_crop(self, height: int, width: int, seed: int) -> CropParams:
        """The shape that `seed` draws for an image of so many pixels.

        Images that differ in size alone get windows that differ in size alone, so that the shape that the model sees
        follows, but for rounding, from the aspect ratio.
        """
        draws = random.Random(seed)
        shortest_edge = draws.choice(self.shortest_edges)
        if draws.random() >= self.random_crop:
            return CropParams((0, 0, width, height), (height, width), shortest_edge)
        crop_edge = draws.choice(self.crop_edges)
        drawn = [self._draw(draws, side, int(crop_edge * side / min(height, width))) for side in (height, width)]
        (top, bottom, new_height), (left, right, new_width) = drawn
        return CropParams((left, top, right, bottom), (new_height, new_width), shortest_edge)

    def _draw(self, draws: random.Random, side: int, resized: int) -> tuple[float, float, int]:
        """Begin and end of the window along one side of the image, and the pixels that it is resized to."""
        smallest, largest = self.crop_sides
        length = draws.randint(min(smallest, resized), min(largest, resized))
        offset = draws.randint(0, resized - length)
        return offset * side / resized, min((offset + length) * side / resized, side), length

    def __call__(
        self,
        image: np.ndarray,
        boxes_xywh_px: np.ndarray,
        seed: int,
        masks: np.ndarray | None = None,
        size: ImageSize | None = None,
    ) -> Augmented:
        """Augments one image.

        Args:
            image: `[h, w, 3]` uint8.
            boxes_xywh_px: `[n, 4]`; boxes may touch or cross the border; those without an area inside it, or with
                numbers that are not finite, go.
            seed: of every random draw, 0 or more.
            masks: `[n, h, w]` uint8, of the boxes' objects.
            size: that the model takes images in; needed for a user's steps.

        Raises:
            RecipeError: a user's step does not work on this image.
        """
        boxes = np.asarray(boxes_xywh_px, dtype=np.float64).reshape(-1, 4)
        finite = np.flatnonzero(np.isfinite(boxes).all(axis=1))
        height, width = image.shape[:2]
        crop = self.draw_crop(height, width, seed)
        if self.steps and size is not None:  # pixels in their arguments are the model's, wherever an image comes from
            of_model = size.with_shortest_edge(crop.shortest_edge).of(*crop.size)
            crop = replace(crop, size=(max(1, of_model[0]), max(1, of_model[1])))
        # One generator for all steps: `set_random_seed` would give each the same draws, and flip just what is cropped.
        self.pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed + PIXEL_SEED_OFFSET))
        given = (
            {} if masks is None or not len(masks) else {"masks": masks}
        )  # of none, albumentations would make no stack
        result = self._run(image=image, bboxes=boxes[finite], kept=finite, crop=crop, **given)
        kept = np.asarray(result["kept"], dtype=np.float64).astype(np.int64)  # albumentations returns floats
        if masks is not None:
            shape = result["image"].shape[:2]
            masks = result["masks"][kept] if given else np.zeros((0, *shape), dtype=np.uint8)
        return Augmented(
            image=result["image"],
            boxes_xywh_px=np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, 4),
            kept=kept,
            shortest_edge=crop.shortest_edge,
            masks=masks,
        )

    def _run(self, crop: CropParams, **given: Any) -> dict[str, Any]:
        """Result of the pipeline; an error that speaks of the recipe where a user's step does not work."""
        try:
            result: dict[str, Any] = self.pipeline(crop=crop, **given)
        except Exception as error:  # whatever a step raises
            if not self.steps:
                raise
            raise _refusal(crop.size, f"stops with {type(error).__name__}: {first_line(error)}") from error
        if self.steps and (result["image"].dtype != np.uint8 or result["image"].shape[2:] != (3,)):
            raise _refusal(crop.size, "gives no image of three colours in 8 bits")
        return result


def _refusal(size: tuple[int, int], what: str) -> RecipeError:
    return RecipeError(
        f"augment.pipeline: on an image of {size[0]} x {size[1]} pixels a step {what}. Correct its arguments, which "
        "count in pixels of the resized image, or leave it out."
    )
