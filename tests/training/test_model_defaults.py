"""Values that a recipe takes from its model: the family's rates, the checkpoint's image size."""

import json
from pathlib import Path

import pytest

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.rules import check_recipe
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.run_folder import PROCESSOR
from hf_detr_ft.training.data_pipeline import build_processor
from hf_detr_ft.training.model_defaults import model_defaults
from tests.families import EDGE, new_section, tiny_model, write_checkpoint

DECAYS = {"rt_detr": 0.9999, "rt_detr_v2": 0.9999, "d_fine": 0.9999, "lw_detr": 0.9997, "rf_detr": 0.993}
"""Of the originals' averages of the weights."""
ANYWHERE = ["--training.use_cpu", "true"]


def load(checkpoint: Path, *flags: str) -> Recipe:
    return load_recipe(None, [*ANYWHERE, "--model.checkpoint", str(checkpoint), *flags], model_defaults)


def write(folder: Path, family: str, **processor: object) -> Path:
    tiny_model(family).save_pretrained(folder)
    build_processor(new_section(family)).save_pretrained(folder)
    settings = json.loads((folder / PROCESSOR).read_text())
    (folder / PROCESSOR).write_text(json.dumps({**settings, **processor}))
    return folder


def test_a_checkpoint_brings_its_familys_rates_and_its_own_size(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, "d_fine", size={"height": 96, "width": 96}))
    assert (recipe.training.learning_rate, recipe.training.backbone_learning_rate) == (2e-4, 1e-4)
    assert recipe.model.square_edge == recipe.resolved["model"]["square_edge"] == 96
    given = load(tmp_path, "--model.square_edge", "128", "--training.learning_rate", "1e-3")
    assert (given.model.square_edge, given.training.learning_rate) == (128, 1e-3)
    assert given.training.backbone_learning_rate == 1e-4
    own = [load(tmp_path, "--training.ema_decay", decay).training.ema_decay for decay in ("0.99", "null")]
    assert (recipe.training.ema_decay, own) == (0.9999, [0.99, None])


@pytest.mark.parametrize(
    ("name", "family", "rates"),
    [
        ("dfine", "d_fine", (6.25e-5, 3.125e-5)),
        ("rtdetr_v2", "rt_detr_v2", (1e-4, 1e-4)),
        ("rfdetr", "rf_detr", (1e-4, 7.35e-5)),
        ("deformable", "deformable_detr", (5e-5, 5e-6)),
    ],
)
def test_recipes_of_families_are_sound_with_their_models(
    name: str, family: str, rates: tuple[float, float], tmp_path: Path
) -> None:
    path = Path(__file__).parents[2] / "recipes" / f"balloon_{name}.yaml"
    checkpoint = write_checkpoint(tmp_path, family)
    recipe = load_recipe(path, [*ANYWHERE, "--model.checkpoint", str(checkpoint)], model_defaults)
    assert check_recipe(recipe) == []
    assert (recipe.training.learning_rate, recipe.training.backbone_learning_rate) == rates
    size = (recipe.model.square_edge, recipe.model.shortest_edge)
    assert size == ((EDGE, 800) if FAMILIES[family].size.square else (None, EDGE))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"size": {"shortest_edge": 480, "longest_edge": 640}}, (480, 640, None)),
        ({"size": 400, "max_size": 600}, (400, 600, None)),
        ({"size": {"height": 224, "width": 224}}, (800, 1333, 224)),
        ({"size": {"height": 224, "width": 448}}, (800, 1333, None)),
    ],
    ids=["edges", "of Transformers 4", "square", "oblong"],
)
def test_a_detr_is_taken_at_the_size_of_its_processor(size: dict, expected: tuple, tmp_path: Path) -> None:
    model = load(write(tmp_path, "detr", **size)).model
    assert (model.shortest_edge, model.longest_edge, model.square_edge) == expected
    assert load(tmp_path, "--model.shortest_edge", "96").model.longest_edge == 1333


def test_a_model_without_a_processor_has_its_familys_size(tmp_path: Path) -> None:
    tiny_model("rt_detr").save_pretrained(tmp_path)
    assert load(tmp_path).model.square_edge == 640
    tiny_model("detr").save_pretrained(tmp_path)
    assert load(tmp_path).model.square_edge is None
    assert load(tmp_path / "nowhere").model.square_edge is None, "building the model says what is wrong"


def test_squares_alone_where_the_family_takes_squares(tmp_path: Path) -> None:
    write(tmp_path, "rt_detr")
    with pytest.raises(RecipeError, match=r"model\.shortest_edge: expected model\.square_edge, .* takes squares"):
        load(tmp_path, "--model.shortest_edge", "480")


def test_a_processor_keeps_its_own_way_with_colours(tmp_path: Path) -> None:
    write(tmp_path, "rt_detr", do_normalize=True, image_mean=[0.1, 0.2, 0.3])
    processor = build_processor(load(tmp_path, "--model.square_edge", "96").model, white_level=4095)
    assert dict(processor.size) == {"height": 96, "width": 96}
    assert (processor.do_normalize, processor.image_mean) == (True, (0.1, 0.2, 0.3))
    assert type(processor).__name__ == "RTDetrImageProcessor"
    assert not build_processor(new_section("rt_detr")).do_normalize, "as RT-DETR was trained"


def test_weights_are_averaged_where_the_original_does() -> None:
    found = {name: family.values({}).get("training.ema_decay") for name, family in FAMILIES.items()}
    assert {name: decay for name, decay in found.items() if decay} == DECAYS
