"""Photos that become unreadable in the middle: the step and the evaluation are those of the other photos."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_detr_ft.errors import DataError
from tests.distributed import one_step


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one step leaves whose last photo cannot be read: alone in its micro-batch, beside others, and left out."""
    folder = tmp_path_factory.mktemp("skipped")
    one_step.run(folder, "beside", batch=4, accumulation=1, unreadable=True)
    one_step.run(folder, "alone", batch=1, accumulation=4, unreadable=True)
    return folder


def test_the_step_is_that_of_the_other_photos(folder: Path, tmp_path: Path) -> None:
    trainer = one_step.build(tmp_path, batch=3, accumulation=1)
    keep = one_step.KeepGradients(trainer.model)
    trainer.add_callback(keep)
    trainer.train_dataset = trainer.train_dataset.select(range(3))
    trainer.train()
    (logged,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    for name in ("beside", "alone"):
        found = load_file(folder / f"{name}.safetensors")
        for parameter, gradient in keep.gradients.items():
            assert torch.allclose(found[parameter], gradient, rtol=1e-3, atol=1e-5), (name, parameter)
        losses = json.loads((folder / f"{name}.json").read_text())["logged"]
        assert losses == pytest.approx({part: logged[part] for part in losses}, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["beside", "alone"])
def test_each_is_counted_once_and_has_no_detections(folder: Path, name: str) -> None:
    written = json.loads((folder / f"{name}.json").read_text())
    assert written["skipped"] == {"training": [103], "validation": [106]}
    assert [(found["images"], found["detections"]) for found in written["evaluations"]] == [(7, 6 * 12)] * 2


def test_without_the_choice_the_error_offers_it(tmp_path: Path) -> None:
    trainer = one_step.build(tmp_path, batch=4, accumulation=1)
    (tmp_path / "train2017/01_003.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"01_003.jpg: expected an image, found an empty file.*data.on_bad_image skip"):
        trainer.train()
