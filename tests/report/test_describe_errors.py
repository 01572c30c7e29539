import numpy as np
import pytest

from hf_detr_ft.evaluation.analysis import analyse_detections
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.report.describe_errors import describe_result
from tests.evaluation.test_coco_eval import boxes, one_image, random_case


def describe(coco: dict, *parts: Detections, threshold: float | None = 0.5) -> list[str]:
    return describe_result(analyse_detections(coco, Detections.concat(parts), threshold))


def row(count: int, side: int = 50, y: int = 0, **more: int) -> list[dict]:
    return [{"bbox": [200 * i, y, side, side], **more} for i in range(count)]


def found(entries: list[dict], score: float = 0.9, category_id: int = 0, shift: float = 0.0) -> Detections:
    rows = [(x + shift * w, y, w, h, score) for x, y, w, h in (entry["bbox"] for entry in entries)]
    return boxes(*rows, category_id=category_id)


def test_nothing_to_speak_of() -> None:
    assert describe(one_image(), found(row(2))) == ["There are no objects, so there is no AP (1 image, 2 detections)."]
    assert describe(one_image(*row(3))) == ["There are no detections: 3 objects missed."]


def test_all_is_well() -> None:
    assert describe(one_image(*row(30)), found(row(30))) == [
        "With scores above 0.500, 30 of 30 objects are found and none of 30 detections is wrong."
    ]


def test_nothing_is_found() -> None:
    objects = row(4)
    assert describe(one_image(*objects), found(objects, shift=3)) == [
        "None of 4 objects is found: no detection has IoU 0.5 with an object of its class."
    ]
    first = describe(one_image(*objects), found(objects, score=0.2))[0]
    assert first == "With scores above 0.500, none of 4 objects is found."


def test_the_threshold_is_that_of_the_best_f1() -> None:
    (first, *_) = describe(one_image(*row(1)), found(row(1), score=0.6789), threshold=None)
    assert first == "With scores above 0.678, 1 of 1 object is found and none of 1 detection is wrong."


def test_recall_that_is_lost_on_one_size() -> None:
    small, large = row(17, side=20), row(20, side=100, y=300)
    coco = one_image(*small, *large)
    sentence = "Recall is lost on small objects: 4 of 17 are found, of the others 20 of 20."
    assert sentence in describe(coco, found(small[:4]), found(large))
    # 15 of 17 against 20 of 20 is what chance can do.
    assert not any("Recall is lost" in s for s in describe(coco, found(small[:15]), found(large)))
    assert not any("Recall is lost" in s for s in describe(one_image(*small[:4], *large), found(large)))


def test_classes_that_are_never_predicted() -> None:
    rest = row(12, y=300, category_id=1)
    coco = one_image(*row(3), *rest, *row(2, y=600, category_id=2), categories=4)
    assert "2 classes are never predicted: 'c1' (12 objects), 'c2' (2 objects)." in describe(coco, found(row(3)))
    weak = found(rest, score=0.1, category_id=1), found(row(2, y=600), category_id=2)
    said = describe(coco, found(row(3)), *weak)
    assert said[1] == "The class 'c1' (12 objects) is never predicted with a score above 0.500."
    assert not any("c3" in sentence for sentence in said)  # it has no objects


@pytest.mark.parametrize(
    ("kind", "wrong", "sentence"),
    [
        ("duplicate", found(row(6), score=0.8), "Most wrong detections are duplicates of one already found: 6 of 6."),
        ("background", found(row(6, y=500), score=0.8), "Most wrong detections are on background: 6 of 6."),
    ],
)
def test_what_most_wrong_detections_are(kind: str, wrong: Detections, sentence: str) -> None:
    coco = one_image(*row(10))
    assert sentence in describe(coco, found(row(10)), wrong)
    few = Detections(*(values[:4] for values in vars(wrong).values() if values is not None))
    assert not any("Most wrong" in s for s in describe(coco, found(row(10)), few))


def test_what_fixing_would_gain_the_most() -> None:
    said = describe(one_image(*row(10)), found(row(5)), found(row(10)[5:], shift=0.5))
    assert any(
        s == "The most would be gained by better boxes for detections near an object of their class: "
        "AP50 1.00 instead of 0.50."
        for s in said
    )


def test_a_class_that_is_taken_for_another() -> None:
    others = row(20, y=300, category_id=1)
    coco = one_image(*row(10), *others, categories=2)
    right = found(row(10)), found(others[:14], category_id=1)
    assert "'c1' is taken for 'c0': 6 of 20 objects." in describe(coco, *right, found(others[14:]))
    assert not any("taken for" in s for s in describe(coco, *right, found(others[16:])))


def test_loose_boxes() -> None:
    sentence = "Objects are found but their boxes are loose: AP 1.00 at IoU 0.5, 0.00 at 0.75."
    assert sentence in describe(one_image(*row(10)), found(row(10), shift=0.25))


def test_scores_that_are_too_high_or_too_low() -> None:
    coco = one_image(*row(20))
    wrong = found(row(20, y=400), score=0.9)
    said = describe(coco, found(row(20), score=0.9), wrong)
    assert "Scores are too high: 50 % of the kept detections are right, their mean score is 0.90." in said
    said = describe(coco, found(row(20), score=0.55))
    assert "Scores are too low: 100 % of the kept detections are right, their mean score is 0.55." in said
    few = describe(one_image(*row(9)), found(row(9), score=0.55))
    assert not any("Scores are" in s for s in few)


def test_few_images_leave_ap_open() -> None:
    ids = range(1, 14)
    coco = {
        "images": [{"id": i} for i in ids],
        "categories": [{"id": 0, "name": "disc"}],
        "annotations": [{"image_id": i, "category_id": 0, "bbox": [0, 0, 50, 50]} for i in ids],
    }
    half = Detections.concat(boxes((0, 0, 50, 50, 0.9), image_id=i) for i in ids if i % 2)
    analysis = analyse_detections(coco, half)
    interval = analysis.intervals["map"]
    assert interval is not None
    expected = f"13 images are few: AP is known to ± {(interval.high - interval.low) / 2:.2f} only"
    assert describe_result(analysis)[1].startswith(expected)
    assert 0.2 < (interval.high - interval.low) / 2 < 0.35


def test_at_most_five_sentences() -> None:
    lengths = [len(describe(*random_case(seed), threshold=threshold)) for seed in range(6) for threshold in (None, 0.5)]
    assert max(lengths) == 5 and np.min(lengths) >= 2
