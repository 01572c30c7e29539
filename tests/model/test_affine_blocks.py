"""HGNetV2's affine blocks in one pass: equal results, and maps that stay in bf16."""

import pytest
import torch
from transformers.models.hgnet_v2.modeling_hgnet_v2 import HGNetV2LearnableAffineBlock

from hf_detr_ft.model.speed.affine_blocks import speed_up_affine_blocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("images", [1, 2], ids=["an image", "images"])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_block_computes_the_same_in_the_precision_of_its_map(
    images: int, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    plain, fast = HGNetV2LearnableAffineBlock(1.3, -0.2), HGNetV2LearnableAffineBlock(1.3, -0.2)
    speed_up_affine_blocks(fast)
    torch.manual_seed(0)
    x = torch.randn(images, 8, 6, 5).contiguous(memory_format=layout).to(dtype)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    found, expected = fast(inputs[0]), plain(inputs[1])
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(found, expected.to(dtype))
    upstream = torch.randn(images, 30, 8, dtype=dtype)  # of a map that was flattened to a sequence
    for result in (found, expected):
        (result.flatten(2).transpose(1, 2) * upstream).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for name in ("scale", "bias"):
        close = {"rtol": 1e-2, "atol": 0.1} if dtype == torch.bfloat16 else {}
        torch.testing.assert_close(getattr(fast, name).grad, getattr(plain, name).grad, **close)
