"""`hf-detr-ft train` on drawn images with a tiny DETR: run folder, resuming, early stopping, errors."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForObjectDetection, pipeline

from hf_detr_ft.cli import main
from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.errors import CheckpointError, RecipeError, TrainingError
from hf_detr_ft.evaluation.coco_eval import evaluate_detections, evaluate_matched
from hf_detr_ft.evaluation.coco_result import CocoResult
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.report.load_run import Validation
from hf_detr_ft.report.predictions_sheet import draw_predictions
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.runs.train import train
from hf_detr_ft.training.output_folder import OutputFolder
from tests.fixtures import CLASSES, tiny_detr
from tests.hub.hub_server import ANNA, HubServer
from tests.report.parsed import parse, table

REPOSITORY = Path(__file__).parents[2]
WITH_REPORT = ("--report.enabled", "true")


def run_job(job: list[str], run: Path, *flags: str) -> int:
    return train(None, [*job, "--training.output_dir", str(run), *flags])


@pytest.fixture(scope="module")
def finished(job: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint after every step, all of them kept, and a report; 150 detections of an image count."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    flags = ("--training.eval_strategy", "steps", "--training.eval_steps", "1", "--training.save_strategy", "steps")
    flags += ("--training.save_steps", "1", "--training.save_total_limit", "null", "--evaluation.max_detections", "150")
    assert run_job(job, run, *flags, *WITH_REPORT) == 0
    return run


SCALES = ("", "_unscaled")
"""Ends of names in the original's log: with a loss's weight, and without."""


def test_the_run_folder_holds_everything(finished: Path) -> None:
    names = {path.name for path in finished.iterdir() if not path.name.startswith("checkpoint-")}
    assert names == {
        *("config.json", "model.safetensors", "preprocessor_config.json", "metrics.json", "results.csv"),
        *("recipe.yaml", "README.md", "plots", "detections.npz", "trainer_state.json", "report.html"),
        "log.txt",
    }
    assert [path.name for path in (finished / "plots").iterdir()] == ["predictions.png"]
    assert Image.open(finished / "plots" / "predictions.png").format == "PNG"
    assert len(list(finished.glob("checkpoint-*"))) == 9
    assert not list(finished.rglob("training_args.bin"))
    rows = list(csv.DictReader((finished / "results.csv").open()))
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 10)]
    assert all(float(row["train_loss_giou_0"]) > 0 and float(row["eval_map"]) >= 0 for row in rows)
    assert all(float(row["eval_map_at_150"]) >= 0 for row in rows)
    assert "| AP at 150 | IoU 0.50:0.95, 150 detections an image | " in (finished / "README.md").read_text()
    lines = [json.loads(line) for line in (finished / "log.txt").read_text().splitlines()]
    losses = [
        f"loss_{part}{layer}{scale}" for part in ("ce", "bbox", "giou") for layer in ("", "_0") for scale in SCALES
    ]
    losses += [f"cardinality_error{layer}_unscaled" for layer in ("", "_0")]
    names = ["lr", "loss", "class_error", "class_error_unscaled", *losses]
    expected = {f"{split}_{name}" for split in ("train", "test") for name in names} - {"test_lr"}
    assert len(lines) == 9 and lines[-1].keys() == expected | {"test_coco_eval_bbox", "epoch", "n_parameters"}
    assert lines[-1]["epoch"] == 2 and lines[-1]["test_coco_eval_bbox"][0] == float(rows[-1]["eval_map"])
    assert lines[-1]["train_loss_bbox"] == pytest.approx(5 * float(rows[-1]["train_loss_bbox"]))
    made_with = yaml.safe_load((finished / "recipe.yaml").read_text())["made_with"]
    assert {"torch", "transformers", "hf_detr_ft"} <= made_with["versions"].keys()
    assert len(next(iter(made_with["annotations_sha256"].values()))) == 64


def test_the_run_folder_opens_in_a_pipeline_with_the_datas_class_names(finished: Path) -> None:
    detector = pipeline("object-detection", str(finished))
    assert set(detector.model.config.id2label.values()) == set(CLASSES)
    found = detector(Image.new("RGB", (80, 60)), threshold=0.0)
    assert found
    assert {detection["label"] for detection in found} <= set(CLASSES)
    assert detector.model.config.category_ids == [3, 7]


@pytest.mark.parametrize("best", ["true", "false"])
def test_the_picture_has_the_threshold_of_the_weights_that_are_kept(
    job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], best: str
) -> None:
    """The first of two evaluations is made to be the best one."""
    used: list[float] = []
    results = iter(((0.9, 0.123), (0.8, 0.857)))  # AP, threshold

    def worse_and_worse(*args: Any, **kwargs: Any) -> CocoResult:
        result = evaluate_matched(*args, **kwargs)
        ap, threshold = next(results)
        best_f1 = replace(result.best_f1, threshold=threshold)
        return replace(result, metrics={**result.metrics, "map": ap}, best_f1=best_f1)

    def noted(folder: RunFolder, validation: Validation, threshold: float) -> Path:
        used.append(threshold)
        return draw_predictions(folder, validation, threshold)

    monkeypatch.setattr("hf_detr_ft.training.trainer.evaluate_matched", worse_and_worse)
    monkeypatch.setattr("hf_detr_ft.report.write_report.draw_predictions", noted)
    monkeypatch.setattr("hf_detr_ft.report.write_report.render_page", lambda *_, **__: "drawn by other tests")
    flags = ("--training.max_steps", "2", "--training.eval_strategy", "steps", "--training.eval_steps", "1")
    flags += ("--training.save_strategy", "steps", "--training.save_steps", "1")
    assert run_job(job, tmp_path / "run", *flags, "--training.load_best_model_at_end", best, *WITH_REPORT) == 0
    expected = 0.123 if best == "true" else 0.857
    assert used == [expected]
    said = capsys.readouterr().out
    assert f"first look  {tmp_path / 'run' / 'plots' / 'predictions.png'}" in said
    assert f"PHOTO_OR_FOLDER --threshold {expected}\n" in said


def test_the_root_holds_the_best_weights_and_metrics_say_so(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    rows = list(csv.DictReader((finished / "results.csv").open()))
    best = max(rows, key=lambda row: float(row["eval_map"]))
    assert metrics["best"]["step"] == int(best["step"])
    assert metrics["best"]["metrics"]["map"] == float(best["eval_map"])
    assert metrics["last"]["step"] == 9
    saved = load_file(finished / f"checkpoint-{best['step']}" / "model.safetensors")
    assert_same(load_file(finished / "model.safetensors"), saved)


def test_the_detections_give_the_metrics_to_the_last_digit(job: list[str], finished: Path) -> None:
    detections = Detections.from_npz((finished / "detections.npz").read_bytes())
    truth = load_splits(load_recipe(None, job).data).truth
    best = json.loads((finished / "metrics.json").read_text())["best"]
    again = evaluate_detections(truth, detections, max_detections=150).as_dict()
    assert {"map", "mar_100", "map_at_150", "mar_150"} <= again["metrics"].keys()
    assert again == {name: best[name] for name in again}


def test_the_page_has_the_numbers_of_metrics_json_and_needs_no_inference(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    best = json.loads((finished / "metrics.json").read_text())["best"]
    rows = table(parse(page), "coco")[1]
    assert [row[1] for row in rows.values()] == [None if v < 0 else v for v in best["metrics"].values()]
    assert len(parse(page).all("article", class_="card")) == best["images"]
    monkeypatch.setattr("hf_detr_ft.report.read_inputs.evaluate_model", None)
    assert main(["report", str(finished), "--output", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_evaluate_repeats_the_ap_of_the_best_weights(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--training.disable_tqdm", "true")
    assert main(["evaluate", str(finished), "--output", str(tmp_path / "again.json"), *flags]) == 0
    assert "eval_" not in capsys.readouterr().out, "its table says it"
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["metrics"] == json.loads((finished / "metrics.json").read_text())["best"]["metrics"]


def test_the_resolved_recipe_runs_again_as_it_is(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--training.output_dir", "again", "--report.enabled", "false")
    assert main(["train", str(finished / "recipe.yaml"), *flags]) == 0
    assert_same(load_file("again/model.safetensors"), load_file(finished / "model.safetensors"))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("step", [1, 3, 5, 8])
def test_resumed_after_a_checkpoint_it_ends_with_the_same_weights(
    job: list[str], finished: Path, tmp_path: Path, step: int
) -> None:
    """Steps 1, 5 and 8 lie within an epoch, 3 at the end of one."""
    run = tmp_path / "resumed"
    shutil.copytree(finished, run)
    for checkpoint in run.glob("checkpoint-*"):
        if int(checkpoint.name.removeprefix("checkpoint-")) > step:
            shutil.rmtree(checkpoint)
    flags = ("--training.eval_strategy", "steps", "--training.eval_steps", "1", "--training.save_strategy", "steps")
    more = ("--training.save_steps", "1", "--training.save_total_limit", "null", "--evaluation.max_detections", "150")
    assert run_job(job, run, *flags, *more, "--training.resume_from_checkpoint", "last") == 0
    assert_same(
        load_file(run / "checkpoint-9" / "model.safetensors"),
        load_file(finished / "checkpoint-9" / "model.safetensors"),
    )
    assert_same(load_file(run / "model.safetensors"), load_file(finished / "model.safetensors"))
    states = [torch.load(folder / "checkpoint-9" / "optimizer.pt", weights_only=True) for folder in (run, finished)]
    for resumed, original in zip(*(state["state"].values() for state in states), strict=True):
        assert torch.equal(resumed["exp_avg_sq"], original["exp_avg_sq"])
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (run, finished)]
    assert metrics[0]["best"] == metrics[1]["best"]
    assert metrics[0]["last"] == metrics[1]["last"]
    assert (run / "detections.npz").read_bytes() == (finished / "detections.npz").read_bytes()


def test_workers_and_batches_of_any_number_of_processes_draw_the_same_images(job: list[str], tmp_path: Path) -> None:
    flags = ("--training.max_steps", "2", "--training.eval_strategy", "no", "--training.save_strategy", "no")
    assert run_job(job, tmp_path / "alone", *flags) == 0
    assert run_job(job, tmp_path / "workers", *flags, "--training.dataloader_num_workers", "2") == 0
    assert_same(*(load_file(tmp_path / name / "model.safetensors") for name in ("alone", "workers")))


def test_a_run_folder_is_not_overwritten_unless_asked(
    job: list[str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = sorted(path.name for path in run.iterdir())
    assert main(["train", *job, "--training.output_dir", str(run)]) == 2
    error = capsys.readouterr().err
    assert "--training.overwrite" in error
    assert "--training.resume_from_checkpoint last" in error
    assert sorted(path.name for path in run.iterdir()) == before
    flags = ("--training.max_steps", "1", "--training.eval_strategy", "no", "--training.save_strategy", "no")
    assert run_job(job, run, *flags, "--training.overwrite", *WITH_REPORT) == 0
    assert not list(run.glob("checkpoint-*"))
    assert not (run / "plots" / "predictions.png").exists(), "no evaluation took place"
    page = parse((run / "report.html").read_text(encoding="utf-8"))
    assert "No evaluation took place" in page.text() and not page.all("article")


def test_overwriting_spares_folders_that_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "thesis.docx").write_text("dear to me")
    (tmp_path / "photos" / "recipe.yaml").write_text("")
    with pytest.raises(RecipeError, match="thesis.docx"):
        OutputFolder(tmp_path / "photos").check_free(overwrite=True)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "results.csv").write_text("mine")
    with pytest.raises(RecipeError, match="no recipe.yaml"):
        OutputFolder(tmp_path / "results").check_free(overwrite=True)
    assert (tmp_path / "photos" / "thesis.docx").exists()
    assert (tmp_path / "results" / "results.csv").exists()


def test_early_stopping(job: list[str], tmp_path: Path) -> None:
    flags = ("--training.learning_rate", "0", "--training.backbone_learning_rate", "0")
    assert run_job(job, tmp_path / "run", *flags, "--training.early_stopping_patience", "1") == 0
    rows = list(csv.DictReader((tmp_path / "run" / "results.csv").open()))
    assert len(rows) == 2


def test_losses_that_are_not_finite_stop_the_run_and_name_the_images(
    job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    model = tiny_detr()
    with torch.no_grad():
        model.bbox_predictor.layers[0].weight[0, 0] = float("nan")
    model.save_pretrained(broken)
    with pytest.raises(TrainingError, match=r"step 0: predictions are not finite for 01_0\d\d\.jpg \(image id 1\d\d\)"):
        run_job(job, tmp_path / "run", "--model.checkpoint", str(broken))


def test_gradient_checkpointing_changes_nothing(job: list[str], tmp_path: Path) -> None:
    flags = ("--training.max_steps", "2", "--training.eval_strategy", "no", "--training.save_strategy", "no")
    flags += ("--model.config.dropout", "0.0")
    assert run_job(job, tmp_path / "plain", *flags) == 0
    assert run_job(job, tmp_path / "checkpointing", *flags, "--training.gradient_checkpointing") == 0
    plain, other = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "checkpointing"))
    for name, tensor in plain.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-5)


def test_tensorboard_gets_losses_and_ap(job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    monkeypatch.setattr("hf_detr_ft.report.write_report.render_page", lambda *_, **__: "drawn by other tests")
    flags = ("--training.num_train_epochs", "1", "--training.report_to", "tensorboard")
    assert run_job(job, run, *flags, *WITH_REPORT) == 0
    (folder,) = {events.parent for events in run.rglob("events.out.tfevents.*")}
    accumulator = event_accumulator.EventAccumulator(str(folder)).Reload()
    assert {"train/loss_giou", "train/class_error", "eval/map"} <= set(accumulator.Tags()["scalars"])
    assert "train/backbone_learning_rate" in accumulator.Tags()["scalars"]
    (event,) = accumulator.Images("predictions")
    image = Image.open(io.BytesIO(event.encoded_image_string))
    drawn = Image.open(run / "plots" / "predictions.png")
    assert image.tobytes() == drawn.tobytes()
    assert event.step == 3


def test_the_saved_model_has_the_stock_class_and_no_auxiliary_flag(finished: Path) -> None:
    config = json.loads((finished / "config.json").read_text())
    assert config["architectures"] == ["DetrForObjectDetection"]
    assert config["auxiliary_loss"] is False
    assert type(AutoModelForObjectDetection.from_pretrained(finished)).__module__.startswith("transformers.")


def test_push_to_hub_publishes_the_finished_run(
    job: list[str], hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    flags = ("--training.num_train_epochs", "1", "--training.push_to_hub", "--training.hub_token", ANNA)
    assert run_job(job, run, *flags, "--training.hub_model_id", "anna/detr-drawn") == 0
    files = hub.files("anna/detr-drawn")
    assert ANNA.encode() not in hub.stored_bytes()
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml", "README.md"} <= set(files)
    assert f"published: {hub.url}/anna/detr-drawn" in capsys.readouterr().out
    assert not any(ANNA.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())


def test_push_to_hub_finds_out_before_training_what_would_stop_it(
    job: list[str],
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = [*job, "--training.output_dir", str(tmp_path / "run"), "--training.push_to_hub"]
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["train", *flags]) == 1
    assert "token" in capsys.readouterr().err
    assert main(["train", *flags, "--training.eval_strategy", "no"]) == 2
    assert "training.eval_strategy" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_overwriting_removes_nothing_before_data_and_model_are_found_sound(
    job: list[str], finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    flags = ["train", *job, "--training.output_dir", str(run), "--training.overwrite"]
    assert main([*flags, "--data.root", str(tmp_path / "nowhere")]) == 1
    assert main([*flags, "--model.checkpoint", str(tmp_path / "nowhere")]) == 1
    assert main([*flags, "--training.report_to", "nobody"]) == 2
    assert (run / "model.safetensors").exists()
    assert len(list(run.glob("checkpoint-*"))) == 9


def test_out_of_memory_names_what_to_lower(job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(DetrForObjectDetection, "forward", run_out)
    with pytest.raises(TrainingError, match=r"out of memory.*per_device_train_batch_size 4.*model.shortest_edge"):
        run_job(job, tmp_path / "run")


def test_out_of_memory_in_an_evaluation_names_its_own_batch_size(
    job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = DetrForObjectDetection.forward

    def run_out(self: DetrForObjectDetection, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(DetrForObjectDetection, "forward", run_out)
    with pytest.raises(TrainingError, match=r"evaluation stopped at step 3: .*per_device_eval_batch_size 4"):
        run_job(job, tmp_path / "run")


def test_a_checkpoint_that_is_not_complete_is_not_resumed_from(job: list[str], finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    weights = run / "checkpoint-9" / "model.safetensors"
    state = load_file(weights)
    save_file({name: tensor for name, tensor in state.items() if "bbox" not in name}, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"bbox_predictor.layers.0.bias"):
        run_job(job, run, "--training.resume_from_checkpoint", "last")
