import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_detr_ft import Detector
from hf_detr_ft.data.masks import Masks
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.inference import slices
from hf_detr_ft.inference.detect import ImageDetections
from hf_detr_ft.inference.slices import cut_slices, detect_slices
from tests.fixtures import tiny_processor

MEASURE = Path(__file__).parents[2] / "benchmarks" / "measure_predict.py"


@pytest.mark.parametrize(
    ("size", "side", "count"),
    [((100, 100), 100, 1), ((100, 101), 100, 2), ((60, 250), 100, 3), ((3000, 4000), 640, 48)],
)
def test_slices_cover_the_image_are_of_one_shape_and_overlap(size: tuple[int, int], side: int, count: int) -> None:
    found = cut_slices(size, side)
    assert len(found) == count
    assert {(bottom - top, right - left) for left, top, right, bottom in found} == {
        (min(size[0], side), min(size[1], side))
    }
    covered = np.zeros(size, dtype=bool)
    for left, top, right, bottom in found:
        covered[top:bottom, left:right] = True
    assert covered.all()
    for axis in (0, 1):
        starts = sorted({corners[axis] for corners in found})
        assert all(later - earlier <= 0.75 * side for earlier, later in pairwise(starts))


def merged(monkeypatch: pytest.MonkeyPatch, *found: list[list[float]]) -> list[list[float]]:
    """Boxes (left, top, right, bottom) that are left of those in the whole image of 200 x 100 and in its three slices.

    Slices begin at 0, 50 and 100; the boxes are given in pixels of the image, with a score before and a label behind.
    """
    starts = [0, *(corners[0] for corners in cut_slices((100, 200), 100))]
    given = iter(zip(starts, found, strict=True))

    def detect(model: object, prepared: list, sizes: list) -> list[ImageDetections]:
        result = []
        for start, rows in (next(given) for _ in prepared):
            values = np.array(rows, dtype=np.float32).reshape(-1, 6)
            boxes = values[:, 1:5] - np.array([start, 0, start, 0], dtype=np.float32)
            result.append(ImageDetections(values[:, 0], values[:, 5].astype(np.int64), boxes))
        return result

    monkeypatch.setattr(slices, "detect_prepared", detect)
    image = Image.new("RGB", (200, 100))
    detections = detect_slices(None, tiny_processor(), image, 100, 2, "image")  # type: ignore[arg-type]
    return detections.boxes_xyxy_px.tolist()


def test_an_object_that_two_slices_see_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one in both is whole in both; the other is cut by the first slice, and its part has the higher score."""
    one, again, part, rest = [60, 10, 80, 30], [61, 10, 81, 30], [85, 50, 100, 70], [85, 50, 110, 70]
    boxes = merged(monkeypatch, [], [[0.6, *one, 0], [0.95, *part, 0]], [[0.7, *again, 0], [0.8, *rest, 0]], [])
    assert boxes == [rest, again]


def test_classes_and_neighbours_are_different_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small object in front of a large one of its class stays: neither is cut."""
    large, small, other = [55, 5, 95, 45], [60, 10, 75, 25], [55, 5, 95, 44]
    boxes = merged(monkeypatch, [], [[0.9, *large, 0], [0.8, *small, 0]], [[0.7, *other, 1]], [])
    assert boxes == [large, small, other]


def test_the_whole_image_gives_what_no_slice_has_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    huge, small = [5, 5, 190, 95], [10, 10, 20, 20]
    boxes = merged(
        monkeypatch,
        [[0.7, *huge, 0], [0.9, *small, 0]],
        [[0.9, 5, 5, 100, 95, 0]],
        [[0.9, 50, 5, 150, 95, 0]],
        [[0.8, 100, 5, 190, 95, 0], [0.04, 150, 10, 160, 20, 0]],
    )
    assert boxes == [huge], "its parts go, the small one is for the slices, and 0.04 is too little"


def test_small_objects_of_a_large_image_are_found_in_slices_alone_and_once() -> None:
    drawn = runpy.run_path(str(MEASURE))
    detector = Detector.from_pretrained(drawn["MODEL"], device="cpu")
    image, boxes, names = drawn["draw_large"](5, 14, detector.names, (900, 1600))
    whole = drawn["count_found"](boxes, names, detector(image))
    hits, doubles, _ = drawn["count_found"](boxes, names, detector(image, slices=384))
    assert hits >= 0.7 * len(names) > 2 * whole[0]
    assert doubles == 0
    one = detector(image, slices=384, batch_size=1)
    assert drawn["count_found"](one["boxes"].astype(float), one["names"], detector(image, slices=384))[0] == len(
        one["names"]
    )
    small = image.crop((0, 0, 300, 200))
    assert detector(small, slices=384, threshold=0.1)["scores"] == pytest.approx(
        detector(small, threshold=0.1)["scores"]
    )


def test_masks_are_not_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    part = ImageDetections(np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros((0, 4)), Masks.empty())
    monkeypatch.setattr(slices, "detect_prepared", lambda model, prepared, sizes: [part] * len(prepared))
    with pytest.raises(RecipeError, match="slices: expected a model that gives boxes, found one with masks"):
        detect_slices(None, tiny_processor(), Image.new("RGB", (64, 64)), 32, 2, "image")  # type: ignore[arg-type]


def test_slices_that_make_no_sense(spread_run: Path) -> None:
    detector = Detector.from_pretrained(spread_run)
    with pytest.raises(RecipeError, match="slices: expected 32 or more pixels, found 31"):
        detector(Image.new("RGB", (64, 64)), slices=31)
