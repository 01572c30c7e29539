"""Learning rates and weight decay of each parameter, as the originals give them."""

import pytest
from transformers import DFineConfig, HGNetV2Config, LwDetrConfig, RTDetrConfig, RTDetrResNetConfig

from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.model.optim import parameter_groups
from hf_detr_ft.model.stages import train_stages
from tests.families import tiny_model


def settings_of(
    model: Detector, rate: float = 1.0, backbone_rate: float = 1.0, decay_all: bool = False
) -> dict[str, tuple[float, float]]:
    """Rate and weight decay by a parameter's name."""
    family = model.family
    groups = parameter_groups(
        model,
        rate,
        backbone_rate,
        1.0,
        family.backbone_prefix,
        family.rate_factors(model.config),
        family.undecayed,
        decay_all,
    )
    assert groups[0]["lr"] == rate, "the log shows the first group's rate"
    by_id = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(by_id) == sum(len(group["params"]) for group in groups)
    return {name: by_id[id(p)] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("family", ["detr", "rf_detr"])
def test_all_parameters_are_decayed_where_asked(family: str) -> None:
    model = tiny_model(family)
    assert {decay for _, decay in settings_of(model).values()} == {0, 1}
    assert {decay for _, decay in settings_of(model, decay_all=True).values()} == {1}


def test_sampling_offsets_and_reference_points_of_deformable_detr_have_a_tenth_of_the_rate() -> None:
    found = settings_of(tiny_model("deformable_detr"), 2e-4)
    slow = {name for name, (rate, _) in found.items() if rate == pytest.approx(2e-5)}
    assert slow == {name for name in found if "sampling_offsets" in name or name.startswith("model.reference_points.")}
    assert len(slow) == 8
    assert {rate for name, (rate, _) in found.items() if name not in slow and "backbone" not in name} == {2e-4}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (
            "rf_detr",  # its maps come from the layers 0 and 1 of 3
            {
                "model.backbone.backbone.embeddings.patch_embeddings.projection.weight": (0.8**4, 0),
                "model.backbone.backbone.embeddings.position_embeddings": (0.8**4, 0),
                "model.backbone.backbone.encoder.layer.0.mlp.fc1.weight": (0.8**3, 1),
                "model.backbone.backbone.encoder.layer.1.mlp.fc1.weight": (0.8**2, 1),
                "model.backbone.backbone.layernorm.weight": (1, 0),
            },
        ),
        (
            "lw_detr",
            {
                "model.backbone.backbone.embeddings.projection.weight": (0.8**4, 1),
                "model.backbone.backbone.embeddings.position_embeddings": (0.8**4, 0),
                "model.backbone.backbone.encoder.layer.0.intermediate.fc1.weight": (0.8**3, 1),
                "model.backbone.backbone.encoder.layer.1.intermediate.fc1.weight": (0.8**2, 1),
            },
        ),
    ],
)
def test_rates_sink_from_layer_to_layer_of_a_vision_transformer(family: str, expected: dict) -> None:
    found = settings_of(tiny_model(family))
    both = {
        "model.decoder.layers.0.mlp.fc1.weight": (0.7, 1),
        "model.decoder.layernorm.weight": (0.7, 0),
        "model.query_feat.weight": (1, 1),
        "class_embed.weight": (1, 1),
    }
    for name, value in {**expected, **both}.items():
        assert found[name] == pytest.approx(value), name
    projector = [value[0] for name, value in found.items() if name.startswith("model.backbone.projector.")]
    assert set(projector) == {1.0}


@pytest.mark.parametrize(
    ("width", "scales", "by_layer", "backbone_rate"),
    [
        (192, [1.0], 0.8, 7.35e-5),
        (384, [1.0], 0.7, 7.35e-5),
        (384, [2.0, 0.5], 0.7, 3.75e-5),
        (768, [2.0, 0.5], 0.75, 3.75e-5),
    ],
    ids=["tiny and small", "medium", "large", "xlarge"],
)
def test_lw_detr_is_trained_by_its_size(width: int, scales: list[float], by_layer: float, backbone_rate: float) -> None:
    backbone = {"model_type": "lw_detr_vit", "hidden_size": width, "num_hidden_layers": 10}
    config = LwDetrConfig(backbone_config=backbone, projector_scale_factors=scales)
    family = FAMILIES["lw_detr"]
    factors = list(family.rate_factors(config).values())
    assert factors[0] == pytest.approx(by_layer**11)
    assert factors[1:11] == pytest.approx([by_layer ** (10 - layer) for layer in range(10)])
    values = family.values(config.to_dict())
    assert values["training.backbone_learning_rate"] == pytest.approx(backbone_rate)
    assert values.get("training.weight_decay") == (1e-3 if width == 768 else None)


@pytest.mark.parametrize(
    ("layers", "of_rt_detr", "of_rt_detr_v2"),
    [(18, 1e-5, 1e-4), (34, 1e-5, 5e-5), (50, 1e-5, 1e-5), (101, 1e-6, 1e-6)],
)
def test_the_backbones_rate_of_rt_detr_goes_by_its_depth(layers: int, of_rt_detr: float, of_rt_detr_v2: float) -> None:
    depths = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}[layers]
    kind = "basic" if layers < 50 else "bottleneck"
    config = RTDetrConfig(backbone_config=RTDetrResNetConfig(depths=depths, layer_type=kind))
    for family, expected in (("rt_detr", of_rt_detr), ("rt_detr_v2", of_rt_detr_v2)):
        rate = FAMILIES[family].values(config.to_dict()).get("training.backbone_learning_rate", 1e-5)
        assert rate == expected
        assert FAMILIES[family].frozen_stages(config) == (0 if layers < 50 else 1)
    assert FAMILIES["rt_detr_v2"].values({})["training.backbone_learning_rate"] == 1e-5


@pytest.mark.parametrize(
    ("widths", "hidden", "expected", "frozen"),
    [
        ([512, 1024], 128, (8e-4, 4e-4, 1e-4), 0),
        ([256, 512, 1024], 256, (2e-4, 1e-4, 1e-4), 0),
        ([384, 768, 1536], 256, (2e-4, 2e-5, 1e-4), 0),
        ([512, 1024, 2048], 256, (2.5e-4, 1.25e-5, 1.25e-4), 1),
        ([512, 1024, 2048], 384, (2.5e-4, 2.5e-6, 1.25e-4), 1),
    ],
    ids=["N", "S", "M", "L", "X"],
)
def test_d_fine_is_trained_by_its_size(widths: list[int], hidden: int, expected: tuple, frozen: int) -> None:
    config = DFineConfig(
        backbone_config=HGNetV2Config(),
        encoder_in_channels=widths,
        encoder_hidden_dim=hidden,
        feat_strides=[8, 16, 32][-len(widths) :],
    )
    values = FAMILIES["d_fine"].values(config.to_dict())
    names = ("learning_rate", "backbone_learning_rate", "weight_decay")
    assert tuple(values[f"training.{name}"] for name in names) == expected
    assert FAMILIES["d_fine"].frozen_stages(config) == frozen


def test_the_first_stage_of_a_backbone_of_timm_is_not_trained() -> None:
    model = tiny_model("d_fine")
    assert model.family.frozen_stages(model.config) == 1
    assert train_stages(model, None).frozen_stages == ["conv1"]
