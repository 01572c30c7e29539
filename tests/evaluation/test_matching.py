import numpy as np

from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.matching import NOT_COUNTED, NOTHING, match, match_objects
from hf_detr_ft.evaluation.truth import index_detections, read_truth

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
        (9, 3, 0.5, [0, 0, 10, 10], NOTHING),  # the next one has a higher score and takes the object
        (9, 3, 0.9, [0, 1, 10, 10], 0),
        (9, 3, 0.8, [0, 21, 10, 10], 3),
        (9, 3, 0.7, [60, 10, 10, 10], NOT_COUNTED),
        (9, 7, 0.9, [0, 20, 10, 10], NOTHING),  # of another class
        (4, 7, 0.2, [0, 0, 10, 10], 2),
        (4, 7, 0.1, [0, 0, 10, 6], NOTHING),
    ]
    image_ids, category_ids, scores, boxes, expected = zip(*rows, strict=True)
    found = index_detections(truth, Detections(*map(np.array, (image_ids, category_ids, scores, boxes))))
    assert match_objects(truth, found, 100).tolist() == list(expected)
    assert match(truth, found, 100).tolist() == [0, 1, 1, -1, 0, 1, 0]
    assert match_objects(truth, found, 1)[[1, 2]].tolist() == [0, NOT_COUNTED]
