"""`train`, `evaluate` and `check` with a recipe that draws its photos."""

import json
from pathlib import Path

import datasets
import pytest
import yaml
from safetensors.torch import load_file

from hf_detr_ft.cli import main
from hf_detr_ft.data.drawn_folder import write_drawn_folder
from tests.fixtures import SMALL_TRANSFORMER
from tests.runs.test_train import assert_same

CLASSES = ["balloon", "star"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "drawn.yaml"
    content = {
        "data": {
            "name": "drawn",
            "synthetic_images": 6,
            "synthetic_val_images": 4,
            "synthetic_classes": CLASSES,
            "synthetic_seed": 2,
            "synthetic_short_side": [64, 64],
        },
        "model": {
            **{"checkpoint": None, "backbone": "test_resnet", "shortest_edge": 64, "longest_edge": 114},
            "config": SMALL_TRANSFORMER,
        },
        "training": {
            **{"max_steps": 2, "per_device_train_batch_size": 3, "logging_steps": 1, "save_strategy": "steps"},
            **{"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "use_cpu": True, "bf16": False},
            "disable_tqdm": True,
        },
        "report": {"enabled": False},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def use_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


@pytest.fixture(scope="module")
def finished(recipe: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "drawn"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        assert main(["train", str(recipe), "--training.output_dir", str(run)]) == 0
    return run


def assert_same_weights(run: Path, other: Path) -> None:
    assert_same(*(load_file(folder / "model.safetensors") for folder in (run, other)))


def test_the_run_says_what_it_was_drawn_from(finished: Path) -> None:
    saved = yaml.safe_load((finished / "recipe.yaml").read_text())
    assert saved["data"]["root"] is None
    assert saved["data"]["synthetic_images"] == 6
    assert set(saved["made_with"]["annotations_sha256"]) == {"synthetic train", "synthetic val"}
    assert json.loads((finished / "config.json").read_text())["id2label"] == {"0": "balloon", "1": "star"}
    best = json.loads((finished / "metrics.json").read_text())["best"]
    assert best["images"] == 4
    assert "--data.root" not in (finished / "README.md").read_text()


def test_the_saved_recipe_trains_to_the_same_weights_from_any_folder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(finished / "recipe.yaml"), "--training.output_dir", "again"]) == 0
    assert_same_weights(tmp_path / "again", finished)


def test_the_files_of_get_synthetic_train_to_the_same_weights(recipe: Path, finished: Path, tmp_path: Path) -> None:
    write_drawn_folder(tmp_path / "data", 6, 4, seed=2, classes=CLASSES, short_side=(64, 64), workers=1)
    flags = ["--data.synthetic_images", "null", "--data.root", str(tmp_path / "data")]
    assert main(["train", str(recipe), *flags, "--training.output_dir", str(tmp_path / "run")]) == 0
    assert_same_weights(tmp_path / "run", finished)
    results = [json.loads((folder / "metrics.json").read_text())["best"] for folder in (tmp_path / "run", finished)]
    assert results[0] == results[1]


def test_evaluate_repeats_the_ap_and_draws_no_training_photos(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(finished), "--output", "again.json"]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    best = json.loads((finished / "metrics.json").read_text())["best"]
    assert again["metrics"] == best["metrics"]
    assert [path.name for path in tmp_path.rglob("*.arrow")] == ["generator-val.arrow"]


def test_evaluate_takes_files_instead_where_it_is_told_to(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_drawn_folder(tmp_path / "data", 1, 3, seed=7, classes=CLASSES, short_side=(64, 64), workers=1)
    command = ["evaluate", str(finished), "--data.root", str(tmp_path / "data"), "--output", str(tmp_path / "a.json")]
    assert main(command) == 2
    assert "--data.synthetic_images null" in capsys.readouterr().err
    assert main([*command, "--data.synthetic_images", "null"]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["images"] == 3


def test_check_draws_the_photos_and_finds_nothing_in_the_way(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(recipe)]) == 0
    out = capsys.readouterr().out
    assert "0 errors" in out
    assert "training: 6 images" in out
    assert "validation: 4 images" in out
    assert "nothing stands in the way" in out


def test_wrong_values_are_named_before_anything_is_drawn(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data.synthetic_classes", "[balloon, dog]", "--data.synthetic_short_side", "[64, 48]"]
    for command in (["check", str(recipe)], ["train", str(recipe), "--training.output_dir", str(tmp_path / "run")]):
        assert main([*command, *flags]) == 2
        error = capsys.readouterr().err
        assert "data.synthetic_classes: expected some of balloon, " in error
        assert "data.synthetic_short_side: expected least and largest, 32 pixels or more, found 64 48" in error
    assert not (tmp_path / "run").exists()
