"""Batches that do not fit the memory: computed in parts that add up to the whole, or an error that names them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_detr_ft import cli
from hf_detr_ft.errors import TrainingError
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.training.split_batches import BatchSplitter, is_out_of_memory
from tests.distributed import one_step
from tests.distributed.one_step import KeepGradients

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def batch(images: int) -> dict:
    return {"pixel_values": torch.zeros(images, 3, 8, 8), "labels": list(range(images))}


def fits(limit: int, seen: list) -> Callable[[dict], list]:
    """Work that takes no more than so many images at once."""

    def work(part: dict) -> list:
        seen.append(len(part["labels"]))
        if len(part["pixel_values"]) > limit:
            raise FULL
        return part["labels"]

    return work


def test_parts_are_halved_until_they_fit_and_later_batches_begin_with_what_fitted() -> None:
    splitter, seen, undone = BatchSplitter(True), list[int](), list[int]()
    assert splitter.run(fits(2, seen), batch(7), lambda: undone.append(1)) == [[0, 1], [2, 3], [4, 5], [6]]
    assert (seen, len(undone)) == ([7, 4, 2, 2, 2, 1], 2)
    seen.clear()
    splitter.run(fits(2, seen), batch(5), undone.clear)
    assert seen == [3, 2, 2, 1]


def test_a_single_image_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        BatchSplitter(True).run(fits(0, []), batch(4), lambda: None)
    with pytest.raises(torch.OutOfMemoryError):
        BatchSplitter(False).run(fits(2, []), batch(4), lambda: None)


def test_the_memory_of_a_cpu_is_told_from_other_errors() -> None:
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def shrink_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Leaves memory for the maps of one image: what is more is noticed in the middle of the backward pass."""
    whole, seen = DetrForObjectDetection.forward, list[int]()

    def fail(*_: object) -> None:
        raise FULL

    def forward(self: DetrForObjectDetection, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(pixel_values))
        if len(pixel_values) > 1 and not self.training:
            fail()
        outputs = whole(self, pixel_values, *args, **kwargs)
        if len(pixel_values) > 1:
            outputs.encoder_last_hidden_state.register_hook(fail)
        return outputs

    monkeypatch.setattr(DetrForObjectDetection, "forward", forward)
    return seen


def step(folder: Path, *, splits: bool) -> tuple[dict, dict, dict]:
    """Gradients, log and evaluation of one step of two micro-batches of two images."""
    trainer = one_step.build(folder, batch=2, accumulation=2)
    trainer._splitter.is_enabled = splits
    keep = KeepGradients(trainer.model)
    trainer.add_callback(keep)
    trainer.train()
    metrics = trainer.evaluate()
    assert trainer.result is not None
    return keep.gradients, trainer.state.log_history[0], {**trainer.result.as_dict(), "loss": metrics["eval_loss"]}


def test_parts_give_what_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gradients, logged, evaluation = step(tmp_path / "whole", splits=False)
    seen = shrink_memory(monkeypatch)
    found = step(tmp_path / "parts", splits=True)
    assert seen[:3] == [2, 1, 1] and set(seen) == {1, 2}
    for name, gradient in gradients.items():
        assert torch.allclose(found[0][name], gradient, rtol=1e-3, atol=1e-5), name
    losses = {name: value for name, value in logged.items() if name.startswith(("loss", "class", "card"))}
    assert {name: found[1][name] for name in losses} == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert found[2]["metrics"] == pytest.approx(evaluation["metrics"], abs=1e-3)
    assert found[2]["loss"] == pytest.approx(evaluation["loss"], rel=1e-4)


def test_the_error_names_the_batch_and_the_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_memory(monkeypatch)
    words = "training stopped at step 0: cpu is out of memory with 2 images of 96 x 128 pixels. Give --training.auto_"
    with pytest.raises(TrainingError, match=words):
        step(tmp_path / "a", splits=False)
    trainer = one_step.build(tmp_path / "b", batch=2, accumulation=2)
    words = "evaluation stopped at step 0: cpu is out of memory with 2 images .* pixels. Give --training.auto_find_ba"
    with pytest.raises(TrainingError, match=words):
        trainer.evaluate()


def test_by_command(job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = shrink_memory(monkeypatch)
    flags = ["--training.output_dir", str(tmp_path / "run"), "--training.num_train_epochs", "1"]
    assert cli.main(["train", *job, *flags, "--training.auto_find_batch_size"]) == 0
    assert seen[:4] == [4, 2, 1, 1]
    assert len((tmp_path / "run/results.csv").read_text().splitlines()) == 2


def test_memory_that_is_lacking_elsewhere_stops_at_once(
    job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Transformers' own way would begin again with fewer images, and with the weights that are there."""
    tried = []

    def fail(*_: object, **__: object) -> None:
        tried.append(1)
        raise FULL

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    flags = ["--training.output_dir", str(tmp_path / "run"), "--training.auto_find_batch_size"]
    assert cli.main(["train", *job, *flags]) == 1
    assert len(tried) == 1
    assert "out of memory beside the batches" in capfd.readouterr().err
