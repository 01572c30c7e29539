"""The run folder of `train`: which checkpoint it goes on from, what it never overwrites, what cannot undo it."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from transformers import Trainer

from hf_detr_ft.cli import main
from hf_detr_ft.errors import DataError, RecipeError, TrainingError
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.runs.train import begin_folder
from hf_detr_ft.training import output_folder
from hf_detr_ft.training.checkpoints import checkpoint_faults, find_checkpoint, place_checkpoint
from hf_detr_ft.training.interruption import StopCallback
from hf_detr_ft.training.output_folder import OutputFolder
from hf_detr_ft.training.trainer import DetrTrainer
from hf_detr_ft.training.weight_average import WeightAverage
from tests.fixtures import as_flags, tiny_detr, write_coco_folder
from tests.test_atomic import holder


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
    trainer.average = WeightAverage(None)
    monkeypatch.setattr(Trainer, "_save", full)
    with pytest.raises(OSError, match="No space"):
        trainer._save(str(run))
    assert contents(run) == before


def fail_at(step: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes the training end with an error in its so-manieth step."""
    train, steps = DetrTrainer.training_step, iter(range(1, 100))

    def fails(*args: Any, **kwargs: Any) -> Any:
        if next(steps) == step:
            raise error
        return train(*args, **kwargs)

    monkeypatch.setattr(DetrTrainer, "training_step", fails)


