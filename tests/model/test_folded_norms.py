"""Folding of frozen norms into convolutions."""

import copy
import importlib

import pytest
import timm
import torch
from timm.layers import freeze_batch_norm_2d
from torch import nn

from hf_detr_ft.model.speed.folded_norms import cache_folded_weights, fold_frozen_norms, is_frozen_norm
from tests.fixtures import tiny_detr


def frozen_backbone(name: str) -> nn.Module:
    """A timm backbone whose frozen norms do something."""
    torch.manual_seed(0)
    backbone = freeze_batch_norm_2d(timm.create_model(name, features_only=True))
    for module in backbone.modules():
        if is_frozen_norm(module):
            for buffer in module.buffers():
                buffer.uniform_(0.5, 1.5)
    return backbone.double().eval()


def features_and_gradient(backbone: nn.Module, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    features = backbone(images)
    backbone.zero_grad()
    features[-1].square().mean().backward()
    gradients = [p.grad.flatten() for p in backbone.parameters() if p.grad is not None]
    return features, torch.cat(gradients)


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [("test_resnet", 15), ("tf_efficientnet_lite0", 48), ("mobilenetv3_small_100", 34), ("test_efficientnet", 12)],
)
def test_the_result_and_its_gradient_stay_the_same(name: str, convolutions: int) -> None:
    backbone = frozen_backbone(name)
    images = torch.randn(2, 3, 72, 90, dtype=torch.float64)
    before, gradient = features_and_gradient(backbone, images)
    state = copy.deepcopy(backbone.state_dict())

    assert fold_frozen_norms(backbone) == convolutions
    after, folded_gradient = features_and_gradient(backbone, images)

    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old)
    assert (folded_gradient - gradient).norm() / gradient.norm() < 1e-9
    assert list(backbone.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[key]) for key, tensor in backbone.state_dict().items())


def test_a_copy_uses_its_own_weights() -> None:
    backbone = frozen_backbone("test_resnet")
    fold_frozen_norms(backbone)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    twin = copy.deepcopy(backbone)
    expected = backbone(images)[-1]
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
    torch.testing.assert_close(twin(images)[-1], expected)
    assert not torch.allclose(backbone(images)[-1], expected)


def test_cached_weights_serve_inference_alone_in_the_dtype_that_is_wanted() -> None:
    backbone = frozen_backbone("test_resnet").float()
    fold_frozen_norms(backbone)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = backbone(images)[-1]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected_bf16 = backbone(images)[-1]
    cache_folded_weights(backbone)
    with torch.inference_mode():
        assert torch.equal(backbone(images)[-1], expected)
    first = next(module for module in backbone.modules() if "folded_norm" in vars(module))
    cached = vars(first)["cached_fold"]
    with torch.no_grad():
        backbone(images)
        assert vars(first)["cached_fold"] is cached, "folded once"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(backbone(images)[-1], expected_bf16)
        assert torch.equal(backbone(images)[-1], expected)
        for parameter in backbone.parameters():
            parameter.zero_()
        assert torch.equal(backbone(images)[-1], expected), "for weights that do not change any more"
    assert not torch.allclose(backbone(images)[-1], expected), "with gradients the weights count"


class Shortcut(nn.Module):
    """Reads a convolution's output before its norm too, as pre-activation networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = freeze_batch_norm_2d(nn.BatchNorm2d(4))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        features = self.conv(images)
        return [features + self.norm(features)]


def test_what_would_change_the_result_is_left_alone() -> None:
    network = Shortcut().double().eval()
    network.norm.weight.fill_(3.0)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = network(images)[0]
    assert fold_frozen_norms(network) == 0
    assert torch.equal(network(images)[0], expected)


def test_transformers_own_frozen_norms_are_folded() -> None:
    model = tiny_detr().eval()
    backbone = model.model.backbone.model
    for module in backbone.modules():
        if is_frozen_norm(module):
            module.running_var.uniform_(0.5, 2.0)
    images = torch.randn(2, 3, 64, 96)
    expected = model(images).logits
    assert fold_frozen_norms(backbone) == 15
    torch.testing.assert_close(model(images).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "conditional_detr.ConditionalDetr",
        "d_fine.DFine",
        "dab_detr.DabDetr",
        "deformable_detr.DeformableDetr",
        "detr.Detr",
        "rt_detr.RTDetr",
        "rt_detr_v2.RTDetrV2",
    ],
)
def test_each_family_has_frozen_norms_that_are_folded(name: str) -> None:
    folder, prefix = name.split(".")
    module = importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")
    norm = getattr(module, f"{prefix}FrozenBatchNorm2d")(4)
    for buffer in norm.buffers():
        buffer.uniform_(0.5, 1.5)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 4, 3)).double()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = backbone(images)
    assert fold_frozen_norms(backbone) == 1
    torch.testing.assert_close(backbone(images), expected)
