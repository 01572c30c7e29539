"""Trained stages, and the learning rates and decay of their parameters."""

import pytest
import torch
import transformers
from transformers import DetrConfig, ResNetConfig

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.model.optim import parameter_groups
from hf_detr_ft.model.stages import backbone_stages, train_stages
from hf_detr_ft.recipe.sections import ModelConfig
from tests.fixtures import SMALL_TRANSFORMER, tiny_config


def trained_stages(model: transformers.DetrForObjectDetection, stages: list[str]) -> set[str]:
    names = [name for name, p in model.model.backbone.model.named_parameters() if p.requires_grad]
    return {stage for stage in stages for name in names if name.startswith(f"{stage}.")}


def test_detr_trains_layer_2_to_4_and_everything_behind_the_backbone() -> None:
    model = DetrForObjectDetection(tiny_config())
    summary = train_stages(model, None)
    stages = backbone_stages(model.model.backbone.model)
    assert stages == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert trained_stages(model, stages) == {"layer2", "layer3", "layer4"} == set(summary.stages)
    rest = [p for name, p in model.named_parameters() if "backbone" not in name]
    assert all(p.requires_grad for p in rest)
    assert summary.rest_trained == sum(p.numel() for p in rest)
    total = sum(p.numel() for p in model.parameters())
    assert summary.backbone_trained + summary.backbone_frozen + summary.rest_trained == total
    assert "trains layer2, layer3, layer4 (0.34 M parameters), freezes conv1, layer1" in str(summary)


@pytest.mark.parametrize(
    ("asked", "trained"),
    [
        (["layer4"], {"layer4"}),
        ([], set()),
        (["all"], {"conv1", "layer1", "layer2", "layer3", "layer4"}),
        (["conv1", "layer3"], {"conv1", "layer3"}),
    ],
)
def test_stages_by_name(asked: list[str], trained: set[str]) -> None:
    model = DetrForObjectDetection(tiny_config())
    train_stages(model, ["all"])
    train_stages(model, asked)
    assert trained_stages(model, backbone_stages(model.model.backbone.model)) == trained


def test_unknown_stages_are_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"expected names among \['conv1', 'layer1'.*found \['layer5'\]"):
        train_stages(DetrForObjectDetection(tiny_config()), ["layer4", "layer5"])


def test_transformers_own_resnet_freezes_the_same_part() -> None:
    resnet = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    model = DetrForObjectDetection(DetrConfig(use_timm_backbone=False, backbone_config=resnet, **SMALL_TRANSFORMER))
    assert train_stages(model, None).stages == [f"encoder.stages.{index}" for index in (1, 2, 3)]


def test_stages_behind_the_feature_map_are_not_trained() -> None:
    """Such stages would get no gradient, which distributed training does not forgive."""
    config = ModelConfig(
        checkpoint=None, backbone="tf_efficientnet_lite0", backbone_stride=16, config=SMALL_TRANSFORMER
    )
    model = build_model(config, ["a"], [1])
    assert train_stages(model, None).stages == ["blocks.2", "blocks.3", "blocks.4"]
    train_stages(model, ["all"])
    labels = [{"class_labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]])}]
    model(torch.randn(1, 3, 64, 64), torch.ones(1, 64, 64, dtype=torch.int64), labels).loss.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_groups_hold_every_trained_parameter_once() -> None:
    model = DetrForObjectDetection(tiny_config())
    train_stages(model, None)
    groups = parameter_groups(model, 1e-4, 1e-5, 1e-3)
    assert [group["name"] for group in groups] == ["rest, no decay", "rest, decay", "backbone, decay"]
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for group in groups:
        assert group["lr"] == (1e-5 if "backbone" in group["name"] else 1e-4)
        assert group["weight_decay"] == (0.0 if "no decay" in group["name"] else 1e-3)
        assert all((p.dim() > 1) == (group["weight_decay"] > 0) for p in group["params"])
