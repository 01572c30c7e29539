"""The largest batches of a training, found before it begins."""

import mmap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.training import trial_batches
from hf_detr_ft.training.job import prepare_trial
from hf_detr_ft.training.trainer import DetrTrainer
from hf_detr_ft.training.trial_batches import (
    largest_evaluation_batch,
    largest_training_batch,
    measure_images,
    most_demanding_objects,
    random_batch,
    try_largest_batches,
)
from tests.families import write_checkpoint
from tests.fixtures import tiny_detr, write_coco_folder

SIZES = [(96, 192), (192, 96), (96, 192), (192, 96), (96, 96), (96, 100)]


@pytest.fixture
def build(tmp_path: Path):
    write_coco_folder(tmp_path, train_sizes=SIZES, val_sizes=SIZES)
    tiny_detr(["a"]).save_pretrained(tmp_path / "checkpoint")

    def build(*flags: str) -> DetrTrainer:
        given = (
            *("--data.root", str(tmp_path), "--model.checkpoint", str(tmp_path / "checkpoint")),
            *("--model.shortest_edge", "64", "--model.longest_edge", "128", "--training.use_cpu", "true"),
            *("--training.bf16", "false", "--training.per_device_train_batch_size", "2"),
            *("--training.per_device_eval_batch_size", "2", "--training.output_dir", str(tmp_path / "run")),
        )
        recipe = load_recipe(None, [*given, *flags])
        return prepare_trial(recipe, load_splits(recipe.data)).trainer

    return build


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--augment.preset", "none"], (2, {64, 128})),
        (["--augment.preset", "none", "--training.train_sampling_strategy", "random"], (2, {128})),  # tall beside wide
        (["--augment.preset", "none", "--speed.size_step", "48"], (2, {96, 144})),
        (["--model.square_edge", "80"], (2, {80})),
        (["--model.square_edge", "128", "--augment.multi_scale", "batch"], (2, {160})),
        (["--augment.preset=none", "--speed.size_step=1", "--augment.pipeline=[RandomRotate90]"], (2, {128})),
    ],
)
def test_the_largest_training_batch_is_padded_as_training_pads_it(build, flags: list[str], expected: tuple) -> None:
    images, height, width = largest_training_batch(build(*flags))
    assert (images, {height, width}) == expected


@pytest.mark.parametrize("flags", [[], ["--speed.size_step", "1"], ["--augment.random_crop", "1"]])
def test_no_batch_of_the_first_epochs_is_larger(build, flags: list[str]) -> None:
    trainer = build(*flags)
    _, height, width = largest_training_batch(trainer)
    seen = []
    for epoch in range(3):
        trainer.train_transform.epoch.set(epoch)
        seen += [batch["pixel_values"].shape for batch in trainer.get_train_dataloader()]
    assert max(h * w for _, _, h, w in seen) <= height * width
    assert max(h * w for _, _, h, w in seen) >= height * width / 3


def test_evaluation_pads_no_further_than_it_has_to(build) -> None:
    assert set(largest_evaluation_batch(build())[1:]) == {64, 128}


def test_each_batch_has_a_peak_of_its_own(build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation takes less than training, though the process has held training's batch before."""
    flags = ("--training.per_device_train_batch_size", "6", "--training.ema_decay", "0.9")
    trainer = build("--augment.preset", "none", *flags)
    step = trainer.accelerator.backward

    def backward(loss: torch.Tensor) -> None:
        with mmap.mmap(-1, 2**28) as block:  # the allocator may keep what is freed
            for start in range(0, len(block), 2**12):
                block[start] = 1
            step(loss)

    monkeypatch.setattr(trainer.accelerator, "backward", backward)
    training, evaluation = try_largest_batches(trainer)
    assert evaluation.peak_bytes < training.peak_bytes - 2**27
    head = trainer.model.class_labels_classifier.weight
    trained = head.clone()
    with trainer.average.in_place():
        assert not torch.equal(head, trained), "the peak has no average in it"


@pytest.mark.parametrize(
    ("most", "denoising", "expected"),
    [(0, 100, 0), (1, 100, 1), (7, 100, 5), (60, 100, 50), (150, 100, 150), (150, 0, 150)],
)
def test_most_denoising_queries_are_not_those_of_most_objects(most: int, denoising: int, expected: int) -> None:
    assert most_demanding_objects(most, denoising) == expected


@pytest.mark.parametrize("measure", [measure_images, try_largest_batches])
def test_a_training_batch_is_measured_beside_the_optimisers_moments(
    measure: Callable, build, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, moments = build(), list[int]()
    monkeypatch.setattr(trial_batches, "reset_peak", lambda _: moments.append(len(trainer.optimizer.state)))
    measure(trainer)
    trained = sum(weight.requires_grad for weight in trainer.model.parameters())
    assert moments[:2] == [0, trained]


def test_the_trial_has_the_most_denoising_queries(build, tmp_path: Path) -> None:
    """Ten have room for nine of three objects, and for ten of two; each has a partner that is far off."""
    write_coco_folder(tmp_path, train_sizes=SIZES, val_sizes=SIZES, train_objects=[0, 1, 2, 3, 3, 1])
    checkpoint = write_checkpoint(tmp_path / "rt_detr", "rt_detr")
    trainer = build("--model.checkpoint", str(checkpoint), "--model.square_edge", "64")
    queries: list[int] = []
    trainer.model.model.denoising_class_embed.register_forward_hook(lambda *call: queries.append(call[-1].shape[1]))
    try_largest_batches(trainer)
    trainer.model.train()
    for objects in (1, 2, 3):
        trainer.model(**random_batch((2, 64, 64), objects, torch.device("cpu")))
    trial = queries[:2]  # which trains two steps
    assert (trial, queries[2:]) == ([20, 20], [20, 20, 18])
