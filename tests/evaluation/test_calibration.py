import numpy as np
import pytest

from hf_detr_ft.evaluation.calibration import calibrate


def test_bins_and_errors_by_hand() -> None:
    # Three around 0.8 of which one is right, one at 1 that is, one at 0.1 that is not.
    score = np.array([0.8, 0.85, 0.89, 1.0, 0.1])
    found = calibrate(score, np.array([1, 0, 0, 1, 0], dtype=bool), threshold=0.79)
    assert found.edges.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert found.count.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 3, 1]
    assert found.score[[1, 8, 9]] == pytest.approx([0.1, 2.54 / 3, 1.0])
    assert found.right[[1, 8, 9]] == pytest.approx([0, 1 / 3, 1])
    assert np.isnan(found.score[0]) and np.isnan(found.right[7])
    assert found.expected_error == pytest.approx((0.1 + (2.54 - 1) + 0) / 5)
    assert found.kept_error == pytest.approx((2.54 - 1) / 4)
    assert (found.kept, found.kept_score, found.kept_right) == (4, pytest.approx(3.54 / 4), 0.5)


def test_scores_that_are_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(100_000)
    right = rng.random(100_000) < score
    assert calibrate(score, right, 0.5).expected_error < 0.02
    sure = calibrate(np.sqrt(score), right, 0.5)
    # The mean of sqrt(s) less that of s.
    assert sure.expected_error == pytest.approx(2 / 3 - 1 / 2, abs=0.01)
    assert sure.kept_score > sure.kept_right


def test_nothing_counts() -> None:
    none = calibrate(np.zeros(0), np.zeros(0, dtype=bool), 0.5)
    assert none.count.sum() == none.kept == 0
    assert none.expected_error is none.kept_error is none.kept_score is none.kept_right is None
    low = calibrate(np.array([0.2]), np.array([False]), 0.5)
    assert (low.expected_error, low.kept_error, low.kept) == (0.2, None, 0)
