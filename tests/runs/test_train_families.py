"""Trainings of tiny models of the families beside DETR, from a backbone to a folder that resumes and opens."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline

from hf_detr_ft import cli
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.model.load import load_for_inference
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.run_folder import CARD, DETECTIONS, METRICS, RAW_WEIGHTS, RECIPE, WEIGHTS
from hf_detr_ft.training.evaluate_model import evaluate_model
from tests.families import SETTINGS, training
from tests.fixtures import CLASSES, write_coco_folder
from tests.hub.hub_server import HubServer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training images, one of them, and so one of the batches, without objects."""
    return write_coco_folder(tmp_path_factory.mktemp("data"), train_objects=[2, 0, 3, 1])


def assert_same(*files: Path) -> None:
    expected, found = map(load_file, files)
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def assert_averaged(whole: Path, resumed: Path, photo: Path) -> None:
    """The folder has the last checkpoint's average, which metrics.json is about, and goes on from the raw weights.

    `pipeline()` finds in a photo what the evaluation found there.
    """
    checkpoint = whole / "checkpoint-4"
    assert_same(checkpoint / RAW_WEIGHTS, resumed / checkpoint.name / RAW_WEIGHTS)
    assert_same(checkpoint / WEIGHTS, whole / WEIGHTS)
    average, raw = load_for_inference(str(whole)).state_dict(), load_file(checkpoint / RAW_WEIGHTS)
    assert any(not torch.equal(average[name], tensor) for name, tensor in raw.items() if "running_mean" in name)
    evaluation = evaluate_model(str(whole), load_recipe(whole / RECIPE))
    evaluated = Detections.from_npz((whole / DETECTIONS).read_bytes())
    np.testing.assert_allclose(evaluation.detections.score, evaluated.score, rtol=1e-5)
    (image,) = (entry["id"] for entry in evaluation.truth["images"] if entry["file_name"] == photo.name)
    found = [detection["score"] for detection in pipeline("object-detection", str(whole), threshold=0.0)(str(photo))]
    np.testing.assert_allclose(sorted(found), sorted(evaluated.score[evaluated.image_id == image]), rtol=1e-4)
    assert json.loads((whole / METRICS).read_text())["last"]["ema_decay"] == 0.9999
    assert "for the published weights, an exponential moving average, of epoch 2" in (whole / CARD).read_text()


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"detr"}))
def test_a_training_resumes_to_the_bit_and_its_folder_opens_and_is_published(
    family: str, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, hub: HubServer
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    last = ["--training.load_best_model_at_end", "false"]
    with caplog.at_level(logging.WARNING, "transformers"):
        assert cli.main([*training(family, root, whole), *last]) == 0
        checkpoint = whole / "checkpoint-2"
        again = [*training(family, root, resumed), *last]
        assert cli.main([*again, "--training.resume_from_checkpoint", str(checkpoint)]) == 0
    assert "were not initialized" not in caplog.text
    assert_same(whole / WEIGHTS, resumed / WEIGHTS)
    photo = str(next((root / "val2017").iterdir()))
    if family == "d_fine":
        assert_averaged(whole, resumed, Path(photo))
    metrics = json.loads((whole / METRICS).read_text())
    assert metrics["last"]["epoch"] == 2
    detections = pipeline("object-detection", str(whole), threshold=0.0)(photo)
    assert {detection["label"] for detection in detections} <= set(CLASSES)
    queries = SETTINGS[family]["num_queries"]
    most = queries if FAMILIES[family].scores == "softmax" else queries * len(CLASSES)
    assert len(detections) == metrics["most_detections"] == min(FAMILIES[family].top or queries, most)
    assert cli.main(["push", str(whole), family]) == 0
    assert f"[{FAMILIES[family].name}](" in hub.files(f"anna/{family}")["README.md"].decode()
    assert pipeline("object-detection", f"anna/{family}", threshold=0.0)(photo) == detections
