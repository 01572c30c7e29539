import numpy as np
import pytest

from hf_detr_ft.evaluation.analysis import analyse_detections
from hf_detr_ft.evaluation.average_precision import weighted_average_precision
from hf_detr_ft.evaluation.bootstrap import Interval
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.matching import MatchedDetections, match_detections
from hf_detr_ft.evaluation.truth import read_truth
from tests.evaluation.test_coco_eval import boxes, one_image, random_case, truth_as_detections


def matched(coco: dict, detections: Detections) -> MatchedDetections:
    return match_detections(read_truth(coco), detections)


def repeated(coco: dict, detections: Detections, times: list[int]) -> tuple[dict, Detections]:
    """The data set that really has each image so many times."""
    images, annotations, parts = [], [], []
    for image, count in zip(sorted(coco["images"], key=lambda entry: entry["id"]), times, strict=True):
        own = detections.image_id == image["id"]
        for _ in range(count):
            new = len(images) + 1
            images.append({"id": new})
            annotations += [{**a, "image_id": new} for a in coco["annotations"] if a["image_id"] == image["id"]]
            columns = (detections.category_id, detections.score, detections.boxes_xywh_px)
            parts.append(Detections(np.full(own.sum(), new), *(column[own] for column in columns)))
    return {**coco, "images": images, "annotations": annotations}, Detections.concat(parts)


def without_ties(detections: Detections) -> Detections:
    score = np.random.default_rng(0).permutation(len(detections)) / len(detections)
    return Detections(detections.image_id, detections.category_id, score, detections.boxes_xywh_px)


@pytest.mark.parametrize("seed", range(4))
def test_each_image_once_is_cocos_ap_ties_and_all(seed: int) -> None:
    coco, detections = random_case(seed, categories=(3, 6, 12, 40)[seed])
    ap = weighted_average_precision(matched(coco, detections), np.ones((len(coco["images"]), 1)))[:, :, 0]
    for index, row in enumerate(evaluate_detections(coco, detections).per_class):
        values = ap[:, index].mean(), ap[0, index]
        if row.objects:
            assert values == pytest.approx((row.ap, row.ap_50), abs=1e-12)
        else:
            assert np.isnan(values).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("numbers_at_once", [1_000_000, 60])
