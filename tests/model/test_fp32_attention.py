"""Attention in fp32 while a CPU trains in bf16: where it is used, what it gives, and that the model is still stock."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from hf_detr_ft.model.speed import fp32_attention
from hf_detr_ft.model.speed.fp32_attention import use_fp32_attention
from tests.families import some_labels, tiny_model
from tests.fixtures import tiny_detr, tiny_detr_with_spread_weights


@pytest.fixture
def dtypes(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Types that the products were computed in, call by call."""
    seen: list[torch.dtype] = []

    def note(module: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        assert torch.is_autocast_enabled("cpu") == (query.dtype == torch.bfloat16)
        seen.append(query.dtype)
        return sdpa_attention_forward(module, query, *args, **kwargs)

    monkeypatch.setattr(fp32_attention, "sdpa_attention_forward", note)
    return seen


def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(2, 64, 96, dtype=torch.int64)
    mask[1, :, 60:] = 0
    return {"pixel_values": torch.randn(2, 3, 64, 96, generator=generator), "pixel_mask": mask}


def test_only_training_under_autocast_takes_it(dtypes: list[torch.dtype]) -> None:
    model = tiny_detr_with_spread_weights()
    expected = model(**inputs()).logits
    dtypes.clear()
    use_fp32_attention(model)
    layers = len(model.model.encoder.layers) + 2 * len(model.model.decoder.layers)
    assert torch.equal(model(**inputs()).logits, expected)
    assert dtypes == [torch.float32] * layers
    dtypes.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        in_training = model(**inputs()).logits
        assert dtypes == [torch.float32] * layers
        dtypes.clear()
        with torch.no_grad():
            model(**inputs())
    assert dtypes == [torch.bfloat16] * layers
    assert (in_training.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("family", ["conditional_detr", "deformable_detr", "rt_detr_v2", "d_fine"])
def test_other_families_take_it(family: str, dtypes: list[torch.dtype]) -> None:
    model = tiny_model(family).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(inputs()["pixel_values"][..., :64], labels=some_labels(1, 2))
    assert set(dtypes) == {torch.float32}


def test_gradients_are_closer_to_those_of_fp32(dtypes: list[torch.dtype]) -> None:
    def gradients(model: torch.nn.Module, bf16: bool) -> torch.Tensor:
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            outputs = model(**inputs())
        (outputs.logits.float().square().mean() + outputs.pred_boxes.float().square().mean()).backward()
        projections = [p for name, p in model.named_parameters() if "attn.k_proj.weight" in name and p.grad is not None]
        return torch.cat([parameter.grad.flatten() for parameter in projections])

    model = tiny_detr_with_spread_weights()
    exact, rounded = gradients(model, False), gradients(model, True)
    use_fp32_attention(model)
    better = gradients(model, True)
    assert dtypes
    assert 0 < (better - exact).norm() < (rounded - exact).norm()


def test_the_model_itself_stays_as_it_was(tmp_path: Path) -> None:
    model = tiny_detr()
    before = model.config.to_dict()
    use_fp32_attention(model)
    assert model.config._attn_implementation == "sdpa"
    assert model.config.to_dict() == before
    model.save_pretrained(tmp_path)
    plain = tmp_path / "plain"
    tiny_detr().save_pretrained(plain)
    assert (tmp_path / "config.json").read_text() == (plain / "config.json").read_text()


def test_another_attention_is_left_alone(dtypes: list[torch.dtype]) -> None:
    model = tiny_detr()
    use_fp32_attention(model)
    model.set_attn_implementation("eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(**inputs(), output_attentions=True).decoder_attentions[0] is not None
    assert dtypes == []


def test_a_copy_reads_its_own_config(dtypes: list[torch.dtype]) -> None:
    model = tiny_detr()
    use_fp32_attention(model)
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        twin(**inputs())
        assert dtypes == []
        model(**inputs())
    assert set(dtypes) == {torch.float32}


def test_other_models_of_the_process_are_left_alone(dtypes: list[torch.dtype]) -> None:
    use_fp32_attention(tiny_detr())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tiny_detr()(**inputs())
    assert set(dtypes) == {torch.bfloat16}


def test_gradient_checkpointing_computes_the_same_again(dtypes: list[torch.dtype]) -> None:
    """Layers run once more in the backward pass, outside of the model's forward."""

    def gradient(checkpointing: bool) -> torch.Tensor:
        model = tiny_detr_with_spread_weights(dropout=0.0).train()
        use_fp32_attention(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(**inputs())
        outputs.logits.float().square().mean().backward()
        return model.model.encoder.layers[0].self_attn.k_proj.weight.grad

    plain, count = gradient(False), len(dtypes)
    assert torch.equal(gradient(True), plain)
    assert len(dtypes) == 3 * count
    assert set(dtypes) == {torch.float32}
