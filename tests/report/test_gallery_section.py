"""The gallery: kinds of errors, which photos are shown, where boxes lie on them."""

from pathlib import Path

import numpy as np
import pytest

from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.dataset import load_split
from hf_detr_ft.evaluation.analysis import analyse_detections
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.matching import match_detections
from hf_detr_ft.evaluation.tide import Outcome
from hf_detr_ft.evaluation.truth import read_truth
from hf_detr_ft.report.blocks import Gallery, Note, Section
from hf_detr_ft.report.load_run import Validation
from hf_detr_ft.report.sections.gallery_section import MOST, MOST_MARKS, choose_images
from hf_detr_ft.report.sections.gallery_section import describe_gallery as describe_gallery_of
from tests.report.constructed import NAMES, RESULTS, detections, truth, validation


def describe_gallery(one: Validation, threshold: float) -> Section:
    return describe_gallery_of(one, analyse_detections(one.truth, one.detections).errors, threshold)


def find_outcomes(coco: dict, found: Detections) -> list[str]:
    return [Outcome(outcome).word for outcome in analyse_detections(coco, found).errors.outcome]


def gallery_of(section: Section) -> Gallery:
    (gallery,) = [block for block in section.blocks if isinstance(block, Gallery)]
    return gallery


def test_every_kind_of_error_is_told() -> None:
    assert find_outcomes(truth(), detections()) == [kind for *_, kind in RESULTS]
    matched_gt = match_detections(read_truth(truth()), detections()).matched_gt
    assert matched_gt[[0, 7]].tolist() == [0, 1]
    assert (matched_gt[[1, 2, 3, 4, 5, 6, 8]] < 0).all()


def test_outcomes_do_not_depend_on_detections_with_lower_scores() -> None:
    found = detections()
    all_of_them = np.array(find_outcomes(truth(), found))
    for threshold in (0.85, 0.55, 0.1):
        kept = found.score > threshold
        fewer = Detections(*(values[kept] for values in vars(found).values() if values is not None))
        assert find_outcomes(truth(), fewer) == all_of_them[kept].tolist()


def test_the_worst_photo_comes_first_and_boxes_are_in_percent_of_it(tmp_path: Path) -> None:
    gallery = gallery_of(describe_gallery(validation(tmp_path), 0.3))
    assert [card.name for card in gallery.items] == ["2.png", "</script><b>1.png", "3.png", "4.png"]
    card = gallery.items[1]
    assert [(mark.outcome, mark.name, mark.score) for mark in card.truth] == [
        ("object", NAMES[0], 0.9),
        ("object", NAMES[0], 0.2),
    ]
    first = card.truth[0]
    assert (first.left, first.top, first.width, first.height) == pytest.approx((6.25, 100 / 12, 25, 100 / 3))
    assert [mark.outcome for mark in card.predictions] == ["right", "background", "duplicate", "right"]
    assert card.predictions[-1].score == 0.9, "the surest lies on top"
    assert card.summary(0.3) == "1 found, 1 missed, 2 wrong"
    assert card.summary(0.15) == "2 found, 0 missed, 2 wrong"
    assert [mark.outcome for mark in gallery.items[2].truth] == ["crowd"]
    assert gallery.items[2].summary(0.3) == "no objects, 0 wrong"
    assert gallery.kinds[0] == ("all", "anything")
    assert {kind for kind, _ in gallery.kinds} == {"all", "missed", "right", *(k for *_, k in RESULTS)} - {"ignored"}


def test_a_box_over_the_border_ends_there(tmp_path: Path) -> None:
    one = validation(tmp_path)
    over = Detections.from_results([{"image_id": 1, "category_id": 3, "bbox": [-40, 60, 300, 400], "score": 0.9}])
    mark = next(
        m for c in gallery_of(describe_gallery(Validation(one.truth, over, one.rows), 0.5)).items for m in c.predictions
    )
    assert (mark.left, mark.top, mark.width, mark.height) == (0, 50, 100, 50)


def test_with_one_class_its_name_goes_without_saying(tmp_path: Path) -> None:
    one = validation(tmp_path)
    coco = {**one.truth, "categories": one.truth["categories"][:1]}
    coco["annotations"] = [entry for entry in coco["annotations"] if entry["category_id"] == 3]
    few = Detections.from_results([e for e in detections().to_results() if e["category_id"] == 3])
    cards = gallery_of(describe_gallery(Validation(coco, few, one.rows), 0.3)).items
    assert {mark.name for card in cards for mark in (*card.truth, *card.predictions)} == {""}


def test_of_many_photos_a_bounded_number_is_shown_each_kind_among_them() -> None:
    """Every image has ten misses, but for one that has a duplicate and nothing else wrong, and one that is right."""
    images = [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 100} for n in range(300)]
    boxes = [(n, [10.0 * k, 0, 9, 9]) for n in range(298) for k in range(10)] + [
        (298, [0, 0, 9, 9]),
        (299, [0, 0, 9, 9]),
    ]
    annotations = [{"id": i, "image_id": n, "category_id": 1, "bbox": box} for i, (n, box) in enumerate(boxes)]
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    entries = [
        {"image_id": n, "category_id": 1, "bbox": [0, 0, 9, 9], "score": s}
        for n, s in ((298, 0.9), (298, 0.8), (299, 0.7))
    ]
    detected = Detections.from_results(entries)
    outcome = analyse_detections(coco, detected).errors.outcome
    chosen = choose_images(match_detections(read_truth(coco), detected), outcome, 0.5)
    assert len(chosen) == len(set(chosen)) == MOST
    assert {298, 299} <= set(chosen)
    assert chosen[0] not in (298, 299) and chosen[-1] == 299


def test_photos_that_are_gone_are_said_to_be(tmp_path: Path) -> None:
    one = validation(tmp_path)
    (tmp_path / "2.png").unlink()
    section = describe_gallery(one, 0.3)
    assert [card.name for card in gallery_of(section).items] == ["</script><b>1.png", "3.png", "4.png"]
    (note,) = [block for block in section.blocks if isinstance(block, Note)]
    assert "1 photo cannot be shown" in note.text and "2.png" in note.text
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    section = describe_gallery(one, 0.3)
    assert [type(block) for block in section.blocks] == [Note]
    assert "4 photos cannot be shown" in section.blocks[0].text  # type: ignore[union-attr]
    assert "--data.root" in section.blocks[0].text  # type: ignore[union-attr]
    assert [type(block) for block in describe_gallery(Validation(one.truth, one.detections, None), 0.3).blocks] == [
        Note
    ]


def test_no_detection_and_no_object(tmp_path: Path) -> None:
    one = validation(tmp_path)
    empty = {**one.truth, "annotations": []}
    rows = load_split(empty, tmp_path, LabelMap.from_coco(empty))
    for coco, found in ((one.truth, Detections.empty()), (empty, one.detections), (empty, Detections.empty())):
        gallery = gallery_of(describe_gallery(Validation(coco, found, rows), 0.5))
        assert len(gallery.items) == 4
    assert gallery.kinds == [("all", "anything")]
    assert gallery.items[0].summary(0.5) == "no objects, 0 wrong"


def test_only_the_best_predictions_of_a_photo_are_in_the_page(tmp_path: Path) -> None:
    one = validation(tmp_path)
    many = [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "score": 0.06 + n / 1000} for n in range(300)]
    cards = gallery_of(describe_gallery(Validation(one.truth, Detections.from_results(many), one.rows), 0.3)).items
    scores = [mark.score for card in cards for mark in card.predictions]
    assert len(scores) == MOST_MARKS and min(scores) == pytest.approx(0.26)
