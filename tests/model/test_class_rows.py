"""Rows of the class heads for classes that the checkpoint knows, of every family."""

from pathlib import Path

import pytest
import torch

from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.class_rows import match_names
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.model.load import load_for_inference
from hf_detr_ft.recipe.sections import ModelConfig
from tests.families import EDGE, write_checkpoint

OLD = ("cat", "dog", "person")
NEW = ("kite", "dog", "Cats", "pedestrian")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (["a", "b"], ["b", "c", "a"], {0: 1, 2: 0}),
        (["Hot Dog", "tv"], ["hot_dog", "TV-Monitor", "hotdogs"], {0: 0, 1: 1, 2: 0}),
        (["bus", "glass", "knife", "box"], ["buses", "glasses", "knives", "boxes", "bu"], {0: 0, 1: 1, 2: 2, 3: 3}),
        (["person", "couch", "motorcycle"], ["pedestrians", "sofa", "Motor Bike"], {0: 0, 1: 1, 2: 2}),
        (["person", "people"], ["people", "man"], {0: 1, 1: 0}),
        (["N/A", "LABEL_1"], ["balloon"], {}),
        (["a", "a"], ["a"], {0: 0}),
        ([], ["a"], {}),
    ],
)
def test_names_that_mean_the_same(old: list[str], new: list[str], expected: dict[int, int]) -> None:
    assert match_names(old, new) == expected


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_known_classes_are_scored_as_by_the_checkpoint_and_others_begin_anew(family: str, tmp_path: Path) -> None:
    source = str(write_checkpoint(tmp_path, family, OLD))
    square = EDGE if FAMILIES[family].size.square else None
    plain, reused = (
        build_model(ModelConfig(checkpoint=source, square_edge=square, reuse_class_rows=reuse), NEW, range(4)).eval()
        for reuse in (False, True)
    )
    assert reused.reused_classes == {"dog": "dog", "Cats": "cat", "pedestrian": "person"}
    assert plain.reused_classes == {}
    learned = load_for_inference(source).state_dict()
    heads = [name for name in learned if name.startswith(FAMILIES[family].class_heads)]
    assert heads
    own = reused.state_dict()
    for name in heads:
        assert torch.equal(own[name][[1, 2, 3]], learned[name][[1, 0, 2]]), name
        assert torch.equal(own[name][4:], learned[name][3:]), name
    others = [name for name in own if name not in heads]
    assert all(torch.equal(own[name], plain.state_dict()[name]) for name in others)
    assert not all(torch.equal(own[name], plain.state_dict()[name]) for name in heads)


def test_rows_and_more_queries_go_together(tmp_path: Path) -> None:
    source = str(write_checkpoint(tmp_path, "rt_detr", OLD))
    section = ModelConfig(checkpoint=source, square_edge=EDGE, reuse_class_rows=True, num_queries=14)
    model = build_model(section, NEW, range(4))
    learned = load_for_inference(source).state_dict()["model.enc_score_head.weight"]
    assert torch.equal(model.state_dict()["model.enc_score_head.weight"][1], learned[1])
    assert model.config.num_queries == 14
