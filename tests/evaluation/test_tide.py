import numpy as np
import pytest

from hf_detr_ft.evaluation.analysis import analyse_detections
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.evaluation.coco_result import MAX_DETECTIONS
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.matching import UNMATCHED, rank_detections
from hf_detr_ft.evaluation.tide import ERRORS, Outcome, TideErrors
from hf_detr_ft.evaluation.truth import index_detections, read_truth
from tests.evaluation.test_coco_eval import boxes, one_image, random_case

A, B, FAR = (0, 0, 50, 50), (100, 0, 50, 50), (300, 300, 50, 50)
SHIFTED_B = (125, 0, 50, 50)
"""IoU 1/3 with B."""


def errors_of(coco: dict, *parts: Detections, threshold: float = 0.0) -> TideErrors:
    return analyse_detections(coco, Detections.concat(parts), threshold).errors


def counts(errors: TideErrors) -> dict[str, int]:
    """Those that are not 0."""
    return {name: kind.count for name, kind in errors.kinds.items() if kind.count}


def gains(errors: TideErrors) -> dict[str, float]:
    """Those that are not 0."""
    return {name: kind.gain for name, kind in errors.kinds.items() if kind.gain}


def two_objects(second: int = 0) -> dict:
    """A of class 0 and B of class `second`."""
    return one_image({"bbox": list(A)}, {"bbox": list(B), "category_id": second}, categories=2)


def test_nothing_wrong() -> None:
    errors = errors_of(two_objects(), boxes((*A, 0.9), (*B, 0.8)))
    assert (counts(errors), gains(errors), errors.ap_50) == ({}, {}, 1)
    assert errors.outcome.tolist() == [Outcome.TP, Outcome.TP] and errors.target.tolist() == [0, 1]


def test_one_duplicate() -> None:
    errors = errors_of(two_objects(), boxes((*A, 0.9), (*A, 0.8), (*B, 0.7)))
    assert counts(errors) == {"duplicate": 1}
    assert errors.target.tolist() == [0, 0, 1]
    # Recall 0.5, 51 of the 101 levels, at precision 1, the rest at 2/3.
    assert errors.ap_50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert gains(errors) == pytest.approx({"duplicate": 50 / 3 / 101})


def test_one_shifted_box() -> None:
    errors = errors_of(two_objects(), boxes((*A, 0.8), (*SHIFTED_B, 0.9)))
    assert counts(errors) == {"localisation": 1}
    assert errors.target.tolist() == [0, 1]
    assert errors.ap_50 == pytest.approx(51 / 101 / 2)
    assert gains(errors) == pytest.approx({"localisation": 1 - 51 / 101 / 2})


def test_one_wrong_class() -> None:
    errors = errors_of(two_objects(1), boxes((*A, 0.8), (*B, 0.9)))
    assert counts(errors) == {"classification": 1}
    assert errors.target.tolist() == [0, 1]
    assert errors.ap_50 == pytest.approx((0.5 + 0) / 2)
    assert gains(errors) == pytest.approx({"classification": 0.75})


def test_one_wrong_class_and_shifted() -> None:
    errors = errors_of(two_objects(1), boxes((*A, 0.8), (*SHIFTED_B, 0.9)))
    assert counts(errors) == {"both": 1, "missed": 1}
    assert errors.target.tolist() == [0, 1]
    assert errors.missed.tolist() == [False, True]
    # Without the detection class 0 has AP 1; without the missed object class 1 is no more in the mean.
    assert gains(errors) == pytest.approx({"both": 0.25, "missed": 0.25})


def test_one_background_box() -> None:
    errors = errors_of(one_image({"bbox": list(A)}), boxes((*A, 0.8), (*FAR, 0.9)))
    assert counts(errors) == {"background": 1}
    assert errors.target.tolist() == [0, UNMATCHED]
    assert (errors.ap_50, gains(errors)) == (0.5, {"background": 0.5})


