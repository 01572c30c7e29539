"""AP of groups of trainings: sizes as COCO has them, limits of known distributions, and what is told apart."""

import math

import numpy as np
import pytest

from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.average_precision import weighted_average_precision
from hf_detr_ft.evaluation.bootstrap import mean_of_defined
from hf_detr_ft.evaluation.coco_eval import SIZE_LIMITS, evaluate_detections
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.groups import ASSUMED_SPREAD, compare_groups, estimate_ap
from hf_detr_ft.evaluation.matching import MatchedDetections, match_detections
from hf_detr_ft.evaluation.truth import read_truth
from tests.evaluation.test_coco_eval import random_case

IMAGES = 200


def matched(coco: dict, detections: Detections) -> MatchedDetections:
    return match_detections(read_truth(coco), detections)


def finder(found: np.ndarray, images: int = IMAGES) -> MatchedDetections:
    """A model that finds the one object of some images, and nothing else: its AP is their share."""
    ids = np.arange(1, images + 1)
    coco = {
        "images": [{"id": i} for i in ids.tolist()],
        "categories": [{"id": 0, "name": "disc"}],
        "annotations": [{"image_id": i, "category_id": 0, "bbox": [0, 0, 50, 50]} for i in ids.tolist()],
    }
    own = ids[found]
    return matched(coco, Detections(own, 0 * own, np.full(len(own), 0.9), np.tile([0.0, 0, 50, 50], (len(own), 1))))


def some(share: float, generator: np.random.Generator, images: int = IMAGES) -> MatchedDetections:
    return finder(generator.random(images) < share, images)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", SIZE_LIMITS)
def test_ap_of_a_size_is_cocos(seed: int, size: str) -> None:
    coco, detections = random_case(seed)
    own = matched(coco, detections).of_coco().of_size(*SIZE_LIMITS[size])
    ap = mean_of_defined(weighted_average_precision(own, np.ones((len(coco["images"]), 1))))
    assert ap[0] == pytest.approx(evaluate_detections(coco, detections).metrics[f"map_{size}"], abs=1e-12)


def test_limits_of_one_training_are_those_of_its_images() -> None:
    found = estimate_ap([finder(np.arange(IMAGES) % 2 == 0)])["AP"]
    assert found.mean == pytest.approx(0.5, abs=0.01)
    assert found.deviation is None and found.interval is not None
    half = (found.interval.high - found.interval.low) / 2
    assert half == pytest.approx(1.97 * math.sqrt(0.25 / IMAGES), rel=0.1)


def test_limits_of_several_trainings_hold_other_seeds_as_well() -> None:
    generator = np.random.default_rng(0)
    group = [some(share, generator) for share in (0.3, 0.5, 0.7)]
    ap = [estimate_ap([one])["AP"].mean for one in group]
    found = estimate_ap(group)["AP"]
    assert found.mean == pytest.approx(np.mean(ap))
    assert found.deviation == pytest.approx(np.std(ap, ddof=1))
    assert found.interval is not None
    of_seeds = np.std(ap, ddof=1) / math.sqrt(3)
    assert found.interval.high - found.mean > 2 * of_seeds, "three trainings say little, so Student's limits are wide"


def test_what_makes_an_image_hard_for_both_cancels_out() -> None:
    """B finds what A finds and 10 of 200 objects more: of 5 points, with a deviation of sqrt(.05 * .95 / 200)."""
    a, b = np.arange(IMAGES) % 2 == 0, np.arange(IMAGES) % 2 == 0
    b[1:20:2] = True
    row = compare_groups([finder(a)], [finder(b)]).overall
    assert row.value == pytest.approx(0.05, abs=0.01)
    assert row.interval is not None and row.is_told_apart
    assert row.interval.low < row.value < row.interval.high
    deviation = math.sqrt(0.05 * 0.95 / IMAGES + 2 * ASSUMED_SPREAD**2)
    assert (row.interval.high - row.interval.low) / 2 == pytest.approx(1.97 * deviation, rel=0.15)
    swapped = compare_groups([finder(b)], [finder(a)]).overall
    assert (swapped.value, swapped.interval.low) == (-row.value, pytest.approx(-row.interval.high))


def test_one_training_each_leaves_other_seeds_to_an_assumption() -> None:
    """2,000 images alone would tell such a difference with limits of a hundredth."""
    a, b = np.ones(2000, dtype=bool), np.ones(2000, dtype=bool)
    a[:20] = False
    comparison = compare_groups([finder(a, 2000)], [finder(b, 2000)])
    interval = comparison.overall.interval
    assert comparison.spread == ASSUMED_SPREAD and interval is not None
    assert (interval.high - interval.low) / 2 > 1.96 * math.sqrt(2) * ASSUMED_SPREAD


