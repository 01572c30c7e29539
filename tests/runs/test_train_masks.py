"""`model.masks: true`: a mask head is trained on a DETR that finds boxes, from the recipe to the published card."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from hf_detr_ft.cli import main
from hf_detr_ft.data.masks import Masks
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.evaluation.coco_result import COCO_METRICS
from hf_detr_ft.evaluation.detections import Detections
from tests.fixtures import HEADS_FOR_MASKS, write_run_with_spread_weights
from tests.report.parsed import parse, table

NUMBERS = [f"mask_{key}" for key, _, _ in COCO_METRICS]


@pytest.fixture(scope="module")
def boxes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a DETR that finds boxes everywhere, whose width and heads a mask head fits."""
    return write_run_with_spread_weights(tmp_path_factory.mktemp("boxes") / "run", **HEADS_FOR_MASKS)


@pytest.fixture(scope="module")
def mask_job(job: list[str], boxes_run: Path) -> list[str]:
    """Flags of a training of masks, two epochs of three steps."""
    flags = {"model.checkpoint": boxes_run, "model.masks": "true", "training.num_train_epochs": 2}
    return [*job, *(part for name, value in flags.items() for part in (f"--{name}", str(value)))]


@pytest.fixture(scope="module")
def finished(mask_job: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of masks with its report and the checkpoints of both epochs."""
    run = tmp_path_factory.mktemp("runs") / "masks"
    flags = ("--training.output_dir", str(run), "--training.save_total_limit", "null", "--report.enabled", "true")
    assert main(["train", *mask_job, *flags]) == 0
    return run


def truth_of(job: list[str]) -> dict:
    root = Path(job[job.index("--data.root") + 1])
    return json.loads((root / "annotations" / "custom_val.json").read_text())


def test_the_head_is_trained_and_the_rest_is_as_it_was(finished: Path, boxes_run: Path) -> None:
    before, after = load_file(boxes_run / "model.safetensors"), load_file(finished / "model.safetensors")
    boxes = {name.removeprefix("detr."): tensor for name, tensor in after.items() if name.startswith("detr.")}
    assert boxes.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in boxes.items())
    one, two = (load_file(finished / f"checkpoint-{step}" / "model.safetensors") for step in (3, 6))
    changed = {name for name in one if not torch.equal(one[name], two[name])}
    assert {name for name in changed if not name.startswith(("mask_head.", "bbox_attention."))} == set()
    assert len(changed) > 20
    assert json.loads((finished / "config.json").read_text())["architectures"] == ["DetrForSegmentation"]


def test_the_numbers_of_masks_stand_everywhere(finished: Path, job: list[str]) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert sorted(metrics["best"]["mask_metrics"]) == sorted(NUMBERS)
    recipe = yaml.safe_load((finished / "recipe.yaml").read_text())
    assert recipe["training"]["metric_for_best_model"] == "mask_map"
    rows = list(csv.DictReader((finished / "results.csv").open()))
    assert [float(row["eval_mask_map"]) for row in rows][-1] == metrics["last"]["mask_metrics"]["mask_map"]
    assert all(float(row[f"train_{name}"]) > 0 for row in rows for name in ("loss_mask", "loss_dice"))
    lines = [json.loads(line) for line in (finished / "log.txt").read_text().splitlines()]
    last = metrics["last"]["mask_metrics"]
    assert lines[-1]["test_coco_eval_masks"] == [last[name] for name in NUMBERS]
    assert lines[-1]["train_loss_mask"] == lines[-1]["train_loss_mask_unscaled"] > 0
    kept = Detections.from_npz((finished / "detections.npz").read_bytes())
    again = evaluate_detections(truth_of(job), kept, backend="pycocotools").mask_metrics
    assert again == pytest.approx(metrics["best"]["mask_metrics"], abs=1e-6)


def test_the_page_and_the_card_show_them(finished: Path) -> None:
    page = parse((finished / "report.html").read_text())
    rows = table(page, "coco-masks")[1]
    best = json.loads((finished / "metrics.json").read_text())["best"]["mask_metrics"]
    assert [row[1] for row in rows.values()] == [None if best[name] < 0 else best[name] for name in NUMBERS]
    text = (finished / "report.html").read_text()
    assert "Mask AP" in text and "Dice loss of masks" in text and "Left out" not in text
    card = (finished / "README.md").read_text()
    assert "pipeline_tag: image-segmentation" in card and 'pipeline("image-segmentation", ' in card
    assert f"| AP of masks | IoU 0.50:0.95, all sizes | {best['mask_map']:.3f} |" in card
    assert "type: mask_map" in card and "type: map\n" in card


def test_a_resumed_training_ends_with_the_same_weights(mask_job: list[str], finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "resumed"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("checkpoint-6"))
    flags = ("--training.output_dir", str(run), "--training.save_total_limit", "null")
    assert main(["train", *mask_job, *flags, "--training.resume_from_checkpoint", "last"]) == 0
    for name in ("checkpoint-6/model.safetensors", "model.safetensors"):
        one, two = (load_file(folder / name) for folder in (finished, run))
        assert all(torch.equal(two[tensor], one[tensor]) for tensor in one)
    for name in ("log.txt", "detections.npz"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()


def test_evaluate_and_report_find_the_same_again(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    assert main(["evaluate", str(finished), "--output", str(output)]) == 0
    best = json.loads((finished / "metrics.json").read_text())["best"]
    assert json.loads(output.read_text())["mask_metrics"] == pytest.approx(best["mask_metrics"], abs=2e-3)
    assert main(["report", str(finished), "--output", str(tmp_path / "page.html")]) == 0
    assert "coco-masks" in (tmp_path / "page.html").read_text()


def test_predict_draws_masks_and_writes_them(finished: Path, job: list[str], tmp_path: Path) -> None:
    root = Path(job[job.index("--data.root") + 1])
    photo = sorted((root / "val2017").iterdir())[0]
    flags = ("--threshold", "0", "--output", str(tmp_path / "masks"), "--precision", "fp32")
    assert main(["predict", str(finished), str(photo), *flags]) == 0
    results = json.loads((tmp_path / "masks" / "detections.json").read_text())
    masks = Masks.of(entry["segmentation"] for entry in results)
    size = Image.open(photo).size[::-1]
    assert len(results) == 12 and masks.sizes.tolist() == [list(size)] * 12
    plain = np.asarray(Image.open(photo).convert("RGB")).astype(int)
    covered = masks.decode().any(0)
    drawn = np.asarray(Image.open(tmp_path / "masks" / photo.name)).astype(int)
    tinted = np.abs(drawn - plain).max(-1) > 24
    assert tinted[covered].mean() > 0.8


def test_objects_without_masks_are_refused_by_name(mask_job: list[str], tmp_path: Path, capsys) -> None:
    root = Path(mask_job[mask_job.index("--data.root") + 1])
    shutil.copytree(root, tmp_path / "data")
    file = tmp_path / "data" / "annotations" / "custom_val.json"
    coco = json.loads(file.read_text())
    coco["annotations"][1]["segmentation"] = []
    file.write_text(json.dumps(coco))
    flags = ["--data.root", str(tmp_path / "data"), "--training.output_dir", str(tmp_path / "run")]
    for verb, stream in (("train", "err"), ("check", "out")):
        assert main([verb, *mask_job, *flags]) == 1
        assert f"error [mask] {file}: annotation id 2 (image '" in getattr(capsys.readouterr(), stream)
    assert not (tmp_path / "run").exists()


def test_check_tries_a_batch_with_masks(mask_job: list[str], tmp_path: Path, capsys) -> None:
    assert main(["check", *mask_job, "--training.output_dir", str(tmp_path / "run")]) == 0
    assert "nothing stands in the way of" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [("--model.trainable_stages", "[layer4]"), ("--speed.compile_backbone", "true")])
def test_fields_without_effect_are_refused(mask_job: list[str], flags: tuple[str, str], capsys) -> None:
    assert main(["train", *mask_job, *flags]) == 2
    assert f"{flags[0].removeprefix('--')}: expected none beside model.masks" in capsys.readouterr().err