def test_an_overwritten_run_stays_until_the_new_one_has_a_checkpoint(
    job: list[str],
    run: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ended before that twice, once by being overwritten itself."""
    flags = ["train", *job, "--training.output_dir", str(run)]
    for resume in (["--training.overwrite"], ["--training.resume_from_checkpoint", "last"], ["--training.overwrite"]):
        with monkeypatch.context() as patched:
            fail_at(2, patched, TrainingError("over"))
            assert main([*flags, *resume]) == 1
        assert contents(run / "replaced") == contents(finished)
        assert not RunFolder(run).checkpoints()
    assert f"the run that was there is in {run / 'replaced'} until" in capsys.readouterr().out
    with monkeypatch.context() as patched:
        fail_at(5, patched, TrainingError("over"))
        assert main([*flags, "--training.resume_from_checkpoint", "last"]) == 1
    assert "was ended before its first one, and starts over" in capsys.readouterr().out
    assert [path.name for path in RunFolder(run).checkpoints()] == ["checkpoint-3"]
    assert not (run / "replaced").exists()
    assert main([*flags, "--training.resume_from_checkpoint", "last"]) == 0
    assert contents(run)["model.safetensors"] == contents(finished)["model.safetensors"]
    assert contents(run).keys() == contents(finished).keys()


def test_a_run_that_is_ended_while_it_sets_another_aside_takes_nothing_from_it(
    job: list[str], run: Path, finished: Path
) -> None:
    (run / "replaced").mkdir()
    for name in ("recipe.yaml", "README.md", "checkpoint-3"):
        (run / name).rename(run / "replaced" / name)
    folder = OutputFolder(run)
    assert not folder.checkpoints() and folder.only_begun
    assert folder.make()
    assert contents(run / "replaced") == contents(finished)
    assert [path.name for path in run.iterdir()] == ["replaced"]


def test_without_any_checkpoint_the_weights_at_the_end_replace_the_earlier_run(job: list[str], run: Path) -> None:
    flags = ("--training.max_steps", "1", "--training.eval_strategy", "no", "--training.save_strategy", "no")
    assert main(["train", *job, "--training.output_dir", str(run), *flags, "--training.overwrite"]) == 0
    assert (run / "model.safetensors").exists() and not (run / "replaced").exists()


def link(run: Path, tmp_path: Path, place: str, inside: str) -> Path:
    """A link that leads into the run folder."""
    (tmp_path / place).symlink_to(run / inside)
    return tmp_path / place


def move_annotations(run: Path, tmp_path: Path) -> list[object]:
    shutil.move(tmp_path / "data" / "annotations" / "custom_val.json", run / "metrics.json")
    return ["--data.val_annotations", run / "metrics.json"]


def link_annotations(run: Path, tmp_path: Path) -> list[object]:
    move_annotations(run, tmp_path)
    return ["--data.val_annotations", link(run, tmp_path, "val.json", "metrics.json")]


def move_images(run: Path, tmp_path: Path) -> list[object]:
    shutil.move(tmp_path / "data" / "val2017", run / "runs")
    return ["--data.val_images", run / "runs"]


def link_one_image(run: Path, tmp_path: Path) -> list[object]:
    photo = min((tmp_path / "data" / "train2017").iterdir())
    (run / "plots").mkdir()
    shutil.move(photo, run / "plots" / "one.png")
    photo.symlink_to(link(run, tmp_path, "plots", "plots") / "one.png")
    return []


def link_run_to_images(run: Path, tmp_path: Path) -> list[object]:
    """The images lie elsewhere; the way to them leads through the run folder."""
    (run / "plots").symlink_to(tmp_path / "data" / "val2017")
    return ["--data.val_images", link(run, tmp_path, "val", "plots")]


def use_weights(run: Path, tmp_path: Path) -> list[object]:
    return ["--model.checkpoint", run]


def use_linked_weights(run: Path, tmp_path: Path) -> list[object]:
    return ["--model.checkpoint", link(run, tmp_path, "model", "checkpoint-3")]


def use_backbone(run: Path, tmp_path: Path) -> list[object]:
    weights = run / "checkpoint-3" / "model.safetensors"
    return ["--model.checkpoint", "null", "--model.backbone", "resnet18", "--model.backbone_weights", weights]


def use_recipe(run: Path, tmp_path: Path) -> list[object]:
    return [run / "recipe.yaml"]


def use_linked_recipe(run: Path, tmp_path: Path) -> list[object]:
    return [link(run, tmp_path, "mine.yaml", "recipe.yaml")]


def use_replaced_checkpoint(run: Path, tmp_path: Path) -> list[object]:
    (run / "replaced").mkdir()
    shutil.move(run / "checkpoint-3", run / "replaced" / "checkpoint-3")
    return ["--training.resume_from_checkpoint", run / "replaced" / "checkpoint-3"]


@pytest.mark.parametrize(
    "arrange",
    [
        *(move_annotations, link_annotations, move_images, link_one_image, link_run_to_images),
        *(use_weights, use_linked_weights, use_backbone, use_recipe, use_linked_recipe, use_replaced_checkpoint),
    ],
)
def test_overwriting_spares_what_the_recipe_reads(
    arrange: Callable[[Path, Path], list[object]],
    job: list[str],
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(job[job.index("--data.root") + 1], tmp_path / "data")
    given = list(map(str, arrange(run, tmp_path)))
    recipe = [given.pop(0)] if given and given[0].endswith(".yaml") else []
    before = contents(tmp_path)
    flags = [*job, "--data.root", str(tmp_path / "data"), "--training.output_dir", str(run), *given]
    assert main(["train", *recipe, *flags, "--training.overwrite"]) == 2
    err = capsys.readouterr().err
    assert f"'{run}' holds what the recipe reads: " in err or "does not look like a run folder" in err
    assert "Nothing was removed" in err
    assert contents(tmp_path) == before


def test_links_are_followed_once_for_all_images_of_a_folder(tmp_path: Path) -> None:
    run = OutputFolder(str(tmp_path / "run"))
    for name in ("run/notes.txt", "images/a.png", "images/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "images/c.png").symlink_to(tmp_path / "run/notes.txt")
    images = [str(tmp_path / f"images/{letter}.png") for letter in "abc"]
    with patch.object(output_folder, "follow_links", wraps=output_folder.follow_links) as followed:
        run.check_not_read(images[:2])
        assert followed.call_count == 1
        with pytest.raises(RecipeError, match=r"holds what the recipe reads: .*c\.png"):
            run.check_not_read(images)


@pytest.mark.parametrize(
    "name",
    [
        *("notes.txt", "annotations.json", "other.safetensors", "scores.csv", "plots/thesis.docx", "plots/photo.jpg"),
        *("runs/other-run/model.safetensors", "checkpoint-3/notes.txt", "checkpoints/model.safetensors", ".hidden"),
    ],
)
def test_overwriting_spares_what_no_run_writes(
    name: str, job: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).parent.mkdir(exist_ok=True, parents=True)
    (run / name).write_text("dear to me")
    before = contents(run)
    assert main(["train", *job, "--training.output_dir", str(run), "--training.overwrite"]) == 2
    err = capsys.readouterr().err
    assert name in err and "Nothing was removed" in err
    assert contents(run) == before


def test_overwriting_spares_a_recipe_that_no_run_wrote(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text("data: {root: here}\n")
    (tmp_path / "README.md").write_text("My project")
    assert main(["train", *job, "--training.output_dir", str(tmp_path), "--training.overwrite"]) == 2
    assert "recipe.yaml of yours" in capsys.readouterr().err
    assert contents(tmp_path).keys() == {"recipe.yaml", "README.md"}


def test_a_second_run_in_the_folder_is_refused(
    job: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    with holder(run / "run.lock") as (process, _):
        for flags in (["--training.overwrite"], ["--training.resume_from_checkpoint", "last"], []):
            assert main(["train", *job, "--training.output_dir", str(run), *flags]) == 2
            err = capsys.readouterr().err
            assert f"found process {process.pid} of " in err and f"at work in '{run}'" in err
    (run / "run.lock").unlink()
    assert contents(run) == before


@pytest.mark.parametrize("flags", [["--training.max_steps", "1"], ["--data.root", "nowhere"]])
def test_the_lock_goes_with_the_run_and_so_does_a_folder_made_for_it(
    flags: list[str], job: list[str], tmp_path: Path
) -> None:
    ended = main(["train", *job, "--training.output_dir", str(tmp_path / "runs" / "a"), *flags])
    assert not (tmp_path / "runs" / "a" / "run.lock").exists()
    assert (tmp_path / "runs").exists() is (ended == 0)


def test_leftovers_of_killed_processes_are_swept_when_the_run_goes_on(
    job: list[str], run: Path, finished: Path
) -> None:
    dead = 2**22 + 1
    leftovers = [
        f".metrics.json.{dead}.tmp",
        f"plots/.predictions.png.{dead}.tmp",
        ".checkpoint-9.tmp/checkpoint-9/x.pt",
    ]
    for name in [*leftovers, f"checkpoint-3/.{dead}.tmp/model.safetensors"]:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    assert main(["train", *job, "--training.output_dir", str(run), "--training.resume_from_checkpoint", "last"]) == 0
    assert contents(run).keys() == contents(finished).keys()


def test_going_back_to_an_earlier_checkpoint_leaves_those_behind_it_only_until_it_has_one_of_its_own(
    job: list[str], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = ["train", *job, "--training.output_dir", str(run), "--training.resume_from_checkpoint"]
    back += [str(run / "checkpoint-3")]
    with monkeypatch.context() as patched:
        fail_at(1, patched, TrainingError("over"))
        assert main(back) == 1
    assert [path.name for path in RunFolder(run).checkpoints()] == ["checkpoint-6", "checkpoint-3"]
    with monkeypatch.context() as patched:
        patched.setattr(StopCallback, "is_asked", True, raising=False)
        patched.setattr(StopCallback, "__init__", lambda self: setattr(self, "has_stopped", False))
        assert main(back) == 143
    assert [path.name for path in RunFolder(run).checkpoints()] == ["checkpoint-4", "checkpoint-3"]


def test_everything_of_a_checkpoint_is_written_before_it_gets_its_name(
    job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def place(run: OutputFolder, step: int, limit: int | None, best: Path) -> None:
        made.append(contents(run.unfinished(step)).keys())
        assert not (run.path / f"checkpoint-{step}").exists()
        place_checkpoint(run, step, limit, best)

    monkeypatch.setattr("hf_detr_ft.training.checkpoint_trainer.place_checkpoint", place)
    flags = ["--training.output_dir", str(tmp_path / "run"), "--training.num_train_epochs", "1"]
    assert main(["train", *job, *flags]) == 0
    names = {"config.json", "model.safetensors", "preprocessor_config.json", "optimizer.pt", "scheduler.pt"}
    names |= {"rng_state.pth", "trainer_state.json", "detections.npz"}
    assert made == [{f"checkpoint-3/{name}" for name in names}]
    state = json.loads((tmp_path / "run" / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "run" / "checkpoint-3")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "run" / "recipe.yaml").stat().st_mode & 0o777}


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [(None, 3, [3, 6, 9, 12]), (2, 3, [3, 12]), (2, 12, [9, 12]), (1, 12, [12]), (1, 6, [6, 12]), (3, 1, [6, 9, 12])],
)
def test_the_newest_checkpoints_and_the_best_one_are_kept(
    limit: int | None, best: int, left: list[int], tmp_path: Path
) -> None:
    run = OutputFolder(tmp_path)
    for step in (9, 3, 6):  # in whatever order their times are
        (tmp_path / f"checkpoint-{step}").mkdir()
    (run.unfinished(12) / "checkpoint-12").mkdir(parents=True)
    place_checkpoint(run, 12, limit, tmp_path / f"checkpoint-{best}")
    assert sorted(int(path.name.removeprefix("checkpoint-")) for path in tmp_path.iterdir()) == left


def flip(path: Path) -> None:
    """Changes a byte in the middle of a file, where a ZIP archive has its content."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda folder: flip(folder / "optimizer.pt"), "a optimizer.pt that is damaged"),
        (lambda folder: (folder / "trainer_state.json").write_text("[]"), "a trainer_state.json that is damaged"),
        (lambda folder: (folder / "trainer_state.json").write_text('{"a": 1}'), "a trainer_state.json that is damaged"),
    ],
)
def test_a_damaged_file_that_can_be_opened_is_passed_over(
    damage: Callable[[Path], object], fault: str, run: Path
) -> None:
    damage(run / "checkpoint-6")
    found, said = find_checkpoint(OutputFolder(run), "last", sharded=False)
    assert found == run / "checkpoint-3" and f"checkpoint-6 has {fault}" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("optimizer.pt", {"state": {}, "param_groups": [{"params": [0]}]}),
        ("optimizer.pt", [1, 2]),
        ("scheduler.pt", {"lr_lambdas": 3}),
        ("scheduler.pt", None),
        ("rng_state.pth", {"python": 1}),
        ("rng_state.pth", [7]),
        ("trainer_state.json", {"global_step": "six"}),
        ("trainer_state.json", {"stateful_callbacks": {"RunFolderCallback": 3}}),
    ],
)
def test_a_file_that_holds_something_else_is_named(
    name: str, content: Any, job: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "checkpoint-3" / name
    if path.suffix == ".json":
        path.write_text(json.dumps({**json.loads(path.read_text()), **content}))
    else:
        torch.save(content, path)
    flags = ["--training.resume_from_checkpoint", str(path.parent)]
    assert main(["train", *job, "--training.output_dir", str(run), *flags]) == 1
    err = capsys.readouterr().err
    assert "training.resume_from_checkpoint: " in err and name.partition(".")[0] in err and "damaged" in err


@pytest.mark.parametrize(
    ("limit", "what", "left"),
    [
        (200, "recipe.yaml", []),
        (20_000, "checkpoint-3", []),
        (100_000, "checkpoint-3", []),
        (3_000_000, "checkpoint-3", []),
        (None, "checkpoint-6", ["checkpoint-3"]),
    ],
)
def test_a_full_disk_is_said_and_nothing_half_stays(
    limit: int | None,
    what: str,
    left: list[str],
    job: list[str],
    tmp_path: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The system lets no file become larger, as it would on a full disk; or it refuses the second optimizer."""
    resource = pytest.importorskip("resource")
    run, before = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    begin, save, saved = begin_folder, torch.save, Counter[str]()

    def begin_with_little_room(*args: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit or before[0], before[1]))
        begin(*args)

    def refuse(content: object, path: str) -> None:
        saved[Path(path).name] += 1
        save(content, path)
        if limit is None and saved["optimizer.pt"] == 2:
            raise OSError(28, "No space left on device", path)

    with monkeypatch.context() as patched:
        patched.setattr("hf_detr_ft.runs.train.begin_folder", begin_with_little_room)
        patched.setattr("torch.save", refuse)
        try:
            status = main(["train", *job, "--training.output_dir", str(run)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 1
    err = capsys.readouterr().err
    assert f"error: disk full while writing {what} (" in err and "--training.resume_from_checkpoint last" in err
    assert [path.name for path in RunFolder(run).checkpoints()] == left
    assert all(not checkpoint_faults(path) for path in RunFolder(run).checkpoints())
    assert not list(run.rglob(".*"))
    resume = ["--training.resume_from_checkpoint", "last"] if run.exists() else []
    assert main(["train", *job, "--training.output_dir", str(run), *resume]) == 0
    assert contents(run)["model.safetensors"] == contents(finished)["model.safetensors"]


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("training.output_dir", 2),
        ("data.root", 1),
        ("data.train_annotations", 1),
        ("data.val_images", 1),
        ("model.checkpoint", 1),
        ("training.resume_from_checkpoint", 2),
    ],
)
def test_links_that_lead_round_in_circles_are_said(
    field: str, status: int, job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    flags = ["--training.output_dir", str(tmp_path / "run"), f"--{field}", str(tmp_path / "circle")]
    assert main(["train", *job, *flags]) == status
    err = capsys.readouterr().err
    assert "error: " in err and str(tmp_path / "circle") in err and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["circle"]


@pytest.mark.parametrize("content", ["{", "", "[]", '{"best": 3}', '{"test": []}', '{"last": {"metrics": []}}'])
def test_damaged_metrics_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(DataError, match=r"metrics\.json: expected .*remove it"):
        RunFolder(tmp_path).read_metrics()


def test_splits_that_a_run_made_lie_in_its_folder_and_are_those_of_whoever_goes_on_with_it(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = tmp_path / "run", Path(job[1])
    shutil.copytree(data, tmp_path / "data")
    flags = [*job[2:], "--data.root", str(tmp_path / "data"), "--training.output_dir", str(run), "--data.val_share"]
    assert main(["train", *flags, "0.34"]) == 0
    record = json.loads((run / "splits.json").read_text())
    assert [len(record["training"]), len(record["validation"])] == [4, 2]
    assert "validation is 34 % of the images of" in capsys.readouterr().out
    shutil.rmtree(run / "checkpoint-4")
    other = record["training"][:2]
    swapped = {**record, "training": record["training"][2:] + record["validation"], "validation": other}
    (run / "splits.json").write_text(json.dumps(swapped))
    last = ["--training.resume_from_checkpoint", "last"]
    assert main(["train", *flags, "0.34", *last]) == 0
    assert json.loads((run / "splits.json").read_text())["validation"] == other
    assert main(["train", *flags, "0.5", *last]) == 2
    assert (
        "made by data.val_share 0.5, as the recipe says, found them made by val_share 0.34" in capsys.readouterr().err
    )
    run.rename(tmp_path / "moved")
    result = tmp_path / "result.json"
    assert main(["evaluate", str(tmp_path / "moved"), "--output", str(result)]) == 0
    ours = json.loads((tmp_path / "data" / "annotations" / "custom_train.json").read_text())
    ids = {image["id"] for image in ours["images"] if image["file_name"] in other}
    expected = sum(annotation["image_id"] in ids for annotation in ours["annotations"])
    assert json.loads(result.read_text())["objects"] == expected
    assert main(["evaluate", str(tmp_path / "moved"), "--split", "test"]) == 1
    assert "data.test_annotations: expected a COCO JSON, found no such file" in capsys.readouterr().err
    test = [
        "--split",
        "test",
        "--data.test_annotations",
        "annotations/custom_val.json",
        "--data.test_images",
        "val2017",
    ]
    assert main(["evaluate", str(tmp_path / "moved"), *test, "--output", str(result)]) == 0
    assert json.loads(result.read_text())["split"] == "test"
    theirs = json.loads((tmp_path / "data" / "annotations" / "custom_val.json").read_text())
    assert json.loads(result.read_text())["objects"] == len(theirs["annotations"])
