"""SIGTERM and Ctrl-C in a training: what is saved, what is said, and that it goes on as if nothing had been."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from hf_detr_ft.cli import main
from hf_detr_ft.data.transform import DetrTransform
from hf_detr_ft.training.interruption import StopCallback
from hf_detr_ft.training.trainer import DetrTrainer

RESUME = ["--training.resume_from_checkpoint", "last"]


@pytest.fixture(scope="module")
def finished(job: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["train", *job, "--training.output_dir", str(run)]) == 0
    return run


def in_step(step: int, do: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Does something in the so-manieth step of a training."""
    train, steps = DetrTrainer.training_step, iter(range(1, 100))

    def step_and_do(*args: Any, **kwargs: Any) -> Any:
        if next(steps) == step:
            do()
        return train(*args, **kwargs)

    monkeypatch.setattr(DetrTrainer, "training_step", step_and_do)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def assert_same_end(run: Path, finished: Path) -> None:
    weights = [load_file(folder / "model.safetensors") for folder in (run, finished)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (run, finished)]
    assert (metrics[0]["best"], metrics[0]["last"]) == (metrics[1]["best"], metrics[1]["last"])


@pytest.mark.parametrize(("step", "more"), [(2, []), (3, []), (7, []), (4, ["--training.save_strategy", "no"])])
def test_sigterm_saves_says_how_to_go_on_and_changes_nothing(
    step: int,
    more: list[str],
    job: list[str],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Steps 2, 4 and 7 lie within an epoch, 3 is the last of one."""
    run, before = tmp_path / "run", signal.getsignal(signal.SIGTERM)
    flags = ["train", *job, "--training.output_dir", str(run), *more]
    flags += ["--training.load_best_model_at_end", "false"] if more else []
    with monkeypatch.context() as patched:
        in_step(step, terminate, patched)
        assert main(flags) == 143
    err = capsys.readouterr().err
    assert f"To go on from checkpoint-{step}: the same command with --training.resume_from_checkpoint last" in err
    assert not (run / "model.safetensors").exists()
    evaluated = json.loads((run / "metrics.json").read_text())["last"]["step"] if step > 2 else 0
    assert evaluated == step // 3 * 3, "no part of an epoch is evaluated"
    assert signal.getsignal(signal.SIGTERM) == before
    assert main([*flags, *RESUME]) == 0
    if not more:
        assert_same_end(run, finished)


def test_sigterm_in_the_last_step_lets_the_training_come_to_its_end(
    job: list[str], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_step(9, terminate, monkeypatch)
    assert main(["train", *job, "--training.output_dir", str(tmp_path / "run")]) == 0
    assert_same_end(tmp_path / "run", finished)


def test_sigterm_after_the_training_says_how_to_go_on(
    job: list[str],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["train", *job, "--training.output_dir", str(tmp_path / "run")]
    with monkeypatch.context() as patched:
        patched.setattr("hf_detr_ft.runs.train.publish", lambda *_: terminate())
        assert main(flags) == 143
    assert "To go on from checkpoint-9: " in capsys.readouterr().err
    assert main([*flags, *RESUME]) == 0
    assert_same_end(tmp_path / "run", finished)


def test_a_run_that_early_stopping_ended_trains_no_further_epoch_when_it_is_resumed(
    job: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    flags = ["train", *job, "--training.output_dir", str(run), "--training.early_stopping_patience", "1"]
    flags += ["--training.learning_rate", "0", "--training.backbone_learning_rate", "0"]
    assert main(flags) == 0
    results = (run / "results.csv").read_text()
    assert results.count("\n") == 3, "two evaluations and the names"
    (run / "model.safetensors").unlink()
    assert main([*flags, *RESUME]) == 0
    assert (run / "results.csv").read_text() == results
    assert (run / "model.safetensors").exists()


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("step", "said"), [(2, "has no checkpoint yet. To start over: "), (5, "from checkpoint-3: ")])
def test_ctrl_c_says_how_to_go_on(
    step: int,
    said: str,
    job: list[str],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["train", *job, "--training.output_dir", str(tmp_path / "run")]
    with monkeypatch.context() as patched:
        in_step(step, interrupt, patched)
        assert main(flags) == 130
    err = capsys.readouterr().err
    assert err.endswith(f"{said}the same command with --training.resume_from_checkpoint last.\n")
    assert main([*flags, *RESUME]) == 0
    assert_same_end(tmp_path / "run", finished)


@pytest.mark.parametrize(
    ("answers", "logs", "stops"),
    [([False, True], True, True), ([False, False], True, False), ([False, True], False, False)],
)
def test_several_processes_stop_in_the_same_step(
    answers: list[bool], logs: bool, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_detr_ft.training.interruption.gather_object", lambda own: answers)
    stop, control = StopCallback(), TrainerControl(should_log=logs)
    stop.is_asked = not logs  # which has to wait for the others
    args: Any = SimpleNamespace(world_size=2)
    stop.on_step_end(args, TrainerState(global_step=2, max_steps=9, epoch=0.5), control)
    assert (control.should_training_stop, control.should_save) == (stops, stops)


@pytest.mark.parametrize("by", ["the system", "SIGTERM to all"])
def test_a_process_that_reads_images_and_was_killed_is_said(
    by: str,
    job: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main_process = os.getpid()
    numbers: Iterator[int] = iter(range(100))
    transform = DetrTransform.__call__

    def killed(*args: Any, **kwargs: Any) -> Any:
        if os.getpid() != main_process and next(numbers) == 2:
            if by != "the system":
                os.kill(main_process, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGKILL)
        return transform(*args, **kwargs)

    monkeypatch.setattr(DetrTransform, "__call__", killed)
    flags = ["--training.output_dir", str(tmp_path / "run"), "--training.dataloader_num_workers", "1"]
    ended = main(["train", *job, *flags])
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if by == "the system":
        assert ended == 1
        assert "the system ended a process that reads images" in err and "dataloader_num_workers (now 1)" in err
    else:
        assert ended == 143
        assert "has no checkpoint yet. To start over" in err