def test_one_miss() -> None:
    errors = errors_of(two_objects(), boxes((*A, 0.9)))
    assert counts(errors) == {"missed": 1}
    assert errors.missed.tolist() == [False, True]
    assert gains(errors) == pytest.approx({"missed": 50 / 101})


def test_crowd_regions_are_neither_errors_nor_missed_and_belong_to_their_class() -> None:
    coco = one_image(
        {"bbox": list(A)}, {"bbox": list(B), "iscrowd": 1}, {"bbox": list(FAR), "category_id": 1}, categories=2
    )
    inside = (110, 10, 20, 20)
    found = boxes((*A, 0.8), (*inside, 0.9)), boxes((*inside, 0.7), (*FAR, 0.6), category_id=1)
    errors = errors_of(coco, *found)
    assert errors.outcome.tolist() == [Outcome.TP, Outcome.IGNORED, Outcome.BKG, Outcome.TP]
    assert counts(errors) == {"background": 1}
    assert errors.ap_50 == pytest.approx(0.75)
    assert gains(errors) == pytest.approx({"background": 0.25})


def test_of_all_that_claim_an_object_only_the_best_score_is_right() -> None:
    wide = (130, 0, 50, 50)
    errors = errors_of(two_objects(), boxes((*A, 0.9), (*SHIFTED_B, 0.6), (*wide, 0.8)))
    assert counts(errors) == {"localisation": 2}
    assert gains(errors) == pytest.approx({"localisation": 50 / 101})


def test_a_corrected_class_wins_over_a_lower_score_that_has_the_object() -> None:
    """The paper's rule: 0.9 becomes right and 0.5 goes; tidecv drops 0.9, and AP stays 0.5."""
    errors = errors_of(
        one_image({"bbox": list(A)}, categories=2), boxes((*A, 0.5), (*FAR, 0.7)), boxes((*A, 0.9), category_id=1)
    )
    assert counts(errors) == {"classification": 1, "background": 1}
    assert errors.ap_50 == 0.5
    assert gains(errors) == pytest.approx({"classification": 0.5, "background": 0.5})


def test_an_error_of_a_lower_score_on_a_taken_object_goes() -> None:
    errors = errors_of(two_objects(1), boxes((*A, 0.9)), boxes((*A, 0.8), (*B, 0.7), category_id=1))
    assert counts(errors) == {"classification": 1}
    assert errors.ap_50 == pytest.approx(0.75)
    assert gains(errors) == pytest.approx({"classification": 0.25})


def test_all_objects_missed_leaves_nothing_to_compare() -> None:
    errors = errors_of(two_objects(), boxes((*FAR, 0.9)))
    assert counts(errors) == {"background": 1, "missed": 2}
    assert errors.kinds["missed"].gain is None
    assert errors.kinds["background"].gain == errors.ap_50 == 0


def test_counts_from_a_threshold_on() -> None:
    errors = errors_of(two_objects(), boxes((*A, 0.9), (*A, 0.8), (*B, 0.3), (*FAR, 0.2)), threshold=0.5)
    assert {name: kind.kept for name, kind in errors.kinds.items() if kind.kept} == {"duplicate": 1, "missed": 1}
    assert counts(errors) == {"duplicate": 1, "background": 1}


def ious(coco: dict, detections: Detections) -> np.ndarray:
    """[N, M] of boxes in the same image, one by one; crowd regions have none."""
    result = np.zeros((len(detections), len(coco["annotations"])))
    for i, (image, (x, y, w, h)) in enumerate(zip(detections.image_id, detections.boxes_xywh_px.tolist(), strict=True)):
        for j, entry in enumerate(coco["annotations"]):
            a, b, c, d = entry["bbox"]
            width, height = min(x + w, a + c) - max(x, a), min(y + h, b + d) - max(y, b)
            if image == entry["image_id"] and not entry["iscrowd"] and width > 0 and height > 0:
                result[i, j] = width * height / (w * h + c * d - width * height)
    return result