def test_weights_are_ap_of_the_data_set_that_repeats_the_images(
    seed: int, numbers_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_detr_ft.evaluation.average_precision._NUMBERS_AT_ONCE", numbers_at_once)
    coco, detections = random_case(seed + 20)
    detections = without_ties(detections)
    weights = np.random.default_rng(seed).integers(0, 4, (len(coco["images"]), 5))
    ap = weighted_average_precision(matched(coco, detections), weights.astype(float))
    for replicate, times in enumerate(weights.T.tolist()):
        expected = evaluate_detections(*repeated(coco, detections, times))
        means = [np.nanmean(values) for values in (ap[:, :, replicate], ap[0, :, replicate], ap[5, :, replicate])]
        assert means == pytest.approx([expected.metrics[name] for name in ("map", "map_50", "map_75")], abs=1e-12)
        for index, row in enumerate(expected.per_class):
            assert (
                np.isnan(ap[0, index, replicate])
                if not row.objects
                else row.ap_50 == pytest.approx(ap[0, index, replicate], abs=1e-12)
            )


@pytest.mark.parametrize("objects", [10, 50, 100])
def test_levels_of_recall_are_cocos_to_the_last_bit(objects: int) -> None:
    """Recall n/100 in floats, with n of `objects` found, lies on this or that side of COCO's level."""
    coco = one_image(*({"bbox": [100 * i, 0, 50, 50]} for i in range(objects)))
    for hits in range(objects + 1):
        detections = boxes(*((100 * i, 0, 50, 50, 0.9 - 0.001 * i) for i in range(hits)))
        ap = weighted_average_precision(matched(coco, detections), np.ones((1, 1)))
        assert ap.mean() == pytest.approx(evaluate_detections(coco, detections).metrics["map"], abs=1e-12), hits


def half_found(images: int, width: int = 50) -> tuple[dict, Detections]:
    """The object of every second image, 50 pixels wide, is found."""
    ids = range(1, images + 1)
    coco = {
        "images": [{"id": i} for i in ids],
        "categories": [{"id": 0, "name": "disc"}],
        "annotations": [{"image_id": i, "category_id": 0, "bbox": [0, 0, 50, 50]} for i in ids],
    }
    return coco, Detections.concat(boxes((0, 0, width, 50, 0.9), image_id=i) for i in ids if i % 2)


def test_each_number_is_of_its_own_ious() -> None:
    above, below = (analyse_detections(*half_found(20, width)).intervals for width in (38, 37))  # IoU 0.76 and 0.74
    assert above["map_50"] == above["map_75"] == below["map_50"] != above["map"]
    assert below["map_75"] is None and below["map"] is not None


def test_the_interval_is_that_of_a_known_distribution() -> None:
    """AP is the share of found objects, a mean of 200 coins, up to the 101 levels: 0.5 ± 1.96 * 0.5 / sqrt(200)."""
    analysis = analyse_detections(*half_found(200))
    for name in ("map", "map_50", "map_75"):
        interval = analysis.intervals[name]
        assert interval is not None
        assert (interval.low, interval.high) == pytest.approx((0.5 - 0.069, 0.5 + 0.069), abs=0.015)
        assert interval.low < analysis.result.metrics[name] < interval.high


def test_more_images_narrow_the_interval_and_the_seed_repeats_it() -> None:
    few, many = (analyse_detections(*half_found(n)).intervals["map"] for n in (20, 320))
    assert few is not None and many is not None
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.15)
    assert analyse_detections(*half_found(20)).intervals["map"] == few


@pytest.mark.parametrize("seed", range(3))
def test_an_interval_lies_in_0_to_1_and_holds_the_ap_measured(seed: int) -> None:
    analysis = analyse_detections(*random_case(seed, categories=(3, 12, 40)[seed]))
    for name, interval in analysis.intervals.items():
        assert isinstance(interval, Interval)
        assert 0 <= interval.low <= analysis.result.metrics[name] <= interval.high <= 1


def test_no_interval_where_drawing_says_nothing() -> None:
    coco, detections = half_found(2)
    nowhere = {"map": None, "map_50": None, "map_75": None}
    one = {**coco, "annotations": coco["annotations"][:1]}
    assert analyse_detections(one, boxes((0, 0, 50, 50, 0.9), image_id=2)).intervals == nowhere
    assert analyse_detections(coco, Detections.empty()).intervals == nowhere
    assert analyse_detections(coco, truth_as_detections(coco)).intervals == nowhere
    assert analyse_detections(coco, detections).intervals["map"] is not None


def test_intervals_are_of_as_many_detections_as_cocos_ap() -> None:
    coco = one_image(*({"bbox": [20 * (index % 20), 20 * (index // 20), 10, 10]} for index in range(130)))
    rows = [(20 * (index % 20), 20 * (index // 20), 10, 10, 0.9 - 0.001 * index) for index in range(125)]
    coco, found = repeated(coco, boxes(*rows), [4])
    kept = found.image_id > 1  # else each image is as good as the others, and there is no interval
    found = Detections(found.image_id[kept], found.category_id[kept], found.score[kept], found.boxes_xywh_px[kept])
    few, many = (analyse_detections(coco, found, max_detections=count) for count in (100, 130))
    assert few.intervals["map"] is not None
    assert few.intervals == many.intervals
    assert few.precision_recall.precision.mean() == pytest.approx(few.result.metrics["map"])
    assert many.precision_recall.precision.mean() == pytest.approx(many.result.metrics["map_at_130"])
    assert (few.recall["small"].found, many.recall["small"].found) == (3 * 100, 3 * 125)
