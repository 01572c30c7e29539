"""Frozen batch norms folded into the convolutions before them.

A frozen batch norm is a multiplication and an addition per channel, each of which goes through the whole feature map
once more, forward and backward. Multiplied into the weights of the convolution before it, at each forward, they cost
next to nothing, and the gradient of the convolution's own weights stays what it was.

Nothing says which norm follows which convolution, in any of timm's networks. So a random image goes through the
network once, and hooks note which convolution's output each norm takes in. Each pair then gets a `forward` of its own
in the *instance's* `__dict__`, where Python finds it before the class's: the convolution convolves with folded weights,
the norm passes on what it gets. Modules, parameters, buffers and their names stay the same, so what is saved is the
stock model, and a deep copy folds its own weights. The image goes through a second time with random norms; where the
result differs, since something else reads the convolution's output too, the entries are taken out again.
"""

from types import MethodType
from typing import Any

import torch
from timm.layers import Conv2dSame, FrozenBatchNormAct2d
from torch import nn

from hf_detr_ft.model.speed.convolution import convolve, relu6

PROBE_SIDE = 64
"""Pixels a side of the image that shows which norm follows which convolution."""


def is_frozen_norm(module: nn.Module) -> bool:
    """True for timm's, torchvision's, and those that each family of Transformers has a class of its own for."""
    return isinstance(module, FrozenBatchNormAct2d) or type(module).__name__.endswith("FrozenBatchNorm2d")


@torch.no_grad()
def fold_frozen_norms(backbone: nn.Module) -> int:
    """Lets convolutions do the work of the frozen batch norms behind them, from now on and in place.

    Args:
        backbone: takes images `[B, 3, H, W]`; in evaluation mode or not.

    Returns:
        The number of norms that are folded. It is 0 where the result would not be the same: a network that reads the
        output of a convolution both before and behind its norm.
    """
    if not any(is_frozen_norm(module) for module in backbone.modules()):
        return 0  # no probe either, whose size not every network takes
    training = backbone.training
    backbone.eval()
    parameter = next(backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, PROBE_SIDE, PROBE_SIDE, generator=generator).to(parameter)
    pairs = _find_pairs(backbone, image)
    norms = [norm for _, norm in pairs]
    saved = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    for norm in norms:  # fresh norms do nothing, and any folding would seem right
        for name, buffer in norm.named_buffers():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + (0.5 if name == "running_var" else 0))
    before = _feature_maps(backbone(image))
    for convolution, norm in pairs:
        vars(convolution)["folded_norm"] = norm  # not as an attribute, which would make it a submodule
        convolution.forward = MethodType(_convolve_and_normalise, convolution)  # type: ignore[method-assign]
        norm.forward = MethodType(_activate, norm)
    after = _feature_maps(backbone(image))
    same = all(torch.allclose(*both, rtol=1e-3, atol=1e-4) for both in zip(before, after, strict=True))
    for norm, buffers in zip(norms, saved, strict=True):
        for name, buffer in norm.named_buffers():
            buffer.copy_(buffers[name])
    if not same:
        for convolution, norm in pairs:
            del vars(convolution)["folded_norm"], convolution.forward, norm.forward
    backbone.train(training)
    return len(pairs) if same else 0


def cache_folded_weights(backbone: nn.Module) -> None:
    """Folds norms only once from now on, where no gradients are asked for: for weights that do not change any more."""
    for module in backbone.modules():
        if "folded_norm" in vars(module):
            vars(module)["cached_fold"] = None


def _feature_maps(output: Any) -> list[torch.Tensor]:
    maps = getattr(output, "feature_maps", output)
    return [maps] if isinstance(maps, torch.Tensor) else list(maps)


def _find_pairs(backbone: nn.Module, image: torch.Tensor) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Each frozen norm with the convolution whose output goes into it, as one forward shows."""
    produced: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.Module]] = []

    def note_output(module: Any, _: Any, output: torch.Tensor) -> None:
        produced[id(output)] = (module, output)  # kept, so that no later tensor gets its id

    def note_input(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if id(inputs[0]) in produced:
            pairs.append((produced[id(inputs[0])][0], module))

    convolutions = [module for module in backbone.modules() if type(module) in (nn.Conv2d, Conv2dSame)]
    hooks = [convolution.register_forward_hook(note_output) for convolution in convolutions]
    hooks += [m.register_forward_pre_hook(note_input) for m in backbone.modules() if is_frozen_norm(m)]
    try:
        backbone(image)
    finally:
        for hook in hooks:
            hook.remove()
    firsts, seconds = ([id(module) for module in column] for column in zip(*pairs, strict=True)) if pairs else ((), ())
    return [pair for pair in pairs if firsts.count(id(pair[0])) == 1 == seconds.count(id(pair[1]))]


def _convolve_and_normalise(self: Any, x: torch.Tensor) -> torch.Tensor:
    """The `forward` of a convolution with a `folded_norm`."""
    is_cached = "cached_fold" in vars(self) and not torch.is_grad_enabled()
    weight, bias = _fold_once(self, x) if is_cached else _fold(self)
    return convolve(x, weight, bias, self, same_padding=isinstance(self, Conv2dSame))


def _fold(convolution: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias that do what convolution and norm do."""
    norm = convolution.folded_norm
    epsilon = getattr(norm, "eps", 1e-5)  # Transformers' is written into its forward
    scale = norm.weight * (norm.running_var + epsilon).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    weight = convolution.weight * scale[:, None, None, None]
    return weight, shift if convolution.bias is None else shift + convolution.bias * scale


def _fold_once(convolution: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The result of the first `_fold`, in the dtype that autocast wants; anew for another dtype or device."""
    autocast = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else convolution.weight.dtype
    cached = convolution.cached_fold
    if cached is None or (cached[0].dtype, cached[0].device) != (dtype, x.device):
        cached = vars(convolution)["cached_fold"] = tuple(part.to(dtype) for part in _fold(convolution))
    return cached


def _activate(self: Any, x: torch.Tensor) -> torch.Tensor:
    """The `forward` of a folded norm: the activation that timm keeps inside some norms, else nothing."""
    if not isinstance(self, FrozenBatchNormAct2d):
        return x
    x = self.drop(x)
    return relu6(x) if type(self.act) is nn.ReLU6 and x.requires_grad else self.act(x)
