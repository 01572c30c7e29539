"""Parts of the trainer that need no training: order of images, schedules, detections."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.collate import collate
from hf_detr_ft.data.dataset import read_column
from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.evaluation.detections import to_detections
from hf_detr_ft.training.loss_parts import NOT_COUNTED, own_images
from tests.distributed import one_step


def test_reading_a_column_decodes_no_image(tmp_path: Path) -> None:
    trainer = one_step.build(tmp_path, batch=2, accumulation=1)
    for path in (tmp_path / "train2017").iterdir():
        path.unlink()
    assert read_column(trainer.train_dataset, "aspect_ratio") == pytest.approx([128 / 96] * 4)
    assert len(list(trainer._get_train_sampler())) == 4
    assert len(list(trainer._get_eval_sampler(trainer.eval_dataset))) == 7


def test_images_of_rare_classes_come_more_often_where_the_recipe_asks(tmp_path: Path) -> None:
    trainer = one_step.build(tmp_path, batch=2, accumulation=1)
    trainer.args.train_sampling_strategy = "random"
    rows = trainer.train_dataset.with_format(None)
    rows = rows.map(lambda row, place: {"objects": {**row["objects"], "label": [int(place == 3)]}}, with_indices=True)
    for balance, least, most in ((None, 40, 40), (0.75, 50, 67)):  # as 1 to sqrt(3): 58 times
        trainer.balance, count = balance, 0
        for epoch in range(40):
            trainer.epoch.set(epoch)
            order = list(trainer._get_train_sampler(rows))
            assert len(order) == 4
            count += order.count(3)
        assert least <= count <= most


@pytest.mark.parametrize("length", [{"num_train_epochs": 15.0}, {"num_train_epochs": 0.0}, {"max_steps": 30}])
def test_detrs_schedule_drops_all_rates_by_ten_once_after_an_epoch(tmp_path: Path, length: dict) -> None:
    trainer = one_step.build(tmp_path, batch=2, accumulation=1)  # 4 images: 2 steps an epoch
    trainer.args.learning_rate_drop_epoch = 10.0
    for name, value in length.items():
        setattr(trainer.args, name, value)
    optimizer = trainer.create_optimizer()
    scheduler = trainer.create_scheduler(num_training_steps=30)
    rates = []
    for _ in range(30):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    first = [group["initial_lr"] for group in optimizer.param_groups]
    assert sorted(set(first)) == [1e-5, 1e-4]
    assert rates[:20] == [first] * 20
    assert rates[20:] == [pytest.approx([rate / 10 for rate in first])] * 10


@pytest.mark.parametrize("decay_all", [False, True])
def test_norms_and_biases_are_decayed_where_the_recipe_asks(tmp_path: Path, decay_all: bool) -> None:
    trainer = one_step.build(tmp_path, batch=2, accumulation=1)
    trainer.args.decay_all = decay_all
    groups = trainer.create_optimizer().param_groups
    assert {group["weight_decay"] for group in groups if any(p.dim() == 1 for p in group["params"])} == {
        trainer.args.weight_decay if decay_all else 0.0
    }


def test_detections_carry_category_ids_and_leave_unknown_classes_out() -> None:
    raw = torch.tensor([[[0.9, 1, 10, 20, 30, 60], [0.5, 0, 0, 0, 5, 5], [0.4, 2, 1, 1, 2, 2]]])
    label_map = LabelMap((17, 3, -3), ("a", "b", "not in the data"))
    detections = to_detections(raw.numpy(), np.array([42]), label_map)
    assert detections.image_id.tolist() == [42, 42]
    assert detections.category_id.tolist() == [3, 17]
    assert detections.boxes_xywh_px.tolist() == [[10, 20, 20, 40], [0, 0, 5, 5]]


def test_the_log_carries_the_rate_of_the_backbone_beside_the_other(tmp_path: Path) -> None:
    trainer = one_step.build(tmp_path, batch=2, accumulation=1)
    trainer.args.learning_rate_drop_epoch = 0.5
    trainer.create_optimizer()
    trainer.create_scheduler(num_training_steps=2)
    assert trainer.optimizer is not None and trainer.lr_scheduler is not None
    for rest, backbone in ((1e-4, 1e-5), (1e-5, 1e-6)):
        rate = trainer._get_learning_rate()  # the Trainer reads it before the step and logs it behind
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        trainer.log({"loss": 1.0, "learning_rate": rate})
        logged = trainer.state.log_history[-1]
        assert (logged["learning_rate"], logged["backbone_learning_rate"]) == (
            pytest.approx(rest),
            pytest.approx(backbone),
        )


@pytest.mark.parametrize(("is_best", "field"), [(True, "load_best_model_at_end"), (False, "resume_from_checkpoint")])
@pytest.mark.parametrize("damage", ["cut off", "removed"])
def test_weights_that_cannot_be_loaded_are_named_by_what_they_are_loaded_for(
    tmp_path: Path, is_best: bool, field: str, damage: str
) -> None:
    trainer = one_step.build(tmp_path, batch=2, accumulation=1)
    checkpoint = tmp_path / "checkpoint-1"
    trainer.save_model(str(checkpoint))
    if damage == "removed":
        shutil.rmtree(checkpoint)
    else:
        (checkpoint / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes()[:9999])
    trainer.state.best_model_checkpoint = str(checkpoint)
    with pytest.raises(CheckpointError) as caught:
        trainer._load_best_model() if is_best else trainer._load_from_checkpoint(str(checkpoint))
    text = str(caught.value)
    assert text.startswith(f"training.{field}: ")
    assert f"'{checkpoint}'" in text
    assert ("anew" in text) is not is_best, "what to do is about the same thing"


@pytest.mark.parametrize(
    ("batch", "accumulation", "drop_last", "steps"),
    [(2, 1, False, 2), (3, 1, False, 2), (3, 1, True, 1), (1, 3, False, 2)],
)
def test_steps_of_an_epoch_are_those_of_transformers(
    tmp_path: Path, batch: int, accumulation: int, drop_last: bool, steps: int
) -> None:
    trainer = one_step.build(tmp_path, batch=batch, accumulation=accumulation)
    trainer.args.dataloader_drop_last = drop_last
    assert trainer.steps_per_epoch() == steps
    assert trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[1] == steps


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_are_not_seeded_by_the_draws_of_dropout(workers: int, tmp_path: Path) -> None:
    """Loaders that keep their workers would draw once, and those of a resumed training once more."""
    trainer = one_step.build(tmp_path, batch=2, accumulation=1)
    trainer.args.dataloader_num_workers = workers
    for loader in (trainer.get_train_dataloader(), trainer.get_eval_dataloader()):
        before = torch.get_rng_state()
        next(iter(loader))
        assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_never_drops_its_last_batch(tmp_path: Path) -> None:
    trainer = one_step.build(tmp_path, batch=2, accumulation=1)
    trainer.args.dataloader_drop_last = True
    assert sum(len(batch["labels"]) for batch in trainer.get_eval_dataloader()) == len(trainer.eval_dataset) == 7
    assert len(trainer.get_train_dataloader()) == 2 and trainer.args.dataloader_drop_last


@pytest.mark.parametrize(
    ("left", "own"), [(1, [1, 0, 0]), (2, [2, 0, 0]), (3, [2, 1, 0]), (5, [2, 2, 1]), (0, [2, 2, 2])]
)
def test_images_that_fill_the_last_batches_up_are_left_out(left: int, own: list[int]) -> None:
    """Three processes with batches of two, of which `left` images are left for the last ones."""
    batch = collate([{"pixel_values": torch.ones(3, *size), "labels": {}} for size in ((4, 6), (7, 5))], step=2)
    loader = SimpleNamespace(total_batch_size=6)
    state: Any = SimpleNamespace(end_of_dataloader=True, remainder=left, active_dataloader=loader)
    cut = [own_images(batch, state, process, 3, step=2) for process in range(3)]
    assert [0 if NOT_COUNTED in part else len(part["labels"]) for part in cut] == own
    assert [len(part["pixel_values"]) for part in cut] == [max(1, count) for count in own]
    assert [part["pixel_mask"].shape[1:] for part in cut] == [(8, 6) if count == 2 else (4, 6) for count in own]
    before: Any = SimpleNamespace(end_of_dataloader=False, remainder=left, active_dataloader=loader)
    assert own_images(batch, before, 2, 3) is batch
    assert own_images(batch, state, 0, 1) is batch


def test_the_validation_loss_does_not_depend_on_the_batches(tmp_path: Path) -> None:
    trainer = one_step.build(tmp_path, batch=2, accumulation=1)
    parts = []
    for size in (1, 7):
        trainer.args.per_device_eval_batch_size = size
        parts.append({name: value for name, value in trainer.evaluate().items() if "loss" in name or "error" in name})
    assert len(parts[0]) > 5
    assert parts[0] == pytest.approx(parts[1], rel=1e-3)  # padding beside an image reaches a little into it


def test_the_first_process_alone_needs_the_best_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = one_step.build(tmp_path, batch=2, accumulation=1)
    trainer.state.best_model_checkpoint = str(tmp_path / "on another machine")
    monkeypatch.setattr(trainer, "is_world_process_zero", lambda: False)
    trainer._load_best_model()
    monkeypatch.undo()
    with pytest.raises(CheckpointError):
        trainer._load_best_model()


def test_a_step_has_one_size_which_a_resumed_training_draws_again(tmp_path: Path) -> None:
    edges, shapes = (64, 80, 96), {"whole": [], "resumed": []}
    weights = []
    for name, seen in shapes.items():
        trainer = one_step.build(tmp_path, batch=1, accumulation=2, edges=edges)  # 4 images: 2 steps an epoch
        trainer.args.max_steps, trainer.args.save_strategy, trainer.args.save_steps = 8, "steps", 4
        trainer.model.register_forward_pre_hook(
            lambda _, __, inputs, seen=seen: seen.append((tuple(inputs["pixel_values"].shape[2:]), inputs)),
            with_kwargs=True,
        )
        trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4") if name == "resumed" else None)
        weights.append({name: weight.clone() for name, weight in trainer.model.state_dict().items()})
    whole, resumed = ([shape for shape, _ in seen] for seen in shapes.values())
    assert whole[::2] == whole[1::2] and {shape[0] for shape in whole} == set(edges)
    assert all(height == width for height, width in whole)
    assert resumed == whole[8:]
    assert all(bool(inputs["pixel_mask"].all()) for _, inputs in shapes["whole"])
    assert all(torch.equal(weights[1][name], weight) for name, weight in weights[0].items())
