"""Steps of a job on its way from a recipe to a trainer."""

from pathlib import Path

import pytest
from torch import nn

from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.training.job import prepare_job, prepare_trial


def test_memory_is_kept_for_the_steps_and_not_what_reading_took(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def read(*_: object) -> None:
        calls.append("read")
        raise DataError("no data")

    monkeypatch.setattr("hf_detr_ft.training.job.load_splits", read)
    monkeypatch.setattr("hf_detr_ft.training.job.keep_freed_memory", lambda device: calls.append("keep"))
    with pytest.raises(DataError, match="no data"):
        prepare_job(load_recipe(None, ["--training.use_cpu", "true"]))
    assert calls == ["read"]


def test_batch_norms_are_shared_by_device_and_processes(
    job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def share(model: nn.Module, *of: object) -> None:
        told.append((type(model).__name__, *of))

    monkeypatch.setattr("hf_detr_ft.training.job.share_statistics", share)
    recipe = load_recipe(None, [*job, "--training.output_dir", str(tmp_path)])
    prepare_trial(recipe, load_splits(recipe.data))
    assert told == [("DetrForObjectDetection", "cpu", 1)]
