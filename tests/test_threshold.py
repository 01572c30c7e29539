"""One threshold: what metrics.json calls the best F1 is what predict, pipeline() and the page make of that number."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_detr_ft.evaluation.analysis import analyse_detections
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.inference.detect import ImageDetections
from hf_detr_ft.report.load_run import load_run
from hf_detr_ft.report.pages import build_run_page
from hf_detr_ft.report.render_page import render_page
from hf_detr_ft.run_folder import RunFolder
from tests.report.constructed import truth, validation, views, write_run
from tests.report.parsed import parse

OBJECTS = ((10, 10, 40, 40), (60, 10, 40, 40))
"""Both of class 3 on image 1."""
FAR = (120, 75, 40, 40)


def score_photo(*rows: tuple[tuple[int, int, int, int], float]) -> Detections:
    """Detections of class 3 on image 1 with scores in single precision, as a model gives them."""
    box, score = [box for box, _ in rows], np.array([score for _, score in rows], dtype=np.float32)
    return Detections(np.ones(len(rows)), np.full(len(rows), 3), score.astype(np.float64), np.array(box))


@pytest.mark.parametrize(
    ("last_right", "wrong", "threshold"),
    [
        (0.601, 0.6, 0.6),  # the wrong one lies at the threshold; in double precision its 0.60000002 is above it
        (0.7, 0.6999, 0.699),  # in one thousandth, so both are kept or neither
        (0.0004, 0.0, 0.0),  # the lowest threshold, at which a score of 0 lies
        (1.0, 0.9991, 0.999),  # the highest
    ],
)
def test_the_best_f1_is_what_its_threshold_keeps_everywhere(
    tmp_path: Path, last_right: float, wrong: float, threshold: float
) -> None:
    coco = truth()
    coco["annotations"] = [entry for entry in coco["annotations"] if entry["image_id"] == 1]
    detections = score_photo((OBJECTS[0], 1.0), (OBJECTS[1], last_right), (FAR, wrong))
    run = write_run(tmp_path / "run", tmp_path / "data", coco, detections)
    best = json.loads((run / "metrics.json").read_text())["best"]["best_f1"]
    assert best["threshold"] == threshold

    scores = detections.score.astype(np.float32)
    predicted = ImageDetections(scores, np.zeros(3, dtype=np.int64), np.zeros((3, 4), dtype=np.float32))
    kept = len(predicted.above(threshold))
    assert kept == (torch.tensor(scores) > threshold).sum()  # the expression of post_process_object_detection
    assert (best["precision"], best["recall"]) == (2 / kept, 1)
    assert best["f1"] == 4 / (kept + 2)

    analysis = analyse_detections(coco, detections)
    at = analysis.thresholds.thresholds.tolist().index(threshold)
    assert (analysis.thresholds.overall.precision[at], analysis.thresholds.overall.recall[at]) == (2 / kept, 1)
    assert analysis.confusion.counts[:, 0].tolist() == [2, 0, kept - 2]
    assert analysis.calibration.kept == kept
    assert analysis.errors.kinds["background"].kept == kept - 2
    assert sum(recall.found for recall in analysis.recall.values()) == 2

    record = load_run(RunFolder(run))
    one = validation(tmp_path / "photos")
    one = type(one)(coco, detections, one.rows)
    html = parse(render_page(build_run_page(record, views(one))))
    card = next(card for card in html.all("article") if "1.png" in card.attributes["data-name"])
    assert card.all("p", class_="counts")[0].text() == f"2 found, 0 missed, {kept - 2} wrong"
    marks = [mark.attributes["class"].split() for mark in card.all("g", class_="mark")]
    assert sum(not {"off", "object"} & set(classes) for classes in marks) == kept
    assert not any("missed" in classes for classes in marks)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 0.9])
def test_a_score_at_the_threshold_is_not_above_it(threshold: float) -> None:
    """Half of these numbers are larger in single than in double precision."""
    coco, one = truth(), score_photo((OBJECTS[0], threshold))
    assert not (torch.tensor([threshold]) > threshold).any()
    assert analyse_detections(coco, one, threshold).calibration.kept == 0
    assert analyse_detections(coco, one, threshold - 0.001).calibration.kept == 1
