"""`python -m tests.families.table [FAMILY …]`: what each family is to do, tiny and with random weights, as a table.

Each trains three epochs on 16 drawn photos, some without objects, through `accelerate launch`; once more with a SIGKILL
in the second epoch, from which it goes on; and in two processes. For the last comparison batch norms keep their
statistics, since each process norms its own images; there is no dropout, and no queries are made of labels with noise,
which each process draws for itself; and images are squares, since padding differs with the batches.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline
from transformers.utils import logging

from hf_detr_ft.cli import main as hf_detr_ft
from hf_detr_ft.data.drawn_folder import write_drawn_folder
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.run_folder import LOG, METRICS, WEIGHTS
from tests.distributed.table import REPOSITORY, largest_difference, log_lines
from tests.families import EDGE, SETTINGS, training, write_checkpoint
from tests.fixtures import as_flags, free_port
from tests.hub.hub_server import HubServer, point_client_at

DRAWN = ["balloon", "star"]
COLUMNS = (
    *("family", "parameters", "AP of the epochs", "best weights in the folder", "SIGKILL and resumed"),
    *("1 process = 2 processes", "`pipeline()`", "pushed and back", "seconds"),
)
LIMIT = 1e-4
"""Largest relative difference of a number in the logs of one process and of two."""


def write_data(root: Path) -> None:
    """16 training photos, every fourth without objects, and 6 validation photos."""
    write_drawn_folder(root, 16, 6, classes=DRAWN, short_side=(96, 128), workers=1)
    annotations = root / "annotations" / "custom_train.json"
    coco = json.loads(annotations.read_text())
    empty = {image["id"] for image in coco["images"][::4]}
    coco["annotations"] = [object_ for object_ in coco["annotations"] if object_["image_id"] not in empty]
    annotations.write_text(json.dumps(coco))


def launch(flags: Sequence[str], processes: int = 1, module: Sequence[str] = ("train.py",)) -> subprocess.Popen[bytes]:
    """Starts a training through `accelerate launch`, as the leader of a group of processes."""
    several = {"num_processes": processes, "num_machines": 1, "main_process_port": free_port()}
    several |= {"mixed_precision": "no", "dynamo_backend": "no"}
    kind = "--multi_gpu" if processes > 1 else "--cpu"  # without GPUs, `--cpu` would start one
    command = [sys.executable, "-m", "accelerate.commands.launch", kind, *as_flags(several), *module, *flags]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for a training that has to succeed."""
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors.decode()[-4000:])


def kill_in_second_epoch(process: subprocess.Popen[bytes], run: Path) -> None:
    """Kills a training with all its processes once the checkpoint of its first epoch is there."""
    while process.poll() is None and not any(run.glob(f"checkpoint-*/{LOG}")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (run / METRICS).exists() or json.loads((run / METRICS).read_text())["last"]["epoch"] < 3


def steady(family: str) -> dict[str, Any]:
    """Settings without what depends on the number of processes: dropout, noise and padding."""
    settings = {**SETTINGS[family], "dropout": 0.0}
    if "num_denoising" in settings:
        settings["num_denoising"] = 0
    flags: dict[str, Any] = {"model.square_edge": EDGE, "training.gradient_accumulation_steps": 1}
    return {**flags, "model.config": json.dumps(settings)} if FAMILIES[family].timm_backbone else flags


def without(flags: Sequence[str], *names: str) -> list[str]:
    """Flags and their values but for those of these fields."""
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return [part for pair in pairs if pair[0].removeprefix("--") not in names for part in pair]


def equal_files(one: Path, other: Path) -> bool:
    """Whether two files have the same tensors, bit for bit."""
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def publish(run: Path, hub: HubServer, repository: str, photo: Path) -> bool:
    """Whether what was pushed to a Hub, and comes back from it, detects what the folder detects."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert hf_detr_ft(["push", str(run), repository]) == 0
    assert hub.files(repository)[WEIGHTS] == (run / WEIGHTS).read_bytes()
    back, own = (pipeline("object-detection", name, threshold=0.0)(str(photo)) for name in (repository, str(run)))
    return back == own


def measure(family: str, hub: HubServer, root: Path, folder: Path) -> tuple[list[str], bool]:
    """One row, and whether all of it is as it has to be."""
    started = time.monotonic()
    whole, killed, one, two = (folder / f"{family}_{name}" for name in ("whole", "killed", "one", "two"))
    write_checkpoint(root / family, family)

    def flags(run: Path, **changes: Any) -> list[str]:
        settings = {"training.num_train_epochs": 3, "training.save_total_limit": "null", **changes}
        return [*without(training(family, root, run)[1:], *settings), *as_flags(settings)]

    finish(launch(flags(whole)))
    kill_in_second_epoch(launch(flags(killed)), killed)
    finish(launch([*flags(killed), "--training.resume_from_checkpoint", "last"]))
    steadily = steady(family)
    dropped = {"model.shortest_edge", "model.longest_edge", "training.per_device_train_batch_size"}
    for run, processes in ((one, 1), (two, 2)):
        settings = {**steadily, "training.per_device_train_batch_size": 4 // processes}
        steady_flags = [*without(flags(run), *dropped, *settings), *as_flags(settings)]
        finish(launch(steady_flags, processes, ("-m", "tests.families.steady_norms")))

    state = json.loads((whole / LOG).read_text())
    scores = [line["eval_map"] for line in state["log_history"] if "eval_map" in line]
    best = Path(state["best_model_checkpoint"])
    is_best = equal_files(whole / WEIGHTS, best / WEIGHTS) and state["best_metric"] == max(scores)
    last = f"checkpoint-{state['global_step']}"
    resumed = all(equal_files(whole / name / WEIGHTS, killed / name / WEIGHTS) for name in ("", last))
    resumed = resumed and log_lines(whole) == log_lines(killed)
    difference = largest_difference(two, one)
    photo = sorted((root / "val2017").iterdir())[0]
    detector = pipeline("object-detection", str(whole), threshold=0.0)
    named = list(detector.model.config.id2label.values()) == DRAWN and bool(detector(str(photo)))
    back = publish(whole, hub, f"anna/{family}", photo)
    parameters = sum(tensor.numel() for tensor in load_file(whole / WEIGHTS).values())
    row = [
        *(family, f"{parameters:,}", ", ".join(f"{score:.4f}" for score in scores)),
        *(("no", "yes")[is_best], ("differs", "equal to the bit")[resumed], f"{difference:.1e}"),
        *(("no", "names")[named], ("no", "same")[back], f"{time.monotonic() - started:.0f}"),
    ]
    return row, is_best and resumed and difference < LIMIT and named and back


def main() -> None:
    """Prints the table; the exit status is 1 where anything in it is not as it has to be."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    right = True
    with TemporaryDirectory() as name, HubServer() as hub, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        point_client_at(hub, folder, patch)
        write_data(folder / "data")
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for family in sys.argv[1:] or list(FAMILIES):
            row, is_right = measure(family, hub, folder / "data", folder)
            right = right and is_right
            print(f"| {' | '.join(row)} |", flush=True)
    raise SystemExit(0 if right else 1)


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    main()
