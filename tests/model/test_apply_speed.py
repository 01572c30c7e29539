"""Measures for speed on a whole model: which of them are on, and that results stay the same."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from transformers import DetrForObjectDetection

from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.speed.apply_speed import apply_speed, skip_unused_stages
from hf_detr_ft.model.speed.fp32_attention import MARK
from hf_detr_ft.recipe.sections import ModelConfig, SpeedConfig
from tests.families import some_labels, tiny_model
from tests.fixtures import SMALL_TRANSFORMER, tiny_detr_with_spread_weights

NONE = SpeedConfig(**{field.name: False for field in fields(SpeedConfig) if isinstance(field.default, bool)})


def measures(model: DetrForObjectDetection) -> set[str]:
    """Measures that a model computes with, read off its modules and one forward."""
    modules = list(model.model.backbone.modules())
    on = {name for name in ("folded_norm", "cached_fold") if any(name in vars(module) for module in modules)}
    on |= {MARK for module in model.modules() if hasattr(module, MARK)}
    seen: list[bool] = []
    convolution = next(module for module in modules if isinstance(module, torch.nn.Conv2d))
    hook = convolution.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    images = torch.randn(2, 3, 64, 96)
    model(images), model(pixel_values=images)
    hook.remove()
    assert len(set(seen)) == 1, "by position and by name"
    return on | ({"channels_last"} if seen[0] else set())


@pytest.mark.parametrize(
    ("speed", "training", "expected"),
    [
        (NONE, True, set()),
        (NONE, False, set()),
        (SpeedConfig(), True, {"folded_norm", "channels_last", MARK}),
        (SpeedConfig(), False, {"folded_norm", "cached_fold", "channels_last"}),
        (SpeedConfig(fold_frozen_norms=False), False, {"channels_last"}),
        (SpeedConfig(channels_last=False), False, {"folded_norm", "cached_fold"}),
        (SpeedConfig(fp32_attention=False, channels_last=False), True, {"folded_norm"}),
    ],
)
def test_each_measure_has_a_switch_and_its_time(speed: SpeedConfig, training: bool, expected: set[str]) -> None:
    model = tiny_detr_with_spread_weights()
    apply_speed(model, speed, training=training)
    assert measures(model) == expected


@pytest.mark.parametrize("training", [True, False])
def test_results_and_what_is_saved_stay_the_same(tmp_path: Path, training: bool) -> None:
    plain, fast = tiny_detr_with_spread_weights(), tiny_detr_with_spread_weights()
    apply_speed(fast, SpeedConfig(), training=training)
    images, mask = torch.randn(2, 3, 64, 96), torch.ones(2, 64, 96, dtype=torch.int64)
    mask[1, :, 60:] = 0
    with torch.no_grad():
        torch.testing.assert_close(fast(images, mask).logits, plain(images, mask).logits, rtol=1e-4, atol=1e-4)
    for name, model in (("plain", plain), ("fast", fast)):
        model.save_pretrained(tmp_path / name)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "fast" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_stages_that_nothing_reads_are_skipped_and_saved() -> None:
    config = ModelConfig(
        checkpoint=None, backbone="tf_efficientnet_lite0", backbone_stride=16, config=dict(SMALL_TRANSFORMER)
    )
    model = build_model(config, ["a"], [1])
    backbone = model.model.backbone.model
    ran: list[str] = []
    for name in ("blocks.4.0", "blocks.5.0", "blocks.6.0"):
        backbone.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    model.eval()(torch.randn(1, 3, 64, 64))
    assert ran == ["blocks.4.0"]
    assert any("blocks.6.0" in key for key in model.state_dict())
    assert skip_unused_stages(backbone) == ["blocks.5", "blocks.6"]


@pytest.mark.parametrize("family", ["rt_detr", "rt_detr_v2", "d_fine"])
def test_all_maps_of_a_hybrid_encoder_are_channels_last(family: str) -> None:
    model = tiny_model(family).train()
    apply_speed(model, SpeedConfig(), training=True)
    convolutions = [m for m in model.model.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels > 1]
    seen: list[bool] = []
    for module in convolutions:
        module.register_forward_hook(
            lambda *call: seen.append(call[-1].is_contiguous(memory_format=torch.channels_last))
        )
    model(pixel_values=torch.randn(2, 3, 64, 64), labels=some_labels(1, 1))
    assert len(seen) == len(convolutions) > 20
    assert all(seen)
