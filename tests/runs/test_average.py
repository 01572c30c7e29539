"""`average`: the mean of a run's last checkpoints, in a folder that every other verb opens."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline

from hf_detr_ft.cli import main
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.run_folder import CARD, CONFIG, DETECTIONS, METRICS, RECIPE, WEIGHTS, RunFolder
from hf_detr_ft.runs.average import choose_checkpoints
from hf_detr_ft.training.evaluate_model import evaluate_model
from tests.families import training
from tests.fixtures import write_coco_folder
from tests.runs.test_train_folder import contents


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A D-FINE's run, with batch norms that are trained, a moving average of its weights, and three checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    arguments = training("d_fine", write_coco_folder(folder / "data", train_objects=[2, 0, 3, 1]), folder / "run")
    assert main([*arguments, "--training.num_train_epochs", "3"]) == 0
    return folder / "run"


def test_the_mean_of_the_last_checkpoints_is_evaluated_and_opens_everywhere(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, made = contents(finished), finished.with_name("run_average")
    assert main(["average", str(finished), "--last", "2"]) == 0
    said = capsys.readouterr().out
    assert contents(finished) == before, "the run is left as it is"
    kept = json.loads((finished / METRICS).read_text())["best"]["metrics"]["map"]
    found = json.loads((made / METRICS).read_text())["best"]
    assert f"average   of checkpoint-6, checkpoint-4: AP {found['metrics']['map']:.3f} on validation" in said
    assert f"the run   AP {kept:.3f}, the best of its evaluations" in said
    assert (found["average_of"], found["epoch"], found["step"]) == ([4, 6], 3, 6)
    mean, one, two = (load_file(folder / WEIGHTS) for folder in (made, *(finished / f"checkpoint-{n}" for n in (4, 6))))
    assert mean.keys() == two.keys()
    for name, tensor in mean.items():
        wanted = (one[name] + two[name]) / 2 if tensor.is_floating_point() else two[name]
        torch.testing.assert_close(tensor, wanted, rtol=1e-6, atol=1e-8)
        assert tensor.dtype == two[name].dtype
    assert any("running_var" in name and not torch.equal(one[name], tensor) for name, tensor in mean.items())
    evaluated = evaluate_model(str(made), load_recipe(made / RECIPE)).detections
    assert (evaluated.score == Detections.from_npz((made / DETECTIONS).read_bytes()).score).all()
    photo = next((finished.parent / "data" / "val2017").iterdir())
    assert pipeline("object-detection", str(made), threshold=0.0)(str(photo))
    assert "weights, the mean of the checkpoints of steps 4, 6; the" in (made / CARD).read_text()
    assert main(["push", str(made), "anna/mean", "--dry-run"]) == 0
    assert main(["average", str(finished)]) == 2
    assert "run_average. Give another one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--last", "4"], "expected at least 4 whole checkpoints, found 3. Train with more of them kept: --training."),
        (["--last", "1"], "--last: expected 2 checkpoints or more, found 1"),
    ],
)
def test_too_few_checkpoints_are_said(
    flags: list[str], words: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["average", str(finished), *flags, "--output", str(tmp_path / "new")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_run_that_was_ended_has_a_mean_of_all_its_whole_checkpoints(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "checkpoint-2" / "optimizer.pt").unlink()
    for name in (WEIGHTS, CONFIG):
        (run / name).unlink()
    assert len(choose_checkpoints(RunFolder(finished), None)) == 3
    before = json.loads((run / METRICS).read_text())
    (run / METRICS).write_text(json.dumps({**before, "test": before["best"]}))
    assert main(["average", str(run)]) == 0
    metrics = json.loads((tmp_path / "run_average" / METRICS).read_text())
    assert metrics["best"]["average_of"] == [4, 6]
    assert "test" not in metrics and metrics["data"] == before["data"]
    (run / "checkpoint-4" / "optimizer.pt").unlink()
    capsys.readouterr()
    assert main(["average", str(run), "--output", str(tmp_path / "other")]) == 2
    assert "found 1. Train with more of them kept: --training.save_total_limit 5" in capsys.readouterr().err
    assert main(["average", str(tmp_path)]) == 2
    assert "expected a run folder, found no recipe.yaml in it" in capsys.readouterr().err
