"""`training.preset: auto` from the data to the run's recipe: a training, its repetition, its resumption, its memory."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file

from hf_detr_ft.cli import main
from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.recipe import preset
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.run_folder import RECIPE, WEIGHTS
from hf_detr_ft.training import choose_preset
from hf_detr_ft.training.choose_preset import apply_preset, count_queries, find_room, measure_data
from hf_detr_ft.training.job import Job, prepare_trial
from tests.fixtures import as_flags, new_model, tiny_detr, write_coco_folder


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of a training of nine images of a class that the checkpoint knows, and one that it does not."""
    folder = tmp_path_factory.mktemp("job")
    tiny_detr(["mugs", "other"]).save_pretrained(folder / "model")
    return as_flags(
        {
            "training.preset": "auto",
            "data.root": write_coco_folder(folder / "data", train_sizes=[(64, 96), (96, 64), (64, 64)] * 3),
            "model.checkpoint": folder / "model",
            "model.square_edge": 64,
            "training.use_cpu": "true",
            "training.bf16": "false",
            "training.disable_tqdm": "true",
            "training.save_total_limit": "null",
            "report.enabled": "false",
        }
    )


def no_room(*_: object) -> int:
    raise AssertionError("the memory was looked at")


def read(run: Path) -> dict:
    sections = yaml.safe_load((run / RECIPE).read_text())
    return {name: values for name, values in sections.items() if name != "made_with"}


def assert_repeated(run: Path, other: Path) -> None:
    expected, found = read(run), read(other)
    assert found["training"].pop("output_dir") != expected["training"].pop("output_dir")
    assert found == expected
    one, two = (load_file(folder / WEIGHTS) for folder in (run, other))
    assert all(torch.equal(one[name], tensor) for name, tensor in two.items())


def test_a_training_says_what_it_chose_repeats_it_and_goes_on_with_it_whatever_memory_there_is(
    job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, repeated, resumed = (tmp_path / name for name in ("run", "repeated", "resumed"))
    for name, value in {"LEAST_STEPS": 4, "EPOCHS": 2, "LEAST_EPOCHS": 1}.items():
        monkeypatch.setattr(preset, name, value)
    look = choose_preset.find_room
    monkeypatch.setattr(choose_preset, "find_room", lambda *given: min(4, look(*given)))
    assert main(["train", *job, "--training.output_dir", str(run)]) == 0
    said = capsys.readouterr().out
    for line in (
        "training.num_train_epochs 2.0: 9 images are 2 steps an epoch, 4 in all; 2 epochs, fewer of many images",
        "training.per_device_train_batch_size 4: memory has room for 4 of 8 images at once",
        "training.gradient_accumulation_steps 2: the same gradients",
        "model.reuse_class_rows true: for classes that the checkpoint knows by name, if any",
    ):
        assert f"chosen    {line}" in said
    training = read(run)["training"]
    assert [training[name.partition(".")[2]] for name in preset.BATCH] == [4, 2]
    assert read(run)["model"]["reuse_class_rows"] is True
    monkeypatch.undo()
    monkeypatch.setattr(choose_preset, "find_room", no_room)
    assert main(["train", str(run / RECIPE), "--training.output_dir", str(repeated)]) == 0
    assert "chosen" not in capsys.readouterr().out
    assert_repeated(run, repeated)
    resume = ["--training.resume_from_checkpoint", str(run / "checkpoint-2"), "--training.output_dir", str(resumed)]
    assert main(["train", *job, *resume]) == 0
    assert "training.num_train_epochs 2.0: as the run began" in capsys.readouterr().out
    assert_repeated(run, resumed)


def test_check_tells_the_choices_too(job: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *job]) == 0
    said = capsys.readouterr().out
    assert "chosen    training.num_train_epochs 500.0: 9 images are 2 steps an epoch, 1,000 in all" in said
    assert "training  8 images of 64 x 64 pixels" in said


@pytest.mark.parametrize(("images", "least", "most"), [(0.5, 0, 0), (3.5, 2, 3), (1e6, 8, 10**12)])
def test_room_goes_by_what_one_image_takes(
    images: float, least: int, most: int, job: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, taken, fixed = load_recipe(None, job), 2**28, 2**30

    def measured(_: object) -> tuple[int, int]:
        return fixed, taken

    monkeypatch.setattr(choose_preset, "measure_images", measured)
    monkeypatch.setattr(choose_preset, "free_bytes", lambda _: int((fixed + images * taken) / choose_preset.SHARE) + 1)
    splits = load_splits(recipe.data)
    assert least <= find_room(recipe, splits, prepare_trial) <= most


def test_there_is_no_room_where_one_image_is_too_much(job: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("of the device")

    recipe = load_recipe(None, job)
    splits = load_splits(recipe.data)
    assert find_room(recipe, splits, prepare_trial) > 0
    monkeypatch.setattr(Accelerator, "backward", fail)
    assert find_room(recipe, splits, prepare_trial) == 0


def test_a_training_without_a_preset_is_left_alone(job: list[str]) -> None:
    recipe = load_recipe(None, [*job, "--training.preset", "null"])
    assert apply_preset(recipe, load_splits(recipe.data), no_trial) is recipe


def no_trial(*_: object) -> Job:
    raise AssertionError("a trial")


def test_no_memory_is_tried_where_the_trainer_finds_the_batch_itself(job: list[str]) -> None:
    recipe = load_recipe(None, [*job, "--training.auto_find_batch_size", "true"])
    chosen = apply_preset(recipe, load_splits(recipe.data), no_trial)
    assert chosen.training.per_device_train_batch_size == 8


def test_what_is_given_wins_over_the_choices_of_the_run_that_goes_on(job: list[str], tmp_path: Path) -> None:
    before = {"training": {"num_train_epochs": 3}, "model": {"reuse_class_rows": True}}
    (tmp_path / RECIPE).write_text(yaml.safe_dump(before))
    recipe = load_recipe(None, [*job, "--model.reuse_class_rows", "false"])
    chosen = apply_preset(recipe, load_splits(recipe.data), no_trial, tmp_path)
    assert (chosen.training.num_train_epochs, chosen.model.reuse_class_rows) == (3, False)
    assert chosen.choices.keys() == {"training.num_train_epochs"}


def test_the_fullest_image_may_be_one_of_validation(job: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(None, job)
    splits = load_splits(recipe.data)
    monkeypatch.setattr(choose_preset, "most_objects", lambda rows: (len(rows), ""))
    for either in (splits, replace(splits, train=splits.val, val=splits.train)):
        assert measure_data(recipe, either).fullest == len(splits.train)


def test_queries_are_those_of_the_recipe_or_the_model(job: list[str]) -> None:
    recipe = load_recipe(None, job)
    own = tiny_detr().config.num_queries
    assert count_queries(recipe.model) == own
    assert count_queries(load_recipe(None, [*job, "--model.num_queries", "7"]).model) == 7
    assert count_queries(new_model()) == 100
