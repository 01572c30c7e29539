"""Another number of queries than the checkpoint's, of every family; what it does to AP is in docs/evaluation.md."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.model import more_queries
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.model.load import load_for_inference
from hf_detr_ft.recipe.sections import ModelConfig
from hf_detr_ft.synthetic.render import render
from tests.families import EDGE, SETTINGS, some_labels, write_checkpoint
from tests.fixtures import CLASSES

SETS = {name: SETTINGS[name].get("group_detr", 1) for name in FAMILIES}
"""Sets of queries that a family has in training."""


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(more_queries, "STEPS", 2)
    monkeypatch.setattr(more_queries, "IMAGES", 2)
    monkeypatch.setattr(more_queries, "SIDE", EDGE)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_learned_queries_are_kept_of_each_group_and_the_model_trains_and_opens_again(
    family: str, tmp_path: Path
) -> None:
    square = EDGE if FAMILIES[family].size.square else None
    source = write_checkpoint(tmp_path / "start", family, num_queries=12)
    for wanted in (16, 5):
        section = ModelConfig(checkpoint=str(source), num_queries=wanted, square_edge=square)
        model = build_model(section, CLASSES, range(len(CLASSES)))
        assert model.config.num_queries == wanted
        learned = load_for_inference(str(source)).state_dict()
        for name in set(FAMILIES[family].queries) & learned.keys():
            before, after = (t.unflatten(0, (SETS[family], -1)) for t in (learned[name], model.state_dict()[name]))
            both = min(wanted, 12)
            assert after.shape[1] == wanted
            assert torch.equal(before[:, :both], after[:, :both])
            assert after.isfinite().all()
        assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "query_pos" in name)
        outputs = model.train()(torch.randn(2, 3, EDGE, EDGE), torch.ones(2, EDGE, EDGE), some_labels(3, 1))
        assert outputs.loss.isfinite()
        model.save_pretrained(tmp_path / "grown")
        model.eval()
        again = load_for_inference(str(tmp_path / "grown"))
        images = torch.randn(1, 3, EDGE, EDGE)
        with torch.no_grad():
            assert again(images).logits.shape[1] == wanted
            torch.testing.assert_close(again(images).logits, model(images).logits)


def test_more_queries_find_nothing_and_leave_the_others_answers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are only drawn find objects again and change the answers several times as much."""
    start = "package:hf_detr_ft/tiny_detr"
    learned = load_for_inference(start)
    names, ids = list(learned.config.id2label.values()), learned.config.category_ids
    shapes = np.stack([render(index, size=(192, 192)).image for index in range(3)])
    photos = torch.from_numpy(shapes).permute(0, 3, 1, 2).float() / 64 - 2
    monkeypatch.setattr(more_queries, "SIDE", 128)
    changes = {}
    for rate, steps in ((more_queries.RATE, 40), (0.0, 1)):
        monkeypatch.setattr(more_queries, "RATE", rate)
        monkeypatch.setattr(more_queries, "STEPS", steps)
        model = build_model(ModelConfig(checkpoint=start, num_queries=75), names, ids).eval()
        with torch.no_grad():
            before, after = (m(photos).logits.softmax(-1)[..., :-1] for m in (learned, model))
        changes[steps] = (after[:, :25] - before).abs().sum().item(), after[:, 25:].sum().item()
    assert [moved < drawn / 3 for moved, drawn in zip(changes[40], changes[1], strict=True)] == [True, True], changes


@pytest.mark.usefixtures("few_steps")
def test_they_are_the_same_each_time_and_take_no_draws_from_others(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "start", "detr")
    model = load_for_inference(str(source), with_loss=True)
    grown = []
    for seed in (1, 2):
        larger = copy.deepcopy(model)
        larger.config.num_queries = 20
        larger.model.query_position_embeddings = torch.nn.Embedding(20, larger.config.d_model)
        torch.manual_seed(seed)
        more_queries.keep_queries(larger, model)
        assert torch.equal(torch.rand(3), torch.manual_seed(seed) and torch.rand(3))
        grown.append(larger.model.query_position_embeddings.weight)
    assert torch.equal(*grown)


def test_two_numbers_are_refused(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "start", "detr")
    section = ModelConfig(checkpoint=str(source), num_queries=20, config={"num_queries": 30})
    with pytest.raises(RecipeError, match=r"model\.num_queries: expected one number of queries, found 20 there and 30"):
        build_model(section, CLASSES, range(len(CLASSES)))


@pytest.mark.parametrize(("family", "places"), [("d_fine", 84), ("rf_detr", 16), ("lw_detr", 16)])
def test_more_queries_than_places_to_take_them_from_are_refused(family: str, places: int, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "start", family)
    section = ModelConfig(checkpoint=str(source), num_queries=places, square_edge=EDGE)
    model = build_model(section, CLASSES, range(len(CLASSES))).eval()
    assert model(torch.zeros(1, 3, EDGE, EDGE)).logits.shape[1] == places
    with pytest.raises(RecipeError, match=rf"model\.num_queries: expected at most {places}, .* found {places + 1}"):
        build_model(replace(section, num_queries=places + 1), CLASSES, range(len(CLASSES)))
