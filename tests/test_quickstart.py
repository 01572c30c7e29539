"""The first command of the README, on fewer photos and with network sockets forbidden."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForObjectDetection, pipeline

from hf_detr_ft.model.checkpoint import resolve_source

REPOSITORY = Path(__file__).parents[1]
GUARD = """
import socket

class Guarded(socket.socket):
    def __init__(self, family=-1, *arguments, **settings):
        if family != getattr(socket, "AF_UNIX", None) and settings.get("fileno") is None and len(arguments) < 3:
            raise RuntimeError("a network socket was opened")
        super().__init__(family, *arguments, **settings)

def refuse(*arguments, **settings):
    raise RuntimeError("a name was looked up")

socket.socket = Guarded
socket.getaddrinfo = refuse
"""


@pytest.fixture
def without_network(tmp_path: Path) -> dict[str, str]:
    """An environment whose Python processes, and those that they start, cannot open a network socket."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "ACCELERATE_"))}
    return {**kept, "PYTHONPATH": str(guard), "HF_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def test_the_guard_refuses(without_network: dict[str, str]) -> None:
    found = run(without_network, "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9/')")
    assert found.returncode and (
        "a network socket was opened" in found.stderr or "a name was looked up" in found.stderr
    )


def refuse(*_: object, **__: object) -> None:
    raise RuntimeError("a network was asked for")


def test_quickstart_needs_no_network(
    tmp_path: Path, without_network: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    flags = {
        "data.synthetic_images": "16",
        "data.synthetic_val_images": "6",
        "data.synthetic_short_side": "[64, 72]",
        "model.square_edge": "96",
        "training.num_train_epochs": "1",
        "training.warmup_steps": "0",
        "training.output_dir": str(folder),
    }
    launch = ("-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1")
    plain = ("--mixed_precision", "no", "--dynamo_backend", "no")
    given = [part for name, value in flags.items() for part in (f"--{name}", value)]
    trained = run(without_network, *launch, *plain, "train.py", "recipes/quickstart.yaml", *given)
    assert trained.returncode == 0, trained.stderr
    assert "best AP" in trained.stdout

    first = AutoModelForObjectDetection.from_pretrained(resolve_source("package:hf_detr_ft/tiny_dfine", "test"))
    last = AutoModelForObjectDetection.from_pretrained(folder)
    assert last.config.id2label == {0: "balloon"}
    begun, ended = (model.model.decoder.layers[0].self_attn.q_proj.weight.float() for model in (first, last))
    assert 0 < (begun - ended).abs().max() < 0.1, "fine-tuning goes on from the packaged weights"
    frozen, still = (next(model.model.backbone.parameters()) for model in (first, last))
    assert torch.equal(frozen, still), "of which the first convolution is frozen"
    assert "balloon" in (folder / "report.html").read_text(encoding="utf-8")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    detector = pipeline("object-detection", str(folder))
    assert detector(Image.new("RGB", (80, 64)), threshold=0.0)[0]["label"] == "balloon"


@pytest.mark.parametrize("name", ["tiny_detr", "tiny_dfine"])
def test_the_checkpoints_are_small_stock_and_in_half_precision(name: str) -> None:
    folder = Path(resolve_source(f"package:hf_detr_ft/{name}", "test"))
    files = {path.name for path in folder.iterdir()}
    assert files == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert (folder / "model.safetensors").stat().st_size <= 12_000_000
    model, report = AutoModelForObjectDetection.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert sum(parameter.numel() for parameter in model.parameters()) <= 6_000_000
    assert "balloon" not in model.config.label2id and len(model.config.label2id) == 10
