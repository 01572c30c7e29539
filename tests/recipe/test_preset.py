"""Rules of `training.preset: auto`, from tiny data to COCO, and that what is given wins."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.preset import BATCH, FIELDS, STAGES, DataSize, choose, divide_batch
from hf_detr_ft.recipe.rules import check_recipe
from hf_detr_ft.recipe.sections import Recipe

SIZE = DataSize(images=61, objects=255, classes=2, fullest=24, queries=100)
GIVEN = {
    "training.num_train_epochs": "7",
    "training.per_device_train_batch_size": "3",
    "training.gradient_accumulation_steps": "5",
    "training.learning_rate_drop_epoch": "6",
    "training.eval_epochs": "2",
    "model.reuse_class_rows": "false",
    "model.num_queries": "20",
    "model.trainable_stages": "[layer4]",
    "training.max_steps": "30",
    "training.lr_scheduler_type": "cosine",
    "training.warmup_steps": "3",
    "training.eval_strategy": "no",
    "training.ema_decay": "0.9",
    "data.streaming": "true",
    "model.masks": "true",
}
"""Values of fields that are chosen where they are left out, and of some by which others are not chosen."""


def load(*flags: str) -> Recipe:
    own = ["--training.preset=auto", "--training.use_cpu=true", "--training.bf16=false"]
    return load_recipe(None, [*own, *flags])


def values(size: DataSize, *flags: str) -> dict[str, object]:
    return {name: choice.value for name, choice in choose(load(*flags), size).items()}


@pytest.mark.parametrize(
    ("images", "a_step", "epochs", "drop", "every"),
    [
        (1, 1, 1000, 800, 50),
        (7, 4, 500, 400, 25),
        (30, 8, 250, 200, 12),
        (61, 8, 125, 100, 6),
        (300, 8, 50, 40, 2),
        (499, 8, 50, 40, 2),
        (500, 16, 50, 40, 2),
        (2_000, 16, 50, 40, 2),
        (20_000, 16, 24, 19.2, 1),
        (118_287, 16, 12, 9.6, 1),
    ],
)
def test_the_table(images: int, a_step: int, epochs: float, drop: float, every: int) -> None:
    found = values(replace(SIZE, images=images))
    assert found == {
        "training.per_device_train_batch_size": a_step,
        "training.gradient_accumulation_steps": 1,
        "training.num_train_epochs": epochs,
        "training.learning_rate_drop_epoch": drop,
        "training.eval_epochs": every,
        "model.reuse_class_rows": True,
    }


def test_more_images_never_take_more_epochs_and_steps_have_limits() -> None:
    before, recipe = float("inf"), load()
    for images in [*range(1, 500, 7), *range(500, 200_000, 977)]:
        found = {name: choice.value for name, choice in choose(recipe, replace(SIZE, images=images)).items()}
        epochs, batch = (float(str(found[f"training.{name}"])) for name in ("num_train_epochs", BATCH[0][9:]))
        steps = epochs * -(-images // batch)
        assert epochs <= before and steps >= 1000 and (steps <= 30_000 or epochs == 12), images
        before = epochs


@pytest.mark.parametrize(("processes", "expected"), [(1, 16), (2, 8), (3, 5), (64, 1)])
def test_processes_share_the_images_of_a_step(processes: int, expected: int) -> None:
    size = replace(SIZE, images=1000, processes=processes)
    assert values(size)["training.per_device_train_batch_size"] == expected


def test_as_many_queries_as_the_fullest_image_has_objects() -> None:
    assert "model.num_queries" not in values(replace(SIZE, fullest=100))
    crowded = replace(SIZE, fullest=101)
    assert values(crowded)["model.num_queries"] == 101
    assert "model.num_queries" not in values(crowded, "--model.config.num_queries", "50")


def test_a_new_model_has_no_rows_of_known_classes() -> None:
    new = ("--model.checkpoint", "null", "--model.backbone", "resnet18")
    assert "model.reuse_class_rows" not in values(SIZE, *new)


def test_what_is_given_decides_the_rest() -> None:
    steps = values(SIZE, "--training.max_steps", "80")
    assert "training.num_train_epochs" not in steps
    assert steps["training.learning_rate_drop_epoch"] == 8, "of ten epochs"
    assert values(SIZE, "--training.num_train_epochs", "1")["training.learning_rate_drop_epoch"] == 0.8
    batch = values(SIZE, "--training.per_device_train_batch_size", "2")
    assert not set(BATCH) & batch.keys()
    assert batch["training.num_train_epochs"] == 50, "1,550 steps"
    assert "training.learning_rate_drop_epoch" not in values(SIZE, "--training.lr_scheduler_type", "cosine")


def given(fields: Sequence[str]) -> list[str]:
    return [part for name in fields for part in (f"--{name}", GIVEN[name])]


@pytest.mark.parametrize("seed", range(30))
def test_what_is_given_wins_and_what_is_chosen_goes_with_it(seed: int) -> None:
    draw = random.Random(seed)
    assert set(FIELDS) <= GIVEN.keys()
    fields = draw.sample(sorted(GIVEN), draw.randint(0, 4))
    recipe = load(*given(fields))
    size = replace(SIZE, images=draw.choice([3, 60, 4000]), fullest=draw.choice([5, 300]))
    choices = choose(recipe, size)
    share = recipe.with_choices(choices).training.per_device_train_batch_size
    choices |= divide_batch(recipe, share, draw.randint(0, 8)) if BATCH[0] in choices else {}
    assert choices.keys() <= set(FIELDS) - recipe.given
    chosen = recipe.with_choices(choices)
    for name in recipe.given:
        section, key = name.split(".")
        assert chosen.resolved[section][key] == recipe.resolved[section][key]
        assert getattr(getattr(chosen, section), key) == getattr(getattr(recipe, section), key)
    assert set(check_recipe(chosen)) <= set(check_recipe(recipe)), "a problem that was chosen"


@pytest.mark.parametrize(
    ("room", "expected"), [(8, None), (100, None), (7, (4, 2)), (3, (2, 4)), (1, (1, 8)), (0, (1, 8))]
)
def test_a_step_is_divided_into_what_the_memory_has_room_for(room: int, expected: tuple[int, int] | None) -> None:
    choices = divide_batch(load(), 8, room)
    assert (tuple(choices[name].value for name in BATCH) if expected else None) == expected
    assert (STAGES in choices) is (room == 0)
    assert STAGES not in divide_batch(load("--model.trainable_stages", "[layer4]"), 8, 0)


def test_every_choice_is_a_field_with_its_reason() -> None:
    choices = {**choose(load(), replace(SIZE, fullest=300)), **divide_batch(load(), 8, 0)}
    assert choices.keys() == set(FIELDS)
    assert all(choice.why for choice in choices.values())
    assert choices[BATCH[0]].why == "memory has room for 0 of 8 images at once"
    recipe = load()
    chosen = recipe.with_choices(choices)
    assert (recipe.training.num_train_epochs, chosen.training.num_train_epochs) == (50, 125)
    assert (recipe.model.reuse_class_rows, chosen.model.reuse_class_rows) == (False, True)
    assert recipe.resolved["model"]["reuse_class_rows"] is False
