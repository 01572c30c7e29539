"""How far down a list of suspects is right, on detections that are drawn at random."""

import numpy as np
import pytest

from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.truth import index_detections, read_truth
from hf_detr_ft.evaluation.worst_suspects import estimate_right, find_worst_suspects

IMAGES, EACH, CLASSES = 400, 4, 3


def draw(spoilt_each: int, invented: float) -> tuple[dict, Detections, dict[int, str]]:
    """Annotations, what a model finds, and what was done to which annotation.

    The model finds nine of ten objects, gives another class a lower score there, and in a share of the images finds
    something that is not there.
    """
    random = np.random.default_rng(1)
    annotations, found = [], []
    for number in range(IMAGES * EACH):
        category, box = 1 + number % CLASSES, [60 * (number % EACH), 0, 40, 40]
        annotations.append({"id": number, "image_id": number // EACH, "category_id": category, "bbox": box})
        seen = random.uniform() < 0.9
        for of, score in ((category, random.uniform(0.4, 0.95)), (1 + category % CLASSES, random.uniform(0.1, 0.35))):
            moved = (np.array(box) + random.normal(0, 2, 4)).tolist()
            found += [{"image_id": number // EACH, "category_id": of, "score": score, "bbox": moved}] if seen else []
    for image in np.flatnonzero(random.uniform(size=IMAGES) < invented).tolist():
        found.append({"image_id": image, "category_id": 1, "score": random.uniform(0.1, 0.8), "bbox": [9, 90, 30, 30]})
    chosen = random.permutation(len(annotations))[: 3 * spoilt_each].tolist()
    done = {place: ("missing", "class", "place")[number % 3] for number, place in enumerate(chosen)}
    for place, kind in done.items():
        if kind == "class":
            annotations[place]["category_id"] = 1 + annotations[place]["category_id"] % CLASSES
        elif kind == "place":
            annotations[place]["bbox"] = [annotations[place]["bbox"][0] + 24, 0, 40, 40]
    kept = [entry for entry in annotations if done.get(entry["id"]) != "missing"]
    categories = [{"id": number + 1, "name": f"class {number}"} for number in range(CLASSES)]
    coco = {"images": [{"id": image} for image in range(IMAGES)], "categories": categories, "annotations": kept}
    return coco, Detections.from_results(found), done


@pytest.mark.parametrize("invented", [0.0, 0.8])
def test_as_much_is_listed_as_is_likely_right(invented: float) -> None:
    coco, detections, done = draw(27, invented)
    truth = read_truth(coco)
    predictions = index_detections(truth, detections)
    worst = find_worst_suspects(truth, predictions)
    ids = [entry["id"] for entry in coco["annotations"]]
    missing = {(place // EACH, 60 * (place % EACH)) for place, kind in done.items() if kind == "missing"}
    right = 0
    for suspect in worst:
        if suspect.annotation is not None:
            right += done.get(ids[suspect.annotation]) == suspect.kind
        else:
            box = predictions.boxes_xywh_px[suspect.detection]
            right += (suspect.image, 60 * round(box[0] / 60)) in missing and box[1] < 50
    assert right / len(worst) >= 0.8, "of 0.8 * 400 things that are not there hardly any"
    assert right / len(done) >= 0.5
    assert np.mean([suspect.right for suspect in worst]) <= right / len(worst) + 0.1
    assert [suspect.right for suspect in worst] == sorted((suspect.right for suspect in worst), reverse=True)


def test_of_sound_annotations_hardly_any_is_listed() -> None:
    coco, detections, _ = draw(0, 0.1)
    truth = read_truth(coco)
    assert len(find_worst_suspects(truth, index_detections(truth, detections))) < 0.03 * len(coco["annotations"])


def test_a_model_that_finds_no_mistake_that_was_made_lists_none() -> None:
    assert estimate_right(np.zeros(5), 100)[1] == 0
    assert estimate_right(np.zeros(0), 100)[1] == 0


def test_one_class_cannot_be_another() -> None:
    coco = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "mug"}], "annotations": []}
    coco["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}]
    truth = read_truth(coco)
    assert find_worst_suspects(truth, index_detections(truth, Detections.empty())) == []
