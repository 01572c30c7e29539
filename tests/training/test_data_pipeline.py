"""Steps in which the sides of training batches grow."""

import pytest

from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.training.data_pipeline import choose_size_step


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