def at_most_100(coco: dict, detections: Detections) -> Detections:
    """So that detections that are taken out give their rank to no other."""
    truth = read_truth(coco)
    return pick(detections, rank_detections(truth, index_detections(truth, detections)) < MAX_DETECTIONS)


def pick(detections: Detections, chosen: np.ndarray) -> Detections:
    columns = (detections.image_id, detections.category_id, detections.score, detections.boxes_xywh_px)
    return Detections(*(column[chosen] for column in columns))


@pytest.mark.parametrize("seed", range(6))
def test_kinds_are_those_of_the_definitions_one_by_one(seed: int) -> None:
    coco, detections = random_case(seed)
    detections = at_most_100(coco, detections)
    errors = errors_of(coco, detections)
    overlap = ious(coco, detections)
    category = np.array([entry["category_id"] for entry in coco["annotations"]])
    crowd = np.array([bool(entry["iscrowd"]) for entry in coco["annotations"]])
    covered = np.zeros(len(category), dtype=bool)
    for outcome, target, row, own_class in zip(
        errors.outcome, errors.target, overlap, detections.category_id, strict=True
    ):
        own, other = row * (category == own_class), row * (category != own_class)
        if outcome == Outcome.TP:
            covered[target] = True
            assert own[target] >= 0.5
        elif outcome != Outcome.IGNORED:
            if 0.1 <= own.max() < 0.5:
                expected, nearest = "localisation", own
            elif other.max() >= 0.5:
                expected, nearest = "classification", other
            elif own.max() >= 0.5:
                expected, nearest = "duplicate", own
            else:
                expected, nearest = ("both", other) if other.max() >= 0.1 else ("background", None)
            assert Outcome(outcome).word == expected
            assert target == UNMATCHED if nearest is None else nearest[target] == nearest.max()
            covered[target] |= expected in ("localisation", "classification")
    np.testing.assert_array_equal(errors.missed, ~covered & ~crowd)
    assert len(set(errors.outcome.tolist())) == 7  # all there are
    for error in ERRORS:
        counted = errors.missed.sum() if error == Outcome.MISS else (errors.outcome == error).sum()
        assert errors.kinds[error.word].count == counted


@pytest.mark.parametrize("seed", range(6))
def test_gains_are_those_of_data_in_which_the_kind_is_really_fixed(seed: int) -> None:
    coco, detections = random_case(seed)
    detections = at_most_100(coco, detections)
    errors = errors_of(coco, detections)
    as_it_is = evaluate_detections(coco, detections).metrics["map_50"]
    assert errors.ap_50 == pytest.approx(as_it_is, abs=1e-12)
    for error in ERRORS:
        name = error.word
        fixed_coco, fixed = coco, pick(detections, errors.outcome != error)
        if name == "missed":
            annotations = [a for a, m in zip(coco["annotations"], errors.missed, strict=True) if not m]
            fixed_coco, fixed = {**coco, "annotations": annotations}, detections
        elif name in ("classification", "localisation"):
            fixed = really_corrected(coco, detections, errors, error)
        gain = evaluate_detections(fixed_coco, fixed).metrics["map_50"] - as_it_is
        assert errors.kinds[name].gain == pytest.approx(gain, abs=1e-12), name
        assert gain > 0 or name in ("duplicate", "background", "both")


def really_corrected(coco: dict, detections: Detections, errors: TideErrors, error: Outcome) -> Detections:
    """Replaces class and box of the best claim by the object's, and leaves out the other claims."""
    category, box = detections.category_id.copy(), detections.boxes_xywh_px.copy()
    stays = errors.outcome != error
    for target in set(errors.target[errors.outcome == error].tolist()):
        claims = [i for i in np.flatnonzero(errors.target == target) if errors.outcome[i] in (error, Outcome.TP)]
        best = max(claims, key=lambda i: detections.score[i])
        stays[claims], stays[best] = False, True
        category[best], box[best] = coco["annotations"][target]["category_id"], coco["annotations"][target]["bbox"]
    return pick(Detections(detections.image_id, category, detections.score, box), stays)
