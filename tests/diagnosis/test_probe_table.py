"""`hf-detr-ft diagnose` on set-ups with one fault each, on sound ones, and on runs."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hf_detr_ft.cli import main
from hf_detr_ft.diagnosis import features, overfit
from hf_detr_ft.diagnosis.case import Case
from hf_detr_ft.diagnosis.finding import Finding
from hf_detr_ft.diagnosis.known_classes import contradicted_validation
from hf_detr_ft.diagnosis.log_probes import unlearned_parts, wild_loss
from hf_detr_ft.diagnosis.result_probes import unlike_training
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.report.load_run import LoadedRun
from hf_detr_ft.run_folder import RunFolder
from tests.diagnosis.setups import BROKEN, Change, SetUp, draw_base, ids_of_neighbours
from tests.fixtures import as_flags, write_coco_folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_base(tmp_path_factory.mktemp("diagnosis") / "drawn")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfit, "EVERY", 6)
    monkeypatch.setattr(features, "CROPS", 72)


def diagnose(setup: SetUp, *more: str) -> int:
    recipe = setup.folder / "recipe.yaml"
    recipe.write_text("{}")
    return main(["diagnose", str(recipe), *setup.write(), *more])


@pytest.mark.parametrize(("change", "cause"), BROKEN, ids=[change.__name__ for change, _ in BROKEN])
def test_the_cause_is_named_first(
    change: Change,
    cause: str,
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overfit, "STEPS", 24)
    setup = SetUp(base, tmp_path / "data")
    change(setup)
    assert diagnose(setup) == 1
    out = capsys.readouterr().out
    named = [line for line in out.splitlines() if line.startswith(("cause ", "likely "))]
    assert len(named) == 1 and cause in named[0], out
    assert "\nevidence " in out and "\nremedy " in out


def keep(setup: SetUp) -> None:
    pass


def tiny_detr_on_new_classes(setup: SetUp) -> None:
    """With outlines, which the rows of training have then."""
    setup.rename()
    setup.settings["augment.copy_paste"] = 0.5
    setup.settings["model.checkpoint"] = "package:hf_detr_ft/tiny_detr"


def rectangles(setup: SetUp) -> None:
    """Another data set, of two classes with sparse ids, and photos of all shapes."""
    sizes = [(96, 128), (128, 96), (96, 96)]
    write_coco_folder(setup.folder / "rectangles", sizes * 12, sizes * 3)
    for split in setup.cocos:
        file = setup.folder / "rectangles" / "annotations" / f"custom_{split}.json"
        setup.cocos[split] = json.loads(file.read_text())
        setup.settings[f"data.{split}_images"] = f"rectangles/{split}2017"


@pytest.mark.parametrize("change", [keep, tiny_detr_on_new_classes, rectangles])
def test_nothing_is_found_in_a_sound_set_up(
    change: Change, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = SetUp(base, tmp_path / "data")
    change(setup)
    assert diagnose(setup) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert out.endswith("nothing found\n")


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps from a model that knows the classes."""
    folder = tmp_path_factory.mktemp("runs")
    setup = SetUp(base, folder / "data")
    setup.settings |= {"training.output_dir": folder / "run", "training.max_steps": 2, "report.enabled": "false"}
    setup.settings |= {
        "model.reuse_class_rows": "true",
        "training.disable_tqdm": "true",
        "training.eval_strategy": "steps",
    }
    setup.settings |= {"training.eval_steps": 2, "training.save_strategy": "steps", "training.save_steps": 2}
    said = StringIO()
    with redirect_stdout(said):
        assert main(["train", *setup.write()]) == 0
    assert "best AP 0." in said.getvalue() and "diagnose" not in said.getvalue()
    return folder / "run"


def test_nothing_is_found_in_a_run_that_finds_its_objects(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(run)]) == 0
    out = capsys.readouterr().out
    assert "overfit     four training images, learned by heart: left out: the run's AP50 is 0." in out
    assert "threshold   scores of what is right: nothing" in out


def test_a_threshold_above_all_scores_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(run), "--threshold", "0.995"]) == 1
    out = capsys.readouterr().out
    assert "cause       the threshold, 0.995, is above the scores of all that is found" in out
    assert f"hf-detr-ft predict {run} PHOTO --threshold 0." in out


def test_a_run_that_finds_objects_on_its_training_images_alone_is_told_so(run: Path, tmp_path: Path) -> None:
    case = Case(load_recipe(run / "recipe.yaml"), tmp_path, RunFolder(run))
    assert unlike_training(case) is None
    assert case.loaded is not None
    case.loaded.metrics["best"]["metrics"]["map_50"] = 0.01
    found = unlike_training(case)
    assert found is not None and "by heart" in found.cause and "0.01 on those of validation" in found.evidence


def test_classes_of_validation_that_the_run_contradicts_are_told(run: Path, base: Path, tmp_path: Path) -> None:
    setup = SetUp(base, tmp_path / "data")
    ids_of_neighbours(setup)
    setup.write()
    flags = ["--data.root", str(setup.folder)]
    case = Case(load_recipe(run / "recipe.yaml", flags), tmp_path, RunFolder(run), flags)
    found = contradicted_validation(case)
    assert found is not None and "category ids are off by one" in found.cause and "the run finds" in found.evidence
    assert contradicted_validation(Case(load_recipe(run / "recipe.yaml"), tmp_path, RunFolder(run))) is None


def log_of(loss: tuple[float, float], class_error: tuple[float, float], giou: tuple[float, float]) -> Any:
    """A case of a run whose parts of the loss go evenly from one value to another."""
    names = {"loss": loss, "class_error": class_error, "loss_giou": giou}
    series = {name: np.linspace(*ends, 12).tolist() for name, ends in names.items()}
    rows = [dict(zip(series, row, strict=True)) for row in zip(*series.values(), strict=True)]
    return SimpleNamespace(loaded=LoadedRun("run", history=rows))


@pytest.mark.parametrize(
    ("parts", "cause"),
    [
        (((9, 4), (90, 85), (1, 0.3)), "boxes are learned, classes are not"),
        (((9, 4), (90, 5), (1, 0.95)), "classes are learned, boxes are not"),
        (((9, 9), (90, 90), (1, 1)), "nothing is learned"),
        (((9, 40), (90, 90), (1, 1)), "the loss rises"),
        (((9, float("nan")), (90, 90), (1, 1)), "the loss is not finite"),
        (((9, 3), (60, 5), (1, 0.3)), None),
    ],
)
def test_the_log_tells_which_part_of_the_loss_stays(parts: tuple, cause: str | None) -> None:
    case = log_of(*parts)
    found: Finding | None = wild_loss(case) or unlearned_parts(case)
    assert (None if found is None else found.cause.split(":")[0]) == cause


def test_what_is_no_recipe_and_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "expected a recipe or a run folder with its recipe.yaml, found none in it" in capsys.readouterr().err
    (tmp_path / "recipe.yaml").write_text("{}")
    assert main(["diagnose", str(tmp_path), "--threshold", "50"]) == 2
    assert "--threshold: expected a number from 0 to 1, found 50" in capsys.readouterr().err


def test_a_pipeline_that_normalises_again_is_refused_with_the_recipe(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    setup = SetUp(base, tmp_path / "data")
    assert diagnose(setup, *as_flags({"augment.pipeline": "[Normalize]"})) == 2
    assert "does what the model's image processor does" in capsys.readouterr().err
