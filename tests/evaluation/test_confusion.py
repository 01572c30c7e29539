import numpy as np
import pytest

from hf_detr_ft.evaluation.analysis import analyse_detections
from hf_detr_ft.evaluation.confusion import Confusion
from hf_detr_ft.evaluation.detections import Detections
from tests.evaluation.test_coco_eval import boxes, one_image, random_case

A, B, FAR = (0, 0, 50, 50), (100, 0, 50, 50), (300, 300, 50, 50)


def confuse(coco: dict, *parts: Detections, threshold: float = 0.5) -> Confusion:
    return analyse_detections(coco, Detections.concat(parts), threshold).confusion


def test_rows_are_true_and_columns_predicted_classes_and_the_last_is_background() -> None:
    coco = one_image(*({"bbox": list(A)}, {"bbox": list(B), "category_id": 1}), categories=3)
    coco["annotations"].append({"id": 9, "image_id": 5, "category_id": 2, "bbox": [500, 0, 50, 50]})
    found = boxes((*A, 0.9), (*B, 0.8)), boxes((*FAR, 0.7), (500, 0, 50, 50, 0.4), category_id=2)
    assert confuse(coco, *found).counts.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    assert confuse(coco, *found, threshold=0.3).counts.tolist()[2] == [0, 0, 1, 0]
    assert confuse(coco, *found).confused_pairs() == [(1, 0, 1)]


def test_an_object_goes_to_its_own_class_before_a_higher_score_of_another() -> None:
    coco = one_image({"bbox": list(A)}, categories=2)
    found = boxes((*A, 0.6)), boxes((*A, 0.9), category_id=1)
    assert confuse(coco, *found).counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    # Below the threshold the own class's detection takes nothing.
    assert confuse(coco, *found, threshold=0.7).counts.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_of_two_other_classes_the_higher_score_takes_the_object_and_a_duplicate_is_background() -> None:
    coco = one_image({"bbox": list(A)}, categories=3)
    found = boxes((*A, 0.6), category_id=1), boxes((*A, 0.9), category_id=2)
    assert confuse(coco, *found).counts.tolist() == [[0, 0, 1, 0], [0] * 4, [0] * 4, [0, 1, 0, 0]]
    assert confuse(coco, boxes((*A, 0.9), (*A, 0.8))).counts.tolist() == [[1, 0, 0, 0], [0] * 4, [0] * 4, [1, 0, 0, 0]]


def test_boxes_that_overlap_too_little_are_not_confused() -> None:
    coco = one_image({"bbox": list(A)}, categories=2)
    assert confuse(coco, boxes((25, 0, 50, 50, 0.9), category_id=1)).counts.tolist() == [[0, 0, 1], [0] * 3, [0, 1, 0]]


def test_in_a_crowd_region_a_detection_of_its_class_does_not_count_and_the_region_is_no_object() -> None:
    coco = one_image({"bbox": list(A), "iscrowd": 1}, categories=2)
    inside = (10, 10, 20, 20)
    assert confuse(coco, boxes((*inside, 0.9))).counts.sum() == 0
    assert confuse(coco, boxes((*inside, 0.9), (*A, 0.8), category_id=1)).counts.tolist() == [
        [0] * 3,
        [0] * 3,
        [0, 2, 0],
    ]


@pytest.mark.parametrize("seed", range(4))
def test_it_holds_every_object_and_kept_detection_and_cocos_matches(seed: int) -> None:
    coco, detections = random_case(seed, images=40)
    rng = np.random.default_rng(seed)
    category = np.where(
        rng.random(len(detections)) < 0.4, rng.permutation(detections.category_id), detections.category_id
    )
    detections = Detections(detections.image_id, category, detections.score, detections.boxes_xywh_px)
    analysis = analyse_detections(coco, detections, 0.4)
    counts, curves = analysis.confusion.counts, analysis.thresholds
    assert counts[:-1].sum(axis=1).tolist() == [row.objects for row in analysis.result.per_class]
    assert counts[-1, -1] == 0
    at = np.searchsorted(curves.thresholds, 0.4)
    hits = np.diag(counts)[:-1]
    for curve, hit, predicted in zip(curves.classes, hits, counts[:, :-1].sum(axis=0), strict=True):
        assert curve.precision[at] == pytest.approx(hit / predicted if predicted else np.nan, nan_ok=True)
        assert curve.recall[at] == pytest.approx(hit / curve.objects if curve.objects else np.nan, nan_ok=True)
    assert analysis.calibration.kept == counts[:, :-1].sum()
    assert analysis.confusion.confused_pairs() and counts[:-1, :-1].sum() > hits.sum()
    assert [count for *_, count in analysis.confusion.confused_pairs()] == sorted(
        (counts[i, j] for i in range(6) for j in range(6) if i != j and counts[i, j]), reverse=True
    )
