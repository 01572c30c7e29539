"""The size that images are resized to: one rule for the processor, the caches, the statistics and the checks."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import SizeDict

from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.recipe.sections import ModelConfig
from hf_detr_ft.run_folder import PROCESSOR


class ImageProcessor(Protocol):
    """Parts that are used of Transformers' image processors, whatever their class."""

    size: Any
    resample: Any
    do_resize: Any
    do_rescale: Any
    rescale_factor: Any
    do_normalize: Any
    image_mean: Any
    image_std: Any

    def __call__(self, images: Any, **kwargs: Any) -> Any:
        """Prepares images; see Transformers."""

    def preprocess(self, images: Any, annotations: Any = None, **kwargs: Any) -> Any:
        """Prepares images with annotations; see Transformers."""

    def resize(self, image: Any, size: Any, resample: Any = None) -> Any:
        """Resizes images `[B, 3, h, w]`; see Transformers."""

    def save_pretrained(self, folder: Any) -> Any:
        """Writes it to a folder."""


@dataclass(frozen=True)
class ImageSize:
    """Size in pixels that a processor resizes images to, which keep their shape or all get the same one."""

    shortest_edge: int
    """Short side of an image, unless its long side would then be longer than `longest_edge`."""
    longest_edge: int
    """Longest that the long side may be."""
    shape: tuple[int, int] | None = None
    """Size (height, width) of every image, whatever its own shape; None where images keep theirs."""

    @classmethod
    def exactly(cls, height: int, width: int) -> "ImageSize":
        """One shape for all images."""
        return cls(min(height, width), max(height, width), (height, width))

    @classmethod
    def from_config(cls, config: ModelConfig) -> "ImageSize":
        """The size that a recipe's `model` section asks for."""
        if config.square_edge is not None:
            return cls.exactly(config.square_edge, config.square_edge)
        return cls(config.shortest_edge, config.longest_edge)

    @classmethod
    def from_processor(cls, processor: ImageProcessor) -> "ImageSize":
        """The size that a processor resizes to.

        Raises:
            CheckpointError: it is given neither by the edges nor by height and width.
        """
        size = dict(processor.size)
        if {"shortest_edge", "longest_edge"} <= size.keys():
            return cls(size["shortest_edge"], size["longest_edge"])
        if {"height", "width"} <= size.keys():
            return cls.exactly(size["height"], size["width"])
        raise CheckpointError(
            "the image processor's size: expected shortest_edge and longest_edge, or height and width, found "
            f"{size}. Correct it in {PROCESSOR}."
        )

    @property
    def keeps_shape(self) -> bool:
        """True where images keep their aspect ratio."""
        return self.shape is None

    def with_shortest_edge(self, edge: int) -> "ImageSize":
        """The size with another short side, as augmentation draws it; the same where all images get one shape."""
        return replace(self, shortest_edge=edge) if self.keeps_shape else self

    def as_dict(self) -> dict[str, int]:
        """The `size` of a processor."""
        if self.shape is not None:
            return {"height": self.shape[0], "width": self.shape[1]}
        return {"shortest_edge": self.shortest_edge, "longest_edge": self.longest_edge}

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Size (height, width) in pixels of a resized image; a 0 among them where `is_too_thin`."""
        if self.shape is not None:
            return self.shape
        return get_size_with_aspect_ratio((height, width), self.shortest_edge, self.longest_edge)

    def of_each(self, sizes_px: np.ndarray) -> np.ndarray:
        """Sizes (height, width) in pixels of resized images, `[N, 2]` in and out."""
        # Images have few different sizes, and the processor's own rounding is better asked for than imitated.
        different, which = np.unique(sizes_px.reshape(-1, 2), axis=0, return_inverse=True)
        resized = [self.of(*size) for size in different.tolist()]
        return np.array(resized, dtype=np.int64).reshape(-1, 2)[which.reshape(-1)]

    def is_too_thin(self, height: int, width: int) -> bool:
        """True for an image so elongated that resizing would leave nothing of its short side."""
        return min(self.of(height, width)) < 1


def white_level_of(processor: ImageProcessor) -> int | None:
    """White of the images of 16 bits that a model was trained on, see `decode_rgb`; None where nothing was said."""
    return getattr(processor, "white_level", None)


def resizes_bytes(processor: ImageProcessor) -> bool:
    """True where a processor resizes images of 8 bits, with antialiasing; RF-DETR's makes them floats before that."""
    return type(processor).__name__ != "RfDetrImageProcessor"


def resize_image(image: Image.Image, processor: ImageProcessor, size: ImageSize | None = None) -> torch.Tensor:
    """Resizes an image as a processor does, byte for byte: `[3, h, w]` uint8.

    Called with an image, the processor would first copy it colour by colour, which for a large one takes longer than to
    resize it.

    Args:
        image: RGB.
        processor: whose way to interpolate is taken.
        size: by default the processor's.

    Raises:
        ValueError, RuntimeError: nothing would be left of a side.
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    target = dict(processor.size) if size is None else size.as_dict()
    return processor.resize(pixels[None], SizeDict(**target), processor.resample)[0]
