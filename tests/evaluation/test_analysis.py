import json

import numpy as np
import pytest

from hf_detr_ft.evaluation.analysis import Analysis, Recall, analyse_detections
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.tide import ERRORS
from hf_detr_ft.report.describe_errors import describe_result
from tests.evaluation.test_coco_eval import boxes, official, one_image, random_case
from tests.evaluation.test_tide import pick


@pytest.mark.parametrize("seed", range(3))
def test_precision_recall_curves_are_those_behind_ap(seed: int) -> None:
    coco, detections = random_case(seed, categories=(3, 6, 40)[seed])
    analysis = analyse_detections(coco, detections)
    expected = evaluate_detections(coco, detections)
    assert analysis.result == expected

    curves = analysis.precision_recall
    areas = curves.mean().mean(axis=1)
    assert areas.mean() == pytest.approx(expected.metrics["map"], abs=1e-12)
    assert curves.iou[[0, 5]].tolist() == [0.5, 0.75]
    assert areas[[0, 5]].tolist() == pytest.approx([expected.metrics[name] for name in ("map_50", "map_75")], abs=1e-12)
    reference = official(coco, detections).eval["precision"][:, :, :, 0, 2]
    np.testing.assert_allclose(np.nan_to_num(curves.precision, nan=-1), reference, rtol=0, atol=1e-12)
    for index, row in enumerate(expected.per_class):
        area = curves.precision[:, :, index].mean(axis=1)
        assert curves.objects[index] == row.objects
        if row.objects:
            assert (area.mean(), area[0]) == pytest.approx((row.ap, row.ap_50), abs=1e-12)
        else:
            assert np.isnan(area).all() and row.ap == -1


@pytest.mark.parametrize("seed", range(3))
def test_threshold_curves_are_counts_and_their_top_is_the_best_f1(seed: int) -> None:
    coco, detections = random_case(seed)
    analysis = analyse_detections(coco, detections)
    curves, best = analysis.thresholds, analysis.result.best_f1
    top = int(np.searchsorted(curves.thresholds, best.threshold))
    assert curves.overall.best == best
    assert curves.overall.f1.max() == best.f1
    assert (curves.overall.f1[top], curves.overall.recall[top]) == (best.f1, best.recall)
    for threshold in (0.2, best.threshold, 0.7):
        # Detections of a lower score take nothing from those of a higher one, so leaving them out is what keeping is.
        kept = detections.score > threshold
        left = pick(detections, kept)
        at = np.searchsorted(curves.thresholds, threshold)
        counts = analyse_detections(coco, left, 0.0).confusion.counts
        hits = np.diag(counts)[:-1]
        assert curves.overall.precision[at] == pytest.approx(hits.sum() / counts[:, :-1].sum())
        assert curves.overall.recall[at] == pytest.approx(hits.sum() / counts[:-1].sum())
        for curve, hit, predicted, objects in zip(
            curves.classes, hits, counts[:, :-1].sum(axis=0), counts[:-1].sum(axis=1), strict=True
        ):
            assert curve.objects == objects
            expected = hit / predicted if predicted else np.nan
            assert curve.precision[at] == pytest.approx(expected, nan_ok=True)
            if objects:
                assert curve.recall[at] == pytest.approx(hit / objects)
                assert curve.f1[at] == pytest.approx(2 * hit / (predicted + objects))
                assert curve.best is not None and curve.best.f1 >= curve.f1[at]
            else:
                assert curve.best is None and np.isnan(curve.f1).all() and np.isnan(curve.recall).all()


def test_a_class_of_its_own_has_the_best_f1_of_its_own_data_set() -> None:
    coco, detections = random_case(4)
    curves = analyse_detections(coco, detections).thresholds
    for category, curve in zip(sorted(c["id"] for c in coco["categories"]), curves.classes, strict=True):
        own = detections.category_id == category
        alone = pick(detections, own)
        annotations = [a for a in coco["annotations"] if a["category_id"] == category]
        if curve.best is not None:
            assert curve.best == evaluate_detections({**coco, "annotations": annotations}, alone).best_f1


