"""Images as people have them (paths, addresses, Pillow's images, arrays, tensors) to upright RGB, without torch."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

import hf_detr_ft
from hf_detr_ft.data.find_images import find_images
from hf_detr_ft.data.images import decode_rgb, to_upright_rgb
from hf_detr_ft.errors import DataError, first_line

if TYPE_CHECKING:
    import torch

ImageInput: TypeAlias = Union[str, os.PathLike[str], Image.Image, np.ndarray, "torch.Tensor"]
"""A path, an http(s) address, an image of Pillow, an array `[h, w, 3]` or a tensor `[3, h, w]`."""
ADDRESSES = ("http://", "https://")
LARGEST_DOWNLOAD = 200_000_000
"""Bytes of an image from an address."""
PATIENCE = 30
"""Seconds to wait for an address that does not answer."""
EXPECTED = "expected a path, an address, an image of Pillow, an array [h, w, 3] of uint8 or a tensor [3, h, w]"


def is_one_image(images: Any) -> bool:
    """True of a single image; false of a folder, and of several in a list, an array or a tensor."""
    if isinstance(images, str) and images.startswith(ADDRESSES):
        return True
    if isinstance(images, str | os.PathLike):
        return not os.path.isdir(os.path.expanduser(images))
    return isinstance(images, Image.Image) or (hasattr(images, "ndim") and images.ndim < 4)


def list_images(images: Any) -> Iterator[ImageInput]:
    """Single images of one or several, the files of folders among them, sorted.

    Raises:
        RecipeError: there is no image in a folder.
        DataError: it is nothing of the kind.
    """
    if is_one_image(images):
        yield images
    elif isinstance(images, str | os.PathLike):
        yield from find_images([os.fspath(images)], Path(os.devnull))
    elif hasattr(images, "__iter__"):
        for image in images:
            yield from list_images(image)
    else:
        raise DataError(f"{EXPECTED}, or several of them; found {type(images).__name__}")


def name_image(image: ImageInput) -> str | None:
    """The path or the address of an image; None of one in memory."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else None


def open_image(image: ImageInput, white_level: int | None = None) -> Image.Image:
    """An image as the model sees it; see `decode_rgb`.

    Args:
        image: files of any kind that Pillow reads. Arrays are `[h, w]`, `[h, w, 3]` (RGB, not OpenCV's BGR) or
            `[h, w, 4]`, of uint8; tensors `[1 or 3, h, w]`, of uint8 or floats from 0 to 1.
        white_level: see `decode_rgb`.

    Raises:
        DataError: it cannot be read, or is of another kind.
    """
    if isinstance(image, str) and image.startswith(ADDRESSES):
        return decode_rgb(download(image), image, white_level=white_level)
    if isinstance(image, str | os.PathLike):
        return decode_rgb(Path(image).expanduser(), white_level=white_level)
    if "torch" in sys.modules and isinstance(image, sys.modules["torch"].Tensor):
        image = _tensor_to_array(image)
    if isinstance(image, np.ndarray):
        image = _array_to_image(image)
    if not isinstance(image, Image.Image):
        raise DataError(f"{EXPECTED}; found {type(image).__name__}")
    return to_upright_rgb(image, white_level)


def download(address: str) -> bytes:
    """The content behind an http(s) address.

    Raises:
        DataError: it cannot be had, or is larger than 200 MB.
    """
    request = Request(address, headers={"User-Agent": f"hf_detr_ft/{hf_detr_ft.__version__}"})
    try:
        with urlopen(request, timeout=PATIENCE) as response:
            content: bytes = response.read(LARGEST_DOWNLOAD + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{address}: cannot be downloaded: {first_line(error)}. Check address and network.") from error
    if len(content) > LARGEST_DOWNLOAD:
        raise DataError(f"{address}: expected an image of at most {LARGEST_DOWNLOAD} bytes, found a larger file.")
    return content


def _tensor_to_array(tensor: "torch.Tensor") -> np.ndarray:
    """`[1 or 3, h, w]` to `[h, w]` or `[h, w, 3]` uint8."""
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3) or not tensor.numel():
        raise DataError(f"a tensor: expected the shape [3, h, w] or [1, h, w], found {list(tensor.shape)}")
    values = tensor.detach().cpu()
    if values.is_floating_point():
        low, high = values.min().item(), values.max().item()
        if not (low >= 0 and high <= 1):
            raise DataError(
                f"a tensor of floats: expected values from 0 to 1, found {low:.3g} to {high:.3g}. Give the image "
                "as it is before it is normalised."
            )
        values = (values.float() * 255).round().byte()
    array = values.permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[2] == 1 else array


def _array_to_image(array: np.ndarray) -> Image.Image:
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not is_image or array.dtype != np.uint8 or not array.size:
        raise DataError(
            f"an array: expected [h, w, 3] of uint8, found {list(array.shape)} of {array.dtype}. Colours come last; "
            "floats from 0 to 1 become (array * 255).astype('uint8')."
        )
    return Image.fromarray(np.ascontiguousarray(array))
