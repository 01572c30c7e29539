"""Annotations that a model contradicts."""

import numpy as np
import pytest

from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.suspects import find_suspects, pairwise_iou
from hf_detr_ft.evaluation.truth import index_detections, read_truth

A, B = [10, 10, 20, 20], [60, 10, 20, 20]


def suspects(objects: list[tuple], found: list[tuple]) -> list[tuple[str, int | None, float]]:
    """Kind, position of the annotation and weight.

    Args:
        objects: category, box and, where it is one, True for a crowd region.
        found: category, score, box.
    """
    coco = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 3, "name": "mug"}, {"id": 7, "name": "cone"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": entry[0], "bbox": entry[1], "iscrowd": int(len(entry) > 2)}
            for n, entry in enumerate(objects)
        ],
    }
    truth = read_truth(coco)
    detections = Detections.from_results(
        [{"image_id": 1, "category_id": category, "score": score, "bbox": box} for category, score, box in found]
    )
    return [
        (suspect.kind, suspect.annotation, round(suspect.weight, 6))
        for suspect in find_suspects(truth, index_detections(truth, detections))
    ]


def test_what_the_model_agrees_with_is_no_suspect() -> None:
    assert suspects([(3, A), (7, B)], [(3, 0.9, A), (7, 0.8, [61, 10, 20, 20])]) == []


def test_an_object_that_is_not_annotated_comes_once() -> None:
    found = [(3, 0.9, A), (7, 0.8, B), (3, 0.7, B), (7, 0.6, [61, 10, 20, 20])]
    assert suspects([(3, A)], found) == [("missing", None, 0.8)]


def test_another_class_weighs_what_the_model_is_surer_of() -> None:
    assert suspects([(3, A)], [(7, 0.9, A), (3, 0.2, A)]) == [("class", 0, 0.603708)]
    assert suspects([(3, A)], [(7, 0.6, A), (3, 0.5, A)]) == [("class", 0, 0.070418)]


def test_a_box_elsewhere_is_badly_placed() -> None:
    assert suspects([(3, [20, 10, 20, 20])], [(3, 0.9, A)]) == [("place", 0, 0.948683)]
    assert suspects([(3, [20, 10, 20, 20])], [(3, 0.9, A), (3, 0.95, [20, 10, 20, 20])]) == [], "two beside each other"


def test_the_worst_comes_first_and_each_annotation_once() -> None:
    found = [(7, 0.5, B), (7, 0.9, A), (3, 0.7, [22, 10, 20, 20])]
    found_all = suspects([(3, [12, 10, 20, 20])], found)
    assert found_all == [("class", 0, 0.948683), ("missing", None, 0.5)]


def test_a_crowd_region_is_contradicted_by_nothing() -> None:
    assert suspects([(3, [0, 0, 100, 50], True)], [(3, 0.9, A), (7, 0.8, B)]) == []


def test_an_image_without_annotations_and_no_detections_at_all() -> None:
    assert suspects([], [(3, 0.9, A)]) == [("missing", None, 0.9)]
    assert suspects([(3, A)], []) == []


@pytest.mark.parametrize(("other", "expected"), [(A, 1.0), ([20, 10, 20, 20], 1 / 3), ([30, 10, 20, 20], 0.0)])
def test_iou_of_pairs(other: list[int], expected: float) -> None:
    assert pairwise_iou(np.array([A], dtype=float), np.array([other], dtype=float)) == pytest.approx(expected)
