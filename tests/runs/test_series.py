"""`train --seeds` and `--folds`, and `compare` of what they make."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from hf_detr_ft.cli import main
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.runs import series
from hf_detr_ft.verb_arguments.recipe_options import take_series_options
from tests.fixtures import SMALL_TRANSFORMER, write_coco_folder
from tests.report.parsed import parse, table


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    write_coco_folder(folder / "data", train_sizes=[(96, 96 + 8 * index) for index in range(6)])
    content = {
        "data": {"root": str(folder / "data"), "val_annotations": None, "group_by": "id"},
        "model": {
            **{"checkpoint": None, "backbone": "test_resnet", "shortest_edge": 64, "longest_edge": 114},
            "config": SMALL_TRANSFORMER,
        },
        "training": {
            **{"max_steps": 1, "per_device_train_batch_size": 3, "eval_strategy": "steps", "eval_steps": 1},
            **{"save_strategy": "steps", "save_steps": 1, "use_cpu": True, "bf16": False, "disable_tqdm": True},
            "output_dir": str(folder / "series"),
        },
        "report": {"enabled": False},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def folds(recipe: Path) -> Path:
    assert main(["train", str(recipe), "--folds", "2"]) == 0
    return recipe.parent / "series"


def refuse_to_start(*args: object) -> None:
    raise AssertionError("nothing is to be trained")


def test_each_image_is_in_one_fold_and_ap_is_that_of_all_of_them(folds: Path) -> None:
    runs = [RunFolder(folds / f"fold-{fold}-of-2") for fold in (1, 2)]
    records = [json.loads(run.splits.read_text())["validation"] for run in runs]
    assert len({*records[0], *records[1]}) == len(records[0]) + len(records[1]) == 6
    content = json.loads((folds / "series.json").read_text())
    assert content["runs"] == [run.name for run in runs]
    assert content["together"]["AP"]["deviation"] is None
    page = parse((folds / "report.html").read_text(encoding="utf-8"))
    rows = table(page, "together")[1]
    assert {name: row[0] for name, row in rows.items()} == {
        name: estimate["mean"] for name, estimate in content["together"].items()
    }


def test_runs_that_are_finished_stay_and_what_was_ended_goes_on(
    folds: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((folds / "series.json").read_text())
    monkeypatch.setattr(series, "start", refuse_to_start)
    assert main(["train", str(recipe), "--folds", "2"]) == 0
    assert "2 runs in" in (out := capsys.readouterr().out) and "0 to train" in out
    assert json.loads((folds / "series.json").read_text()) == before

    run = RunFolder(folds / "fold-2-of-2")
    metrics = run.metrics.read_text()
    run.metrics.write_text(json.dumps({k: v for k, v in json.loads(metrics).items() if k != "seconds"}))
    commands = []

    def start(command: list[str], **kwargs: object) -> subprocess.Popen:
        commands.append(command)
        return real_popen(["true"])

    real_popen = subprocess.Popen
    monkeypatch.undo()
    monkeypatch.setattr(subprocess, "Popen", start)
    assert main(["train", str(recipe), "--folds", "2"]) == 0
    assert len(commands) == 1 and str(run) in commands[0]
    assert commands[0][-2:] == ["--training.resume_from_checkpoint", "last"]
    run.metrics.write_text(metrics)


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_was_ended_before_its_first_checkpoint_is_gone_on_with(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", commands.append)
    folder = RunFolder(tmp_path / "seed-0")
    folder.path.mkdir()
    if begun:
        folder.recipe.write_text("")
    series.start(recipe, [], series.Member(folder, ()), None)
    assert (commands[0][-2:] == ["--training.resume_from_checkpoint", "last"]) is begun


def test_a_run_that_fails_ends_the_series_with_its_status(
    folds: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def fail(command: list[str], **kwargs: object) -> subprocess.Popen:
        started.append(command)
        return real_popen(["false"])

    real_popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", fail)
    assert main(["train", str(recipe), "--seeds", "3", "--training.output_dir", str(tmp_path / "other")]) == 1
    assert len(started) == 1
    assert "--training.seed" in started[0]


def test_several_gpus_take_a_run_each_and_their_lines_go_to_logs(
    folds: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def note(command: list[str], env: dict[str, str], **kwargs: object) -> subprocess.Popen:
        taken.append(env["CUDA_VISIBLE_DEVICES"])
        return real_popen(["true"])

    real_popen = subprocess.Popen
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr(subprocess, "Popen", note)
    members = series.list_members(tmp_path, 0, 3, None)
    assert series.train_members(recipe, [], members, devices=2) == 0
    assert taken[:2] == ["4", "7"] and len(taken) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"seed-{seed}.log" for seed in range(3)]


def test_runs_of_another_recipe_are_not_taken_for_these(
    folds: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(series, "start", refuse_to_start)
    assert main(["train", str(recipe), "--folds", "2", "--training.learning_rate", "0.5"]) == 2
    error = capsys.readouterr().err
    assert "found those of another one" in error and "training.learning_rate differ" in error
    assert main(["train", str(recipe), "--seeds", "2", "--training.output_dir", str(folds / "fold-1-of-2")]) == 2
    assert "expected a folder of runs, found a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", "none"], "--seeds: expected a number, 1 or more, found 'none'"),
        (["--folds", "1"], "--folds: expected a number, 2 or more, found '1'"),
        (["--seeds", "2", "--training.push_to_hub"], "training.push_to_hub: expected false"),
        (["--seeds", "2", "--training.eval_strategy", "no"], "training.eval_strategy: expected evaluations"),
    ],
)
def test_what_does_not_go_with_a_series_is_refused(
    flags: list[str], message: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(recipe), *flags]) == 2
    assert message in capsys.readouterr().err


def test_options_are_taken_out_of_the_flags_in_both_spellings() -> None:
    flags = ["--seeds=3", "--data.folds", "4", "--folds", "5"]
    assert take_series_options(flags) == {"seeds": 3, "folds": 5}
    assert flags == ["--data.folds", "4"]


def test_compare_says_what_the_images_tell(folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "compared.json"
    assert main(["compare", str(folds), str(folds), "--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert "Not to be told apart" in out
    content = json.loads(output.read_text())
    assert content["images"] == 6 and content["trainings"] == [1, 1]
    assert content["overall"]["difference"] == 0
    ap = json.loads((folds / "series.json").read_text())["together"]["AP"]["mean"]
    assert content["overall"]["a"] == pytest.approx(ap)
    one, other = (str(folds / f"fold-{fold}-of-2") for fold in (1, 2))
    assert main(["compare", one, other]) == 1
    assert "evaluated on the same images" in capsys.readouterr().err
    assert np.isfinite(ap)
    for folder, found in ((tmp_path / "gone", "no such folder"), (folds.parent, "no config.json")):
        assert main(["compare", str(folds), str(folder)]) == 1
        assert found in capsys.readouterr().err