def test_recall_per_size_counts_the_kept_matches() -> None:
    coco = one_image(
        {"bbox": [0, 0, 20, 20]},
        {"bbox": [100, 0, 20, 20]},
        {"bbox": [0, 100, 50, 50]},
        {"bbox": [200, 200, 150, 150]},
        {"bbox": [400, 400, 150, 150], "iscrowd": 1},
    )
    detections = boxes((0, 0, 20, 20, 0.9), (0, 100, 50, 50, 0.4), (200, 200, 150, 150, 0.6), (400, 400, 99, 99, 0.9))
    assert analyse_detections(coco, detections, 0.5).recall == {
        "small": Recall(2, 1),
        "medium": Recall(1, 0),
        "large": Recall(1, 1),
    }


CASES = {
    "no detections": (one_image({"bbox": [0, 0, 50, 50]}), Detections.empty()),
    "no objects": (one_image(), boxes((0, 0, 50, 50, 0.9))),
    "neither": (one_image(), Detections.empty()),
    "crowd only": (one_image({"bbox": [0, 0, 50, 50], "iscrowd": 1}), boxes((0, 0, 50, 50, 0.9), (0, 90, 9, 9, 0.8))),
    "a class without objects": (one_image({"bbox": [0, 0, 50, 50]}, categories=2), boxes((0, 0, 9, 9, 0.5))),
    "a class never predicted": (
        one_image({"bbox": [0, 0, 50, 50]}, {"bbox": [0, 90, 50, 50], "category_id": 1}, categories=2),
        boxes((0, 0, 50, 50, 0.5)),
    ),
    "equal scores": (one_image({"bbox": [0, 0, 50, 50]}), boxes(*[(0, 0, 50, 50, 0.5), (0, 90, 50, 50, 0.5)] * 3)),
    "80 classes": random_case(5, categories=80),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("threshold", [None, 0.0, 1.5])
def test_edge_cases_are_analysed_and_are_json_without_nan(case: str, threshold: float | None) -> None:
    coco, detections = CASES[case]
    analysis = analyse_detections(coco, detections, threshold)
    read = json.loads(json.dumps(analysis.as_dict(), allow_nan=False))
    assert read == analysis.as_dict()
    assert list(read["errors"]) == [error.word for error in ERRORS]
    assert 1 <= len(describe_result(analysis)) <= 5
    objects = sum(not a.get("iscrowd") for a in coco["annotations"])
    assert analysis.confusion.counts[:-1].sum() == objects
    if not objects:
        assert analysis.errors.ap_50 is None
        assert {kind["gain"] for kind in read["errors"].values()} == {None}
        assert np.isnan(analysis.precision_recall.mean()).all()
        assert set(read["intervals"].values()) == {None}
    elif case != "80 classes":  # of one image each
        assert set(read["intervals"].values()) == {None}
    if not len(detections):
        assert read["calibration"]["expected_error"] is None
        assert set(read["calibration"]["right"]) == {None}


def test_json_names_classes_and_leaves_out_what_is_undefined() -> None:
    coco, detections = CASES["a class without objects"]
    rows = analyse_detections(coco, detections).as_dict()["best_f1_per_class"]
    assert rows[0] == {"category_id": 0, "name": "c0", "threshold": 0.5, "f1": 0, "precision": 0, "recall": 0}
    assert rows[1] == {"category_id": 1, "name": "c1"}


def test_detections_below_rank_100_are_left_out() -> None:
    coco = one_image({"bbox": [0, 0, 50, 50]})
    many = [(300, 300, 20, 20, 0.9 - 0.001 * index) for index in range(100)]
    analysis = analyse_detections(coco, boxes(*many, (0, 0, 50, 50, 0.1)), 0.0)
    assert analysis.result.metrics["map_50"] == 0
    assert analysis.confusion.counts.tolist() == [[0, 1], [100, 0]]
    assert analysis.calibration.count.sum() == 100
    assert analysis.errors.kinds["background"].count == 100
    assert analysis.errors.kinds["missed"].count == 1
    assert analysis.thresholds.overall.detections == 100


def test_the_same_input_gives_the_same_analysis() -> None:
    coco, detections = random_case(6)
    first, second = (analyse_detections(coco, detections) for _ in range(2))
    assert isinstance(first, Analysis) and first.as_dict() == second.as_dict()
    assert first.intervals["map"] is not None
