"""Steps in which the sides of training batches grow, and sides that are drawn for all images of a step."""

from types import SimpleNamespace
from typing import Any

import pytest

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.training.data_pipeline import choose_batch_edges, choose_size_step


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--model.shortest_edge", "480"], 64),
        (["--model.shortest_edge", "800"], 96),
        (["--model.shortest_edge", "64"], 32),
        (["--augment.preset", "light"], 1),  # shapes come again in each epoch as it is
        (["--augment.preset", "light", "--augment.random_crop", "0.5"], 96),
        (["--model.square_edge", "224"], 1),
        (["--speed.size_step", "1"], 1),
        (["--augment.preset", "none", "--speed.size_step", "128"], 128),
    ],
)
def test_an_eighth_of_the_short_side_where_shapes_are_drawn(flags: list[str], expected: int) -> None:
    assert choose_size_step(load_recipe(None, [*flags, "--training.use_cpu", "true"])) == expected


def edges(family: str, *flags: str, **config: Any) -> list[int]:
    model: Any = SimpleNamespace(family=FAMILIES[family], config=SimpleNamespace(**config))
    return choose_batch_edges(load_recipe(None, [*flags, "--training.use_cpu", "true"]), model)


def test_sides_of_a_step_are_those_of_the_originals_configuration() -> None:
    batch = ("--augment.multi_scale", "batch")
    found = edges("rt_detr", "--model.square_edge", "640", *batch, feat_strides=[8, 16, 32])
    # rtdetrv2_pytorch/configs/rtdetrv2/include/dataloader.yml
    assert sorted(found) == [480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800]
    assert sorted(set(edges("detr", "--model.square_edge", "224", *batch))) == [192, 224, 256]
    assert edges("detr", "--model.square_edge", "224") == []
    with pytest.raises(RecipeError, match=r"augment.multi_scale: expected model.square_edge beside batch"):
        edges("detr", *batch)
