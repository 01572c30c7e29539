from collections.abc import Sequence

import numpy as np
import pytest

from hf_detr_ft.data.statistics import SplitStatistics, describe_split
from hf_detr_ft.report.split_findings import compare_splits, describe_split_findings

CATEGORIES = [{"id": id_, "name": name} for id_, name in ((3, "mug"), (7, "cone"), (90, "fish"))]
MUG, CONE, FISH = 3, 7, 90


def split_of(
    images: Sequence[Sequence[tuple[int, float]]], size: tuple[int, int] = (400, 400), **given: object
) -> SplitStatistics:
    """Images of one (height, width) with objects (category id, side in pixels)."""
    height, width = size
    return describe_split(
        {
            "images": [{"id": place, "height": height, "width": width} for place in range(len(images))],
            "annotations": [
                {"image_id": place, "category_id": category_id, "bbox": [0, 0, side, side], **given}
                for place, objects in enumerate(images)
                for category_id, side in objects
            ],
            "categories": CATEGORIES,
        }
    )


def random_split(images: int, seed: int) -> SplitStatistics:
    """Images with 0 to 5 objects of all classes and sizes; those of one image are alike."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(images):
        category_id, side = (MUG, CONE, FISH)[rng.integers(3)], rng.uniform(10, 300)
        drawn.append([(category_id, side * rng.uniform(0.9, 1.1)) for _ in range(rng.integers(6))])
    return split_of(drawn)


ALL = [(MUG, 100), (CONE, 100), (FISH, 100)]


def test_chance_alone_is_no_finding() -> None:
    """Though a tenth of the classes' shares differ by the ratio that counts, and objects of one image are alike."""
    found = [compare_splits(random_split(200, 2 * seed), random_split(25, 2 * seed + 1)) for seed in range(40)]
    assert found == [[]] * 40


def test_a_class_in_one_split_alone() -> None:
    train, val = split_of([[(MUG, 100), (CONE, 90)]] * 3), split_of([[(MUG, 100)]] * 2)
    assert compare_splits(train, val) == [
        "Only in training, so no AP can be measured: cone.",
        "Without any object, though listed as a class: fish.",
    ]
    assert compare_splits(val, train)[0] == "Only in validation, so the model cannot learn it: cone."


def test_shares_of_classes_are_those_of_images_that_show_them() -> None:
    train = split_of([ALL] * 30 + [[(MUG, 100)]] * 170)
    unlike = split_of([ALL] * 40 + [[(MUG, 100)]] * 10)
    assert compare_splits(train, unlike)[0] == (
        "Shown by unlike shares of the training and validation images that have objects: "
        "cone (15 % and 80 %), fish (15 % and 80 %)."
    )
    crowded = split_of([[*ALL, *[(FISH, 100)] * 60]] * 8 + [[(MUG, 100)]] * 42)
    assert not any("shares" in finding for finding in compare_splits(train, crowded)), "many fish on one image"
    few = split_of([ALL] * 2 + [[(MUG, 100)]] * 2)
    assert not any("shares" in finding for finding in compare_splits(train, few)), "2 of 4 can be chance"


def test_sizes_of_objects() -> None:
    train, val = (split_of([[(MUG, side + place % 7)] for place in range(60)]) for side in (100, 40))
    assert compare_splits(train, val)[-1] == (
        "Objects are smaller in validation than in training: on a typical image the median object is 11 % of the "
        "image's size against 26 % (square roots of the areas)."
    )
    assert "larger" in compare_splits(val, train)[-1]
    near = split_of([[(MUG, 110 + place % 7)] for place in range(60)])
    assert not any("Objects are" in finding for finding in compare_splits(train, near)), "certain, but no matter"


def test_objects_on_an_image_and_images_without_any() -> None:
    train = split_of([ALL] * 50)
    val = split_of([ALL * 4] * 40 + [[]] * 30)
    assert compare_splits(train, val) == [
        "Validation images that have objects have more of them than training's: 12.0 on average against 3.0.",
        "43 % of the validation images have no object, 0 % of training's.",
    ]


def test_shapes_of_images() -> None:
    train, val = split_of([ALL] * 50, (300, 400)), split_of([ALL] * 50, (400, 300))
    expected = "100 % of the validation images are higher than wide, 0 % of training's."
    assert compare_splits(train, val) == [expected]


def test_categories_that_validation_does_not_list() -> None:
    train = split_of([ALL] * 5)
    val = describe_split(
        {
            "images": [{"id": 1, "height": 400, "width": 400}],
            "annotations": [{"image_id": 1, "category_id": CONE, "bbox": [0, 0, 100, 100]}],
            "categories": CATEGORIES[1:],
        }
    )
    assert compare_splits(train, val) == ["Only in training, so no AP can be measured: mug, fish."]


def test_what_the_feature_map_cannot_show() -> None:
    split = split_of([[(MUG, 15.9), (MUG, 16), (MUG, 16.1), (CONE, 100)]])  # the photo is doubled to 800 pixels
    (finding,) = describe_split_findings(split, "training")
    assert finding.startswith("1 of 4 training objects (25 %) has a short side of less than 32 pixels once the photo")
    assert describe_split_findings(split_of([[(CONE, 100)]]), "training") == []


def test_boxes_without_area() -> None:
    finding = describe_split_findings(split_of([[(MUG, 0), (CONE, 100)]] * 150), "validation")[0]
    assert finding.startswith("150 of 300 validation objects (50 %) have a box without any area")


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (split_of([]), "There are no validation images."),
        (split_of([[], []]), "None of the 2 validation images has an object."),
        (split_of([ALL], iscrowd=1), "None of the 1 validation images has an object, only crowd regions (3)."),
    ],
    ids=["no images", "no objects", "crowd alone"],
)
def test_nothing_to_learn_from(split: SplitStatistics, expected: str) -> None:
    assert describe_split_findings(split, "validation") == [expected]
    assert compare_splits(random_split(20, 0), split) == compare_splits(split, random_split(20, 0)) == []


def test_long_lists_are_cut() -> None:
    categories = [{"id": id_, "name": f"class {id_}"} for id_ in range(30)]
    coco = {"images": [{"id": 1, "height": 400, "width": 400}], "categories": categories}
    one = {"image_id": 1, "bbox": [0, 0, 100, 100]}
    train = describe_split({**coco, "annotations": [{**one, "category_id": id_} for id_ in range(30)]})
    val = describe_split({**coco, "annotations": [{**one, "category_id": 0}]})
    finding = next(finding for finding in compare_splits(train, val) if finding.startswith("Only in training"))
    assert finding.endswith("class 9, class 10 and 19 more.")
