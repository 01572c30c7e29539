"""Convolutions of mobile networks on a CPU: the same sums, by those of oneDNN's kernels that are fast.

- It has a fast gradient of depthwise weights for kernels of up to 3 columns. Wider ones, 5 x 5 in every EfficientNet,
  are computed as if each channel read seven others. So columns are taken in groups of 3.
- Its gradient of a depthwise convolution's input takes up to four times as long as the convolution itself, in bf16 with
  a stride of 2 sixty times. It is a convolution with the kernel turned round, of the gradient with zeros between.
- TensorFlow's "same" padding puts one pixel more behind an image than before it, which no convolution of torch's can:
  timm copies each map into a larger one. Padded by a stride more on both sides, the first row and column of the result
  are dropped instead, where no gradient is wanted.
- ReLU6 in place first copies what it overwrites, for its gradient, which can be told from its result.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

COLUMNS = 3
"""Kernel columns that a fast gradient of depthwise weights takes at once."""

Pair = tuple[int, int]


def speed_up_depthwise(model: nn.Module) -> None:
    """Lets depthwise convolutions whose norms are not folded compute their gradients in the fast way, in place."""
    for module in model.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels and "forward" not in vars(module):
            module.forward = MethodType(_convolve_itself, module)  # type: ignore[method-assign]


def _convolve_itself(self: Any, x: torch.Tensor) -> torch.Tensor:
    return convolve(x, self.weight, self.bias, self, same_padding=False)


def convolve(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, layer: Any, same_padding: bool
) -> torch.Tensor:
    """Convolution of images `[B, C, H, W]` as a layer of torch's or timm's does it, with other weights.

    Args:
        x: images or maps.
        weight: `[D, C / groups, h, w]`.
        bias: `[D]`, or None.
        layer: a convolution whose stride, padding, dilation and groups are taken.
        same_padding: pad as TensorFlow does, instead of as the layer says.
    """
    stride, padding, dilation, groups = layer.stride, layer.padding, layer.dilation, layer.groups
    trains = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    exported = torch.compiler.is_exporting() or torch.jit.is_tracing()  # no format has padding that sizes decide on
    if same_padding and not trains and not exported:
        return _convolve_same(x, weight, bias, stride, dilation, groups)
    if same_padding:
        x, padding = pad_same(x, weight.shape[2:], stride, dilation), (0, 0)
    is_depthwise = groups == len(weight) == x.shape[1] and max(dilation) == 1 and not isinstance(padding, str)
    if trains and is_depthwise and x.device.type == "cpu" and not torch.compiler.is_compiling():
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        result: torch.Tensor = _Depthwise.apply(x, weight, bias, stride, padding)
        return result
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _convolve_same(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: Pair, dilation: Pair, groups: int
) -> torch.Tensor:
    size = x.shape[2:]
    sides = [pad_before_and_drop(*side) for side in zip(size, weight.shape[2:], stride, dilation, strict=True)]
    padding, (top, left) = zip(*sides, strict=True)
    height, width = (-(-length // step) for length, step in zip(size, stride, strict=True))
    result = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return result[:, :, top : top + height, left : left + width]


def pad_same(x: torch.Tensor, kernel: Sequence[int], stride: Pair, dilation: Pair) -> torch.Tensor:
    """Images `[B, C, H, W]` with zeros around them as TensorFlow's "same" padding has them."""
    height, width = (same_padding_of(*side) for side in zip(x.shape[2:], kernel, stride, dilation, strict=True))
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


def same_padding_of(size: int, kernel: int, stride: int, dilation: int) -> Any:
    """Rows or columns of zeros, on both sides together, of TensorFlow's "same" padding.

    The same as timm's `get_same_padding`, in whole numbers: a size that is only known later can go through it.
    """
    total: Any = (size - 1) // stride * stride + (kernel - 1) * dilation + 1 - size
    padding: Any = total.clamp(min=0) if isinstance(total, torch.Tensor) else torch.sym_max(total, 0)
    return padding


def pad_before_and_drop(size: int, kernel: int, stride: int, dilation: int) -> Pair:
    """Padding on both sides, and results to drop at the beginning, that come to TensorFlow's "same" padding."""
    total = same_padding_of(size, kernel, stride, dilation)
    before, behind = total // 2, total - total // 2
    drop = -((before - behind) // stride)
    return before + drop * stride, drop


def relu6(x: torch.Tensor) -> torch.Tensor:
    """ReLU6 that keeps nothing but its result for the gradient."""
    result: torch.Tensor = _ReLU6.apply(x)
    return result


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        result = x.clamp(0, 6)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.hardtanh_backward(gradient, *ctx.saved_tensors, 0, 6)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: Pair, padding: Pair
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        return (
            gradient_of_input(gradient, x, weight, ctx.stride, ctx.padding) if wants_x else None,
            gradient_of_weight(gradient, x, weight, ctx.stride, ctx.padding) if wants_weight else None,
            gradient.sum((0, 2, 3)) if wants_bias else None,
            None,
            None,
        )


def gradient_of_input(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair
) -> torch.Tensor:
    """Gradient of a depthwise convolution's input."""
    around = [kernel - 1 - pad for kernel, pad in zip(weight.shape[2:], padding, strict=True)]
    if min(around) >= 0 and (max(stride) == 1 or gradient.dtype == torch.bfloat16):
        spread = gradient if max(stride) == 1 else _with_zeros_between(gradient, x, weight, stride, padding)
        return F.conv2d(spread, weight.flip(2, 3), None, 1, around, groups=len(weight))
    return _convolution_backward(gradient, x, weight, stride, padding, [True, False, False])[0]


def _with_zeros_between(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair
) -> torch.Tensor:
    """The gradient where a stride of 1 would have it, in the layout of `x`."""
    sizes = zip(x.shape[2:], weight.shape[2:], padding, strict=True)
    height, width = (length + 2 * pad - kernel + 1 for length, kernel, pad in sizes)
    together = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if together else torch.contiguous_format
    spread = torch.empty((*x.shape[:2], height, width), dtype=x.dtype, device=x.device, memory_format=layout).zero_()
    spread[:, :, :: stride[0], :: stride[1]] = gradient
    return spread


def gradient_of_weight(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair
) -> torch.Tensor:
    """Gradient of a depthwise convolution's weights, some columns of the kernel at a time."""
    rows, columns = weight.shape[2:]
    is_usual = padding[0] <= rows // 2 and padding[1] <= columns // 2
    if columns <= COLUMNS and is_usual:
        return _convolution_backward(gradient, x, weight, stride, padding, [False, True, False])[1]
    parts = []
    height = (gradient.shape[2] - 1) * stride[0] + rows
    for first in range(0, columns, COLUMNS):
        part = weight[..., first : first + COLUMNS]
        width = (gradient.shape[3] - 1) * stride[1] + part.shape[3]
        left, top = padding[1] - first, padding[0]
        read = F.pad(x, (left, width - left - x.shape[3], top, height - top - x.shape[2]))
        parts.append(_convolution_backward(gradient, read, part, stride, (0, 0), [False, True, False])[1])
    return torch.cat(parts, dim=3)


def _convolution_backward(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Pair, padding: Pair, wanted: list[bool]
) -> tuple[torch.Tensor, ...]:
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )
