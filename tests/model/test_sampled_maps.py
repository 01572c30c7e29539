"""Deformable attention by rows: what `grid_sample` gives, in every family that has it."""

import copy

import pytest
import torch
from torch import nn
from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import multi_scale_deformable_attention_v2

from hf_detr_ft.model.detector import detector_class
from hf_detr_ft.model.speed.sampled_maps import gather_samples, sample_rows
from tests.families import some_labels, tiny_model

SHAPES, COUNTS = [(6, 5), (3, 2), (1, 1)], [3, 2, 1]
BATCH, QUERIES, HEADS, CHANNELS = 2, 7, 4, 3


def inputs() -> list[torch.Tensor]:
    """Values, locations and weights; some points lie on the edge, some beside their map."""
    torch.manual_seed(0)
    places = sum(height * width for height, width in SHAPES)
    value = torch.randn(BATCH, places, HEADS, CHANNELS, dtype=torch.float64)
    locations = torch.rand(BATCH, QUERIES, HEADS, sum(COUNTS), 2, dtype=torch.float64) * 1.8 - 0.4
    locations[0, 0], locations[0, 1], locations[0, 2] = 0.0, 1.0, 40.0
    weights = torch.rand(BATCH, QUERIES, HEADS, sum(COUNTS), dtype=torch.float64)
    return [tensor.requires_grad_() for tensor in (value, locations, weights)]


def test_sums_and_gradients_are_those_of_transformers() -> None:
    value, locations, weights = inputs()
    found, expected = (
        sample(value, SHAPES, locations, weights, COUNTS)
        for sample in (sample_rows, multi_scale_deformable_attention_v2)
    )
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    of = (value, locations, weights)
    for ours, theirs in zip(*(torch.autograd.grad(each, of, upstream) for each in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_what_is_not_finite_stays_so_and_reads_no_other_memory() -> None:
    value, locations, weights = inputs()
    with torch.no_grad():
        locations[0, 0, 0, 0, 0], locations[0, 1, 1, 1, 1] = torch.nan, torch.inf
    found = sample_rows(value, SHAPES, locations, weights, COUNTS).unflatten(-1, (HEADS, CHANNELS))
    spoiled = ~found.isfinite().all(-1)
    assert spoiled.nonzero().tolist() == [[0, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("family", ["rt_detr", "rt_detr_v2", "d_fine", "deformable_detr", "lw_detr", "rf_detr"])
def test_every_family_with_deformable_attention_takes_it(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(family, dropout=0.0)
    plain, fast = (detector_class(model.family)(model.config).train() for _ in range(2))
    for one in (plain, fast):
        one.load_state_dict(model.state_dict())
    gather_samples(fast)
    fast = copy.deepcopy(fast)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    sampled: list[torch.Tensor] = []
    grid_sample = nn.functional.grid_sample
    monkeypatch.setattr(
        nn.functional, "grid_sample", lambda *args, **named: sampled.append(args[0]) or grid_sample(*args, **named)
    )

    def loss_and_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        loss = model(images, labels=some_labels(2, 1)).loss
        loss.backward()
        return {"loss": loss.detach(), **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}

    found = loss_and_gradients(fast)
    assert not sampled
    expected = loss_and_gradients(plain)
    assert sampled
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert fast.state_dict().keys() == plain.state_dict().keys()
