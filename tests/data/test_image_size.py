"""Photos resized without the processor's copy: the very same pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DetrImageProcessor

from hf_detr_ft.data.image_size import resize_photo
from hf_detr_ft.inference.detect import prepare

SIZES = [{"shortest_edge": 96, "longest_edge": 160}, {"height": 64, "width": 80}, {"height": 3, "width": 3}]


def draw_noise(height: int, width: int) -> Image.Image:
    """Even a bit that is rounded another way shows in it."""
    return Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES, ids=["by edges", "to a shape", "as many pixels as colours"])
@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("shape", [(480, 641), (333, 211), (20, 30), (96, 128), (3, 500)])
def test_the_same_bytes_as_the_processors(shape: tuple[int, int], resample: int, size: dict[str, int]) -> None:
    photo = draw_noise(*shape)
    processor = DetrImageProcessor(size=size, resample=resample)
    raw = processor(photo, do_rescale=False, do_normalize=False, do_pad=False, return_tensors="pt")
    assert torch.equal(resize_photo(photo, processor), raw["pixel_values"][0])
    expected = processor(photo, do_pad=False, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(prepare(photo, processor), expected)


def test_another_size_than_the_processors() -> None:
    assert resize_photo(draw_noise(90, 120), DetrImageProcessor(), {"height": 30, "width": 40}).shape == (3, 30, 40)


def test_a_processor_that_does_not_resize() -> None:
    photo, processor = draw_noise(48, 64), DetrImageProcessor(do_resize=False)
    expected = processor(photo, do_pad=False, return_tensors="pt")["pixel_values"][0]
    assert expected.shape == (3, 48, 64)
    assert torch.equal(prepare(photo, processor), expected)
