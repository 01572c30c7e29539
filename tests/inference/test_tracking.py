from collections.abc import Sequence

import numpy as np
import pytest

from hf_detr_ft.inference.detect import ImageDetections
from hf_detr_ft.inference.tracking import Tracker


def found(*boxes: Sequence[float]) -> ImageDetections:
    """Detections of (score, label, left, top), 20 pixels wide and high."""
    values = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    corners = np.concatenate([values[:, 2:], values[:, 2:] + 20], 1)
    return ImageDetections(values[:, 0], values[:, 1].astype(np.int64), corners)


def ids(tracker: Tracker, *boxes: Sequence[float]) -> list[int]:
    tracks = tracker.update(found(*boxes)).tracks
    assert tracks is not None
    return tracks.tolist()


def test_objects_that_pass_each_other_keep_their_ids() -> None:
    """They overlap in the middle, where the order of their scores changes, too."""
    tracker = Tracker(0.5, patience=5)
    for step in range(21):
        left, right = (0.9, 0, 5 * step, 8), (0.8 + 0.01 * step, 0, 100 - 5 * step, 0)
        result = tracker.update(found(left, right))
        assert result.tracks is not None
        by_top = dict(zip(result.boxes_xyxy_px[:, 1].tolist(), result.tracks.tolist(), strict=True))
        assert by_top == {8: 1, 0: 2}


def test_an_object_comes_back_under_its_id_within_the_patience_alone() -> None:
    tracker = Tracker(0.5, patience=3)
    for step in range(6):
        assert ids(tracker, (0.9, 0, 8 * step, 0)) == [1]
    assert ids(tracker) == []
    assert ids(tracker) == []
    assert ids(tracker, (0.9, 0, 64, 0)) == [1], "it went on where nobody saw it"
    for _ in range(4):
        assert ids(tracker) == []
    assert ids(tracker, (0.9, 0, 72, 0)) == [2]


def test_an_uncertain_detection_keeps_a_track_alive_and_is_not_given_back() -> None:
    tracker = Tracker(0.5, patience=1)
    assert ids(tracker, (0.9, 0, 0, 0)) == [1]
    for _ in range(4):
        assert ids(tracker, (0.2, 0, 0, 0)) == []
    assert ids(tracker, (0.9, 0, 0, 0)) == [1]
    assert ids(Tracker(0.5, patience=1), (0.2, 0, 0, 0)) == [], "and begins none"


def test_an_object_that_is_detected_twice_has_one_id() -> None:
    """The second box has the higher score in every other frame, and lies beside the first one."""
    tracker = Tracker(0.5, patience=5)
    for step in range(6):
        one, other = (0.8, 0, 0, 0), (0.9 - 0.2 * (step % 2), 0, 3, 0)
        assert ids(tracker, one, other) == [1]


def test_classes_are_not_mixed() -> None:
    tracker = Tracker(0.5, patience=5)
    assert ids(tracker, (0.9, 0, 0, 0)) == [1]
    assert ids(tracker, (0.9, 1, 0, 0)) == [2]
    assert ids(tracker, (0.8, 0, 0, 0), (0.9, 1, 0, 0)) == [2, 1]


def test_detections_stay_as_they_are_best_first() -> None:
    result = Tracker(0.5, patience=5).update(found((0.6, 1, 50, 0), (0.4, 0, 70, 0), (0.9, 0, 0, 0)))
    assert result.scores.tolist() == pytest.approx([0.9, 0.6])
    assert result.labels.tolist() == [0, 1]
    assert result.boxes_xyxy_px.tolist() == [[0, 0, 20, 20], [50, 0, 70, 20]]
    assert result.tracks is not None and sorted(result.tracks.tolist()) == [1, 2]
