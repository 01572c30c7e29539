import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image

from hf_detr_ft.data.byte_resize import resize_bytes

SHAPES = ((90, 150, 60, 100), (150, 90, 160, 96), (97, 64, 97, 31), (240, 320, 32, 32), (5, 7, 40, 3), (33, 33, 33, 33))


@pytest.mark.parametrize(("height", "width", "new_height", "new_width"), SHAPES)
def test_bytes_are_those_of_torch(height: int, width: int, new_height: int, new_width: int):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    wanted = F.resize(tensor, [new_height, new_width], antialias=True).permute(1, 2, 0).numpy()
    assert np.array_equal(resize_bytes(Image.fromarray(pixels), new_height, new_width, 2), wanted)


def test_other_ways_to_interpolate_are_those_of_pillow():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    assert np.array_equal(resize_bytes(image, 20, 30, 3), np.asarray(image.resize((30, 20), Image.Resampling.BICUBIC)))
