"""Outlines by the thousand: areas by the formula, and which of them it does not fit."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from hf_detr_ft.data.outlines import MOST_COMPARED, Outlines
from hf_detr_ft.data.segmentation_area import Measured, corrected_area, measure_segmentations

SQUARE = [10.0, 10.0, 50.0, 10.0, 50.0, 50.0, 10.0, 50.0]
CROSSED = [10.0, 10.0, 50.0, 50.0, 50.0, 10.0, 10.0, 50.0]


def read(*segmentations: list) -> Outlines:
    outlines = Outlines.read(segmentations)
    assert outlines is not None
    return outlines


def star(rng: np.random.Generator, points: int, radius: float) -> list[float]:
    """An outline around a point: it does not cross itself."""
    angles = (np.arange(points) + rng.uniform(0, 0.9, points)) * 2 * np.pi / points
    radii = radius * rng.uniform(0.5, 1, points)
    return (400 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)).ravel().tolist()


def overlaps(*segmentations: list) -> list[bool]:
    return read(*segmentations).may_overlap(np.arange(len(segmentations))).tolist()


def test_areas_and_perimeters_are_those_of_each_object_alone() -> None:
    rng = np.random.default_rng(0)
    objects = [[star(rng, int(rng.integers(3, 40)), 90) for _ in range(rng.integers(1, 4))] for _ in range(200)]
    outlines = read(*objects)
    for polygons, area, perimeter in zip(objects, outlines.areas, outlines.perimeters, strict=True):
        expected = [0.0, 0.0]
        for polygon in polygons:
            points = list(zip(polygon[::2], polygon[1::2], strict=True))
            pairs = list(zip(points, [*points[1:], points[0]], strict=True))
            expected[0] += abs(sum(x * next_y - y * next_x for (x, y), (next_x, next_y) in pairs)) / 2
            expected[1] += sum(np.hypot(next_x - x, next_y - y) for (x, y), (next_x, next_y) in pairs)
        assert [area, perimeter] == pytest.approx(expected, rel=1e-9)


def test_outlines_that_do_not_cross_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    objects = [[star(rng, int(rng.integers(8, 60)), 100)] for _ in range(300)]
    right = [corrected_area({"segmentation": polygons, "area": 1}) for polygons in objects]
    raster = [float(coco_mask.area(coco_mask.frPyObjects(polygons, 600, 600))[0]) for polygons in objects]
    perimeters = read(*objects).perimeters
    assert (np.abs(np.array(right) - raster) <= np.maximum(0.5 * perimeters, 1)).all()
    monkeypatch.setattr(coco_mask, "frPyObjects", lambda *_: pytest.fail("drawn"))
    entries = [{"segmentation": polygons, "area": 1} for polygons in objects]
    assert [measured.right_area for measured in measure_segmentations(entries)] == right


@pytest.mark.parametrize(
    ("polygons", "expected"),
    [
        ([SQUARE], False),
        ([[*SQUARE, 10.0, 10.0]], False),
        ([[10, 10, 30, 10, 50, 10, 50, 50, 30, 50, 10, 50]], False),
        ([CROSSED], True),
        ([[10, 10, 30, 30, 50, 50, 50, 10, 30, 30, 10, 50]], True),
        ([[-10, 10, 50, 10, 50, 50]], True),
        ([SQUARE, [60, 60, 70, 60, 70, 70]], False),
        ([SQUARE, [40, 40, 70, 40, 70, 70]], True),
        ([[60, 60, 70, 60, 70, 70], SQUARE, [45, 45, 47, 45, 47, 47]], True),
        ([[5, 5, 5, 5, 5, 5]], False),
        ([star(np.random.default_rng(0), MOST_COMPARED + 1, 100)], True),
    ],
)
def test_outlines_that_cross_touch_or_overlap_are_found_beside_others(polygons: list, expected: bool) -> None:
    assert overlaps([SQUARE], polygons, [CROSSED], [SQUARE]) == [False, expected, True, False]


@pytest.mark.parametrize(
    "segmentation",
    [[], [[]], ["abc"], [SQUARE[:4]], [SQUARE[:7]], [[True, *SQUARE[1:]]], [[*SQUARE[:7], None]]]
    + [[[*SQUARE[:7], value]] for value in (float("nan"), float("inf"), 2**63, 10**400, "1")],
)
def test_what_is_no_outline_is_not_read(segmentation: list) -> None:
    assert Outlines.read([[SQUARE], segmentation]) is None


def test_none_are_none() -> None:
    outlines = read()
    assert [len(values) for values in (outlines.areas, outlines.perimeters)] == [0, 0]
    assert outlines.may_overlap(np.zeros(0, dtype=int)).tolist() == []


def test_a_faulty_outline_among_thousands_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_detr_ft.data.segmentation_area.CHUNK", 7)
    entries = [{"segmentation": [SQUARE], "area": area} for area in (1600, 5, None) for _ in range(10)]
    entries[3] = {"segmentation": [[1, 2, 3]], "area": 5}
    entries[15] = {"area": 5}
    entries[16] = {"segmentation": Measured("odd", None)}
    measured = measure_segmentations(entries)
    expected = [Measured()] * 10 + [Measured(None, 1600)] * 20
    expected[15], expected[16] = Measured(), Measured("odd", None)
    assert measured[3].fault == "has 3 values in polygon 0, expected an even count of at least 6"
    assert measured[:3] + measured[4:] == expected[:3] + expected[4:]
