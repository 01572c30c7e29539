import numpy as np

from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.matching import IGNORED, UNMATCHED, match_detections
from hf_detr_ft.evaluation.truth import read_truth

TRUTH = {
    "images": [{"id": 9}, {"id": 4}],
    "categories": [{"id": 3, "name": "disc"}, {"id": 7, "name": "box"}],
    "annotations": [
        {"image_id": 9, "category_id": 3, "bbox": [0, 0, 10, 10]},
        {"image_id": 9, "category_id": 3, "bbox": [50, 0, 50, 50], "iscrowd": 1},
        {"image_id": 4, "category_id": 7, "bbox": [0, 0, 10, 10]},
        {"image_id": 9, "category_id": 3, "bbox": [0, 20, 10, 10]},
    ],
}


def test_each_detection_is_told_its_object() -> None:
    truth = read_truth(TRUTH)
    rows = [
        (9, 3, 0.5, [0, 0, 10, 10], UNMATCHED),  # the next one has a higher score and takes the object
        (9, 3, 0.9, [0, 1, 10, 10], 0),
        (9, 3, 0.8, [0, 21, 10, 10], 3),
        (9, 3, 0.7, [60, 10, 10, 10], IGNORED),
        (9, 7, 0.9, [0, 20, 10, 10], UNMATCHED),  # of another class
        (4, 7, 0.2, [0, 0, 10, 10], 2),
        (4, 7, 0.1, [0, 0, 10, 6], UNMATCHED),
    ]
    image_ids, category_ids, scores, boxes, expected = zip(*rows, strict=True)
    detections = Detections(*map(np.array, (image_ids, category_ids, scores, boxes)))
    matched = match_detections(truth, detections)
    assert matched.matched_gt.tolist() == list(expected)
    assert matched.is_tp.tolist() == [place >= 0 for place in expected]
    assert matched.counts.tolist() == [place != IGNORED for place in expected]
    assert matched.found_objects(matched.predictions.score > 0.2).tolist() == [True, False, False, True]
    assert match_detections(truth, detections, 1).matched_gt[[1, 2]].tolist() == [0, IGNORED]
