"""Convolutions that compute their gradients in another way: equal results, and the fast way taken where it is meant."""

from typing import Any

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from hf_detr_ft.model.speed import convolution
from hf_detr_ft.model.speed.convolution import COLUMNS, convolve, relu6, speed_up_depthwise


def depthwise(kind: Any, kernel: int, stride: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    padding = {} if kind is Conv2dSame else {"padding": kernel // 2}
    layer: nn.Conv2d = kind(8, 8, kernel, stride, groups=8, **padding).double()
    return layer


def gradients(result: torch.Tensor, *of: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    drawn = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    upstream = drawn.to(result.dtype)  # in bf16 itself torch 2.11 draws other numbers
    return torch.autograd.grad(result, [tensor for tensor in of if tensor is not None], upstream)


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (6, 2), (4, 3)])
@pytest.mark.parametrize("size", [(14, 15), (21, 20), (9, 9)])
def test_depthwise_convolutions_and_their_gradients_stay_the_same(
    kind: Any, kernel: int, stride: int, size: tuple[int, int]
) -> None:
    layer = depthwise(kind, kernel, stride)
    images = torch.randn(2, 8, *size, dtype=torch.float64, requires_grad=True)
    expected = layer(images)
    result = convolve(images, layer.weight, layer.bias, layer, kind is Conv2dSame)
    torch.testing.assert_close(result, expected)
    of = (images, layer.weight, layer.bias)
    for ours, theirs in zip(gradients(result, *of), gradients(expected, *of), strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(
            convolve(images, layer.weight, layer.bias, layer, kind is Conv2dSame), expected.detach()
        )


def test_wide_kernels_are_taken_in_columns_that_have_a_fast_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []
    plain = convolution._convolution_backward

    def note(gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
        asked.append((weight.shape[3], rest[-1]))
        return plain(gradient, x, weight, *rest)

    monkeypatch.setattr(convolution, "_convolution_backward", note)
    layer = depthwise(nn.Conv2d, 5, 1)
    images = torch.randn(2, 8, 12, 12, dtype=torch.float64, requires_grad=True)
    convolve(images, layer.weight, layer.bias, layer, False).sum().backward()
    assert asked == [(COLUMNS, [False, True, False]), (2, [False, True, False])], "the input's is a convolution"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu6_has_the_gradient_of_torchs_at_its_bends_too(dtype: torch.dtype) -> None:
    values = torch.tensor([-1, -0.0, 0, 1e-3, 3, 5.99, 6, 7], dtype=dtype, requires_grad=True)
    assert torch.equal(relu6(values), nn.functional.relu6(values))
    (ours,), (theirs,) = gradients(relu6(values), values), gradients(nn.functional.relu6(values), values)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 1), (5, 2), (3, (1, 2))])
@pytest.mark.parametrize("size", [(14, 15), (9, 8)])
def test_under_autocast_gradients_are_those_of_fp32_rounded(kernel: int, stride: Any, size: tuple[int, int]) -> None:
    layer = depthwise(nn.Conv2d, kernel, stride).float()
    images = torch.randn(2, 8, *size).to(memory_format=torch.channels_last).requires_grad_()
    of = (images, layer.weight, layer.bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = convolve(images, layer.weight, layer.bias, layer, False)
    assert result.dtype == torch.bfloat16
    for ours, theirs in zip(gradients(result, *of), gradients(layer(images), *of), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02 * float(theirs.abs().max()))


def test_a_stride_in_bf16_asks_for_no_slow_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """OneDNN's takes sixty times as long for a map of 80 x 80 with 256 channels."""
    asked: list[list[bool]] = []
    plain = convolution._convolution_backward
    monkeypatch.setattr(convolution, "_convolution_backward", lambda *args: asked.append(args[-1]) or plain(*args))
    network = nn.Sequential(depthwise(nn.Conv2d, 3, 2).float(), nn.Conv2d(8, 4, 1))
    forward = network[1].forward
    speed_up_depthwise(network)
    assert network[1].forward == forward, "only depthwise convolutions"
    images = torch.randn(2, 8, 12, 12, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(images).sum().backward()
    assert asked == [[False, True, False]], "the input's is a convolution"