def test_more_trainings_make_their_mean_surer() -> None:
    """With 2,000 images the seeds alone count; Student's quantile is 4.303 of 2 degrees of freedom, 2.571 of 5."""
    generator = np.random.default_rng(4)
    for shares, quantile in (((0.3, 0.5, 0.7), 4.303), ((0.3, 0.5, 0.7) * 2, 2.571)):
        group = [some(share, generator, 2000) for share in shares]
        found = estimate_ap(group)["AP"]
        assert found.interval is not None and found.deviation is not None
        margin = quantile * found.deviation / math.sqrt(len(group))
        assert found.interval.high - found.mean == pytest.approx(margin, rel=0.05)


def test_images_needed_are_those_that_tell_four_times_out_of_five() -> None:
    generator, images = np.random.default_rng(1), 100
    pairs = [(some(0.5, generator, images), some(0.56, generator, images)) for _ in range(20)]
    rows = [compare_groups([a], [b]).overall for a, b in pairs]
    assert {row.images_needed is None for row in rows} == {row.is_told_apart or not row.value for row in rows} | {False}
    expected = (1.97 + 0.84) ** 2 * 2 * 0.25 / 0.06**2
    like = [row.images_needed for row in rows if row.images_needed and abs(row.value - 0.06) < 0.015]
    assert like and np.median(like) == pytest.approx(expected, rel=0.5)


def test_equal_recipes_are_not_told_apart_and_better_ones_are() -> None:
    generator = np.random.default_rng(2)
    equal = [compare_groups([some(0.5, generator)], [some(0.5, generator)]).overall for _ in range(40)]
    assert sum(not row.is_told_apart for row in equal) >= 36
    better = [compare_groups([some(0.4, generator)], [some(0.6, generator)]).overall for _ in range(20)]
    assert sum(row.is_told_apart and row.value > 0 for row in better) >= 18


def test_seeds_that_differ_more_than_images_tell_are_not_told_apart() -> None:
    """Each group is one recipe whose trainings come to anything from .3 to .7; many images show each well."""
    generator, told = np.random.default_rng(3), 0
    for _ in range(20):
        a, b = ([some(share, generator, 300) for share in generator.uniform(0.3, 0.7, 3)] for _ in range(2))
        row = compare_groups(a, b).overall
        told += row.is_told_apart
        assert row.images_needed is None, "more images would not do"
    assert told <= 2


def test_classes_and_sizes_are_listed_where_there_are_some() -> None:
    coco, detections = random_case(1)
    comparison = compare_groups([matched(coco, detections)], [matched(coco, detections)])
    names = [row.name for row in comparison.others]
    per_class = [row for row in evaluate_detections(coco, detections).per_class if row.objects]
    assert names == ["AP50", "AP75", "AP small", "AP medium", "AP large", *(row.name for row in per_class)]
    assert [row.a for row in comparison.others[5:]] == pytest.approx([row.ap for row in per_class])
    metrics = evaluate_detections(coco, detections).metrics
    numbers = [metrics[f"map_{name}"] for name in ("50", "75", "small", "medium", "large")]
    assert [row.a for row in comparison.others[:5]] == pytest.approx(numbers)
    assert comparison.overall.value == 0 and not comparison.overall.is_told_apart
    assert comparison.as_dict()["overall"]["difference"] == 0


def test_one_class_is_not_listed_nor_a_size_of_crowds_alone() -> None:
    ids = range(1, 21)
    objects = [{"image_id": i, "category_id": 0, "bbox": [0, 0, 50, 50]} for i in ids]
    coco = {
        "images": [{"id": i} for i in ids],
        "categories": [{"id": 0, "name": "disc"}],
        "annotations": [*objects, {"image_id": 1, "category_id": 0, "bbox": [60, 60, 200, 200], "iscrowd": 1}],
    }
    model = matched(coco, Detections(*(np.zeros(0, dtype=int),) * 2, np.zeros(0), np.zeros((0, 4))))
    assert [row.name for row in compare_groups([model], [model]).others] == ["AP50", "AP75", "AP medium"]


def test_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="evaluated on the same images and annotations, found 200 images with 200"):
        compare_groups([finder(np.ones(IMAGES, dtype=bool))], [finder(np.ones(50, dtype=bool), 50)])
