"""Inference with the backbone in bf16: nearly the same boxes, fp32 behind it, and used only where it is faster."""

from itertools import accumulate, cycle

import pytest
import torch

from hf_detr_ft import machine
from hf_detr_ft.model.speed import bf16_backbone
from hf_detr_ft.model.speed.bf16_backbone import choose_backbone_precision, is_faster_in_bf16, use_bf16_backbone
from hf_detr_ft.model.speed.folded_norms import fold_frozen_norms
from tests.fixtures import tiny_detr_with_spread_weights


@torch.inference_mode()
def test_only_the_backbone_is_rounded_and_boxes_hardly_move() -> None:
    model = tiny_detr_with_spread_weights().eval()
    images = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    expected = model(images)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fold_frozen_norms(model.model.backbone.model)
    use_bf16_backbone(model)
    dtypes: dict[str, set[torch.dtype]] = {"convolutions": set(), "encoder": set()}
    for module in model.model.backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda *call: dtypes["convolutions"].add(call[-1].dtype))
    model.model.encoder.register_forward_hook(lambda *call: dtypes["encoder"].add(call[-1].last_hidden_state.dtype))
    found = model(images)
    assert dtypes == {"convolutions": {torch.bfloat16}, "encoder": {torch.float32}}
    moved = (found.pred_boxes - expected.pred_boxes).abs().max().item()
    assert 0 < moved < 0.01
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("in_fp32", "in_bf16", "expected"), [(1.0, 0.5, True), (1.0, 0.9, False), (0.5, 1.0, False)])
def test_it_has_to_be_faster(in_fp32: float, in_bf16: float, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = bf16_backbone.ROUNDS
    seconds = cycle([*[0.0, in_fp32] * rounds, *[0.0, in_bf16] * rounds])
    monkeypatch.setattr(machine.time, "perf_counter", accumulate(seconds).__next__)
    assert is_faster_in_bf16(tiny_detr_with_spread_weights()) is expected


@pytest.mark.parametrize(
    ("asked", "is_faster", "expected"),
    [(True, False, True), (False, True, False), (None, True, True), (None, False, False)],
)
def test_it_is_used_where_it_is_asked_for_or_left_open_and_faster(
    asked: bool | None, is_faster: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bf16_backbone, "is_faster_in_bf16", lambda model: is_faster)
    model = tiny_detr_with_spread_weights()
    choose_backbone_precision(model, asked)
    assert ("forward" in vars(model.model.backbone)) is expected
