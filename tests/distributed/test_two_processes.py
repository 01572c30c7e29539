"""One gradient, one AP, one set of drawn images: however the work is cut into processes and micro-batches."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed import job
from tests.distributed.__main__ import DIVISIONS

REPOSITORY = Path(__file__).parents[2]


def launch(processes: int, *arguments: str) -> None:
    """`accelerate launch`, which without `--multi_gpu` and a GPU starts one process, and does not say so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", str(processes), "--main_process_port", str(port)]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    finished = subprocess.run([*command, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def launched(folder: Path) -> Path:
    """What two processes wrote."""
    launch(2, "-m", "tests.distributed", str(folder))
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """One process, all four images in one batch."""
    job.run(folder, "whole", batch=4, accumulation=1)
    return read(folder, "whole")


def read(folder: Path, name: str) -> tuple[dict[str, torch.Tensor], dict]:
    return load_file(folder / f"{name}.safetensors"), json.loads((folder / f"{name}.json").read_text())


def relative_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert found.keys() == expected.keys()
    flat = [torch.cat([gradients[name].flatten() for name in expected]) for gradients in (found, expected)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def assert_same_step(found: tuple[dict, dict], expected: tuple[dict, dict]) -> None:
    assert relative_difference(found[0], expected[0]) < 1e-4
    for name, value in expected[1]["logged"].items():
        assert found[1]["logged"][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 2), (1, 4)])
def test_accumulation(folder: Path, whole: tuple[dict, dict], batch: int, accumulation: int) -> None:
    name = f"accumulated_{accumulation}"
    job.run(folder, name, batch, accumulation)
    assert_same_step(read(folder, name), whole)


@pytest.mark.parametrize(("batch", "accumulation"), DIVISIONS)
def test_two_processes(launched: Path, whole: tuple[dict, dict], batch: int, accumulation: int) -> None:
    found = read(launched, f"two_processes_{accumulation}")
    assert found[1]["processes"] == 2
    assert_same_step(found, whole)
    first, second = found[1]["evaluations"]
    assert first == second
    assert first["images"] == 7
    assert first["detections"] == 7 * 12  # each image once, and each of the 12 queries of an image
    expected = whole[1]["evaluations"][0]
    assert first["metrics"] == pytest.approx(expected["metrics"], abs=1e-3)


def test_two_processes_get_the_same_images_each_drawn_once(launched: Path) -> None:
    first, second = (json.loads((launched / "drawn" / f"{rank}.json").read_text()) for rank in range(2))
    assert first["digests"] == second["digests"]
    assert first["fingerprints"] == second["fingerprints"]
    assert sorted(first["drawn"] + second["drawn"]) == [5, 20]


def test_an_image_that_is_missing_from_an_evaluation_is_noticed(folder: Path) -> None:
    trainer = job.build(folder / "missing", batch=4, accumulation=1)
    trainer.truth = {**trainer.truth, "images": [*trainer.truth["images"], {"id": 999, "height": 5, "width": 5}]}
    with pytest.raises(AssertionError, match="counted"):
        trainer.evaluate()
