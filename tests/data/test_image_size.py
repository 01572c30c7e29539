"""The one rule for image sizes is the processor's, and so are the pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DetrImageProcessor

from hf_detr_ft.data.image_size import ImageSize, resize_image
from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.inference.detect import prepare
from hf_detr_ft.training.data_pipeline import build_processor
from tests.fixtures import new_model

SIZES = [ImageSize(96, 160), ImageSize.exactly(64, 80), ImageSize.exactly(3, 3)]


def draw_noise(height: int, width: int) -> Image.Image:
    """Even a bit that is rounded another way shows in it."""
    return Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES, ids=["by edges", "to a shape", "as many pixels as colours"])
@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("shape", [(480, 641), (333, 211), (20, 30), (96, 128), (3, 500)])
def test_the_same_bytes_as_the_processors(shape: tuple[int, int], resample: int, size: ImageSize) -> None:
    photo = draw_noise(*shape)
    processor = DetrImageProcessor(size=size.as_dict(), resample=resample)
    raw = processor(photo, do_rescale=False, do_normalize=False, do_pad=False, return_tensors="pt")
    assert torch.equal(resize_image(photo, processor), raw["pixel_values"][0])
    expected = processor(photo, do_pad=False, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(prepare(photo, processor), expected)


def test_another_size_than_the_processors() -> None:
    assert resize_image(draw_noise(90, 120), DetrImageProcessor(), ImageSize.exactly(30, 40)).shape == (3, 30, 40)


def test_a_processor_that_does_not_resize() -> None:
    photo, processor = draw_noise(48, 64), DetrImageProcessor(do_resize=False)
    expected = processor(photo, do_pad=False, return_tensors="pt")["pixel_values"][0]
    assert expected.shape == (3, 48, 64)
    assert torch.equal(prepare(photo, processor), expected)


@pytest.mark.parametrize("size", SIZES, ids=["by edges", "to a shape", "as many pixels as colours"])
@pytest.mark.parametrize("shape", [(480, 641), (333, 211), (20, 30), (96, 128), (3, 500), (500, 3), (160, 97)])
def test_sizes_are_those_that_the_processor_makes(shape: tuple[int, int], size: ImageSize) -> None:
    processor = DetrImageProcessor(size=size.as_dict())
    made = processor(draw_noise(*shape), do_pad=False, return_tensors="pt")["pixel_values"][0]
    assert size.of(*shape) == tuple(made.shape[1:])
    assert ImageSize.from_processor(processor) == size
    assert not size.is_too_thin(*shape)


@pytest.mark.parametrize("shape", [(1, 400), (400, 1), (2, 641)])
def test_an_image_is_too_thin_where_the_processor_fails(shape: tuple[int, int]) -> None:
    size = ImageSize(96, 160)
    assert size.is_too_thin(*shape)
    with pytest.raises((ValueError, RuntimeError)):
        resize_image(draw_noise(*shape), DetrImageProcessor(size=size.as_dict()))
    assert not ImageSize.exactly(96, 96).is_too_thin(*shape), "a square has room for every image"
    assert not ImageSize(96, 800).is_too_thin(*shape)


def test_many_sizes_are_resized_each_on_its_own() -> None:
    sizes = np.array([[480, 640], [640, 480], [480, 640], [100, 2000]])
    resized = ImageSize(800, 1333).of_each(sizes)
    assert resized.tolist() == [[800, 1066], [1066, 800], [800, 1066], [67, 1333]]
    assert ImageSize(800, 1333).of_each(sizes[:0]).shape == (0, 2)
    assert ImageSize.exactly(200, 400).of_each(sizes).tolist() == [[200, 400]] * 4


def test_augmentation_draws_another_short_side_but_no_other_shape() -> None:
    assert ImageSize(96, 160).with_shortest_edge(60) == ImageSize(60, 160)
    assert ImageSize.exactly(96, 96).with_shortest_edge(60) == ImageSize.exactly(96, 96)


def test_a_recipe_asks_for_edges_or_for_a_square() -> None:
    by_edges, square = new_model(shortest_edge=480, longest_edge=800), new_model(square_edge=160)
    assert dict(build_processor(by_edges).size) == {"shortest_edge": 480, "longest_edge": 800}
    assert dict(build_processor(square).size) == {"height": 160, "width": 160}
    assert ImageSize.from_config(square).shortest_edge == 160
    assert ImageSize.from_config(by_edges).keeps_shape
    assert not ImageSize.from_config(square).keeps_shape


def test_a_processor_with_another_kind_of_size_is_refused() -> None:
    with pytest.raises(CheckpointError, match="expected shortest_edge and longest_edge, or height and width, found"):
        ImageSize.from_processor(DetrImageProcessor(size={"max_height": 80, "max_width": 60}))
