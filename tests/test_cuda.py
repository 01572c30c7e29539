"""Training and prediction on a CUDA GPU; skipped where there is none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hf_detr_ft import Detector
from hf_detr_ft.cli import main
from tests.fixtures import plain_image

DEVICE = "cuda"

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
    pytest.mark.skipif(
        torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False),
        reason="the GPU does not compute in bf16",
    ),
]


@pytest.fixture(scope="module")
def run(job: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps in the precision that is chosen on this GPU."""
    folder = tmp_path_factory.mktemp("cuda") / "run"
    flags = ("--training.use_cpu", "false", "--training.bf16", "null", "--training.max_steps", "2")
    assert main(["train", *job, *flags, "--training.output_dir", str(folder)]) == 0
    return folder


def test_it_trains_in_bf16(run: Path) -> None:
    assert yaml.safe_load((run / "recipe.yaml").read_text())["training"]["bf16"] is True
    log = json.loads((run / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 2 and np.isfinite(losses).all()
    assert json.loads((run / "metrics.json").read_text())["last"]["images"] == 2


def test_it_detects_what_a_cpu_detects(run: Path) -> None:
    image = plain_image(90, 150, seed=0)
    on_cpu, on_gpu = (Detector.from_pretrained(run, device=device)(image, threshold=0.0) for device in ("cpu", DEVICE))
    # Convolutions on a GPU are in TF32.
    np.testing.assert_allclose(np.sort(on_gpu["scores"]), np.sort(on_cpu["scores"]), atol=0.01)


def test_predict_runs_there(run: Path, tmp_path: Path) -> None:
    plain_image(90, 150, seed=0).save(tmp_path / "image.jpg")
    output = tmp_path / "output"
    assert main(["predict", str(run), str(tmp_path / "image.jpg"), "--threshold", "0", "--output", str(output)]) == 0
    assert len(json.loads((output / "detections.json").read_text())) == 12
