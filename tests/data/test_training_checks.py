"""Checks that `check` makes beyond errors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_detr_ft.data.checks.annotation_fields import Entries, Entry, read_entries
from hf_detr_ft.data.checks.image_checks import read_image
from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.checks.training_checks import Grid, check_for_training, check_measure, find_twice, plain_name
from hf_detr_ft.data.image_size import ImageSize
from tests.fixtures import CATEGORIES

GRID = Grid(ImageSize(100, 200), 32)


def entries(boxes: list[list[float]], size: tuple[int, int] = (200, 200), classes: tuple[int, ...] = (3,)) -> Entries:
    """One image, (width, height), with these boxes, whose classes take turns."""
    coco: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": classes[n % len(classes)], "bbox": box}
            for n, box in enumerate(boxes)
        ],
        "categories": [dict(category) for category in CATEGORIES],
    }
    return read_entries(coco, "a.json")


def found(kind: str, read: Entries, grid: Grid | None = GRID) -> list[Problem]:
    problems = check_for_training(read, "a.json", grid, for_training=True)
    return [problem for problem in problems if problem.kind == kind]


def test_objects_smaller_than_a_cell_are_counted_at_the_size_that_the_model_sees() -> None:
    read = entries([[0, 0, 70, 10], [0, 0, 60, 60], [5, 5, 10, 12]])  # at half their size
    [problem] = found("small-objects", read)
    assert problem.count == 2
    assert "32 pixels of the resized image, found 2 of 3" in problem.message
    assert "annotation id 2 (image 'a.jpg') with 6.0" in problem.message
    assert found("small-objects", read, Grid(ImageSize(200, 400), 12)) == []
    assert found("small-objects", read, None) == []


def test_classes_of_few_objects_are_named_with_their_number() -> None:
    read = entries([[n, 0, 40, 40] for n in range(13)], classes=(3, 3, 3, 7))
    [problem] = found("few-objects", read)
    assert "fewer of 1: 'cone' 3" in problem.message
    assert found("few-objects", entries([[n, 0, 40, 40] for n in range(20)], classes=(3, 7))) == []


def test_an_image_larger_than_memory_allows_is_named() -> None:
    [problem] = found("huge-image", entries([], size=(200_000, 90_000)))
    assert "found 18,000 million pixels, which take 270.0 GB" in problem.message
    assert found("huge-image", entries([], size=(8000, 6000))) == []


def test_a_header_that_promises_too_many_pixels_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (400, 400)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "cut it into tiles" in str(read_image(tmp_path / "a.png"))


def test_a_validation_split_tells_2_points_apart_from_2500_objects_on() -> None:
    [problem] = check_measure(entries([[0, 0, 9, 9]] * 100), "a.json")
    assert "found 100 objects: AP is known to about 10 points" in problem.message
    assert [len(check_measure(entries([[0, 0, 9, 9]] * count), "a.json")) for count in (2499, 2500, 0)] == [1, 0, 0]


def test_pairs_are_those_of_comparing_all_with_all() -> None:
    generator = np.random.default_rng(0)
    boxes = generator.integers(0, 4, (300, 4)) * [1.0, 1, 0.5, 0.5] + [0, 0, 60, 60] + generator.random((300, 4))
    objects = [
        Entry({"image_id": image, "category_id": label}, place, lambda place, fields: "")
        for place, (image, label) in enumerate(generator.integers(0, 3, (300, 2)).tolist())
    ]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    expected = set()
    for one in range(300):
        for other in range(one):
            a, b = corners[one], corners[other]
            overlap = np.prod((np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0))
            iou = overlap / (boxes[one, 2:].prod() + boxes[other, 2:].prod() - overlap)
            if objects[one].fields == objects[other].fields and iou >= 0.95:
                expected.add((other, one))
    assert {(min(pair[:2]), max(pair[:2])) for pair in find_twice(objects, boxes)} == expected
    assert 50 < len(expected) < 3000


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [("Mug ", "mug", True), ("coffee  mug", "Coffee mug", True), ("t 1", "t-1", False), ("a1", "a", False)],
)
def test_names_are_alike_but_for_case_and_spaces(one: str, other: str, alike: bool) -> None:
    assert (plain_name(one) == plain_name(other)) is alike
