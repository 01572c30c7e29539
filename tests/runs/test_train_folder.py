"""The run folder of `train`: which checkpoint it goes on from, what it never overwrites, what cannot undo it."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from hf_detr_ft.cli import main
from hf_detr_ft.run_folder import RunFolder, checkpoint_faults
from hf_detr_ft.training.trainer import DetrTrainer
from tests.fixtures import as_flags, tiny_detr, write_coco_folder


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of a job of two epochs of three steps."""
    root = write_coco_folder(tmp_path_factory.mktemp("data"), train_sizes=[(64, 96), (96, 64)] * 3)
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    tiny_detr(["other"]).save_pretrained(checkpoint)
    flags = {
        "data.root": root,
        "model.checkpoint": checkpoint,
        "model.square_edge": 64,
        "augment.preset": "none",
        "training.num_train_epochs": 2,
        "training.per_device_train_batch_size": 2,
        "training.logging_steps": 1,
        "training.bf16": "false",
        "training.use_cpu": "true",
        "training.disable_tqdm": "true",
        "training.save_total_limit": "null",
        "report.enabled": "false",
    }
    return as_flags(flags)


@pytest.fixture(scope="module")
def finished(job: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["train", *job, "--training.output_dir", str(run)]) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda folder: (folder / "trainer_state.json").unlink(), "no trainer_state.json"),
        (lambda folder: (folder / "optimizer.pt").unlink(), "no optimizer.pt"),
        (lambda folder: cut(folder / "optimizer.pt"), "a optimizer.pt that is cut off"),
        (lambda folder: cut(folder / "rng_state.pth"), "a rng_state.pth that is cut off"),
        (lambda folder: cut(folder / "model.safetensors"), "a model.safetensors that is cut off"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder: cut(folder / "trainer_state.json"), "a trainer_state.json that is cut off"),
    ],
)
def test_last_is_the_newest_whole_checkpoint_and_what_was_passed_over_is_said(
    damage, fault: str, job: list[str], run: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed while it wrote its second checkpoint, a run goes on from the first one, to the same end."""
    assert [path.name for path in RunFolder(run).checkpoints()] == ["checkpoint-6", "checkpoint-3"]
    damage(run / "checkpoint-6")
    assert fault in checkpoint_faults(run / "checkpoint-6")
    assert main(["train", *job, "--training.output_dir", str(run), "--training.resume_from_checkpoint", "last"]) == 0
    said = f"resumes   {run / 'checkpoint-3'} (passed over, not whole: checkpoint-6 has "
    out = capsys.readouterr().out
    assert said in out and fault in out
    assert contents(run)["model.safetensors"] == contents(finished)["model.safetensors"]
    assert contents(run)["checkpoint-6/model.safetensors"] == contents(finished)["checkpoint-6/model.safetensors"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("flags", [[], ["--training.overwrite"]])
def test_resuming_from_elsewhere_overwrites_a_run_only_where_asked(
    flags: list[str], job: list[str], run: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, source = contents(run), contents(finished)
    elsewhere = ["--training.resume_from_checkpoint", str(finished / "checkpoint-3")]
    status = main(["train", *job, "--training.output_dir", str(run), *elsewhere, *flags])
    assert contents(finished) == source
    if flags:
        assert status == 0
        assert [path.name for path in RunFolder(run).checkpoints()] == ["checkpoint-6"], "the earlier run is gone"
        assert contents(run)["model.safetensors"] == before["model.safetensors"]
    else:
        assert status == 2
        assert "nothing is overwritten without being asked" in capsys.readouterr().err
        assert contents(run) == before


@pytest.mark.parametrize(
    ("flags", "steps"),
    [(["--training.per_device_train_batch_size", "3"], 2), (["--training.gradient_accumulation_steps", "2"], 2)],
)
def test_steps_of_another_size_are_not_resumed(
    flags: list[str], steps: int, job: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    longer = ["--training.num_train_epochs", "4", "--training.resume_from_checkpoint", "last", *flags]
    assert main(["train", *job, "--training.output_dir", str(run), *longer]) == 1
    err = capsys.readouterr().err
    assert f"expected an epoch of {steps} steps, as 6 images in steps of" in err
    assert f"found one of 3 in '{run / 'checkpoint-6'}'" in err and "--model.checkpoint" in err
    assert contents(run) == before


def test_half_the_batch_accumulated_twice_is_resumed(job: list[str], run: Path) -> None:
    flags = ["--training.per_device_train_batch_size", "1", "--training.gradient_accumulation_steps", "2"]
    longer = ["--training.num_train_epochs", "3", "--training.resume_from_checkpoint", "last", *flags]
    assert main(["train", *job, "--training.output_dir", str(run), *longer]) == 0
    assert RunFolder(run).checkpoints()[0].name == "checkpoint-9"


def test_fewer_images_than_a_batch_are_said_where_the_last_batch_is_dropped(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--training.dataloader_drop_last", "true", "--training.output_dir", str(tmp_path / "run")]
    for verb in ("train", "check"):
        assert main([verb, *job, *flags, "--training.per_device_train_batch_size", "8"]) == 2
        assert "found 6 images and batches of 8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    flags += ["--training.per_device_eval_batch_size", "3", "--training.num_train_epochs", "1"]
    assert main(["train", *job, *flags, "--training.per_device_train_batch_size", "4"]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["last"]["images"], metrics["last"]["step"]) == (2, 1)


@pytest.mark.parametrize("part", ["draw_predictions", "render_page"])
def test_what_fails_in_the_report_is_said_and_cannot_undo_a_training(
    part: str, job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise MemoryError("no room for a figure")

    monkeypatch.setattr(f"hf_detr_ft.report.write_report.{part}", fail)
    run = tmp_path / "run"
    flags = ["--training.output_dir", str(run), "--training.num_train_epochs", "1", "--report.enabled", "true"]
    assert main(["train", *job, *flags]) == 0
    out = capsys.readouterr().out
    assert "no room for a figure" in out and f"hf-detr-ft report {run}" in out
    assert {"model.safetensors", "metrics.json", "README.md", "recipe.yaml"} <= contents(run).keys()


def test_weights_at_the_root_are_written_beside_and_renamed(
    job: list[str], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up while the last weights are written leaves the earlier ones whole."""

    def full(self: DetrTrainer, folder: str, state_dict: object) -> None:
        Path(folder).mkdir()
        (Path(folder) / "model.safetensors").write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    before = contents(run)
    trainer = object.__new__(DetrTrainer)
    monkeypatch.setattr(DetrTrainer.__mro__[1], "_save", full)
    with pytest.raises(OSError, match="No space"):
        trainer._save(str(run))
    assert contents(run) == before
