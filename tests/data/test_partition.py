from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hf_detr_ft.data.partition import assign_parts, find_group_key, join_groups, pair_equal

SIZE = 300


@pytest.fixture
def labels() -> np.ndarray:
    """Images of five classes, the rarest on 9, some of none."""
    generator = np.random.default_rng(3)
    return generator.random((SIZE, 5)) < np.array([0.5, 0.2, 0.1, 0.05, 0.03])


def names(count: int = SIZE) -> list[str]:
    return [f"{place}.jpg" for place in range(count)]


def test_images_and_every_class_are_divided_by_the_share(labels: np.ndarray) -> None:
    part = assign_parts(labels, np.arange(SIZE), names(), [0.8, 0.2])
    assert abs((part == 1).sum() - 0.2 * SIZE) <= 3
    assert np.abs(labels[part == 1].sum(axis=0) - 0.2 * labels.sum(axis=0)).max() < 1
    empty = ~labels.any(axis=1)
    assert abs((part[empty] == 1).sum() - 0.2 * empty.sum()) < 1


def test_folds_hold_each_image_once_and_a_share_of_every_class(labels: np.ndarray) -> None:
    part = assign_parts(labels, np.arange(SIZE), names(), [0.2] * 5)
    assert set(part.tolist()) == set(range(5))
    for fold in range(5):
        assert np.abs(labels[part == fold].sum(axis=0) - 0.2 * labels.sum(axis=0)).max() < 1.5
        assert abs((part == fold).sum() - SIZE / 5) <= 3


def test_the_order_of_the_images_plays_no_part(labels: np.ndarray) -> None:
    part = assign_parts(labels, np.arange(SIZE), names(), [0.8, 0.2])
    order = np.random.default_rng(0).permutation(SIZE)
    shuffled = assign_parts(labels[order], np.arange(SIZE), [names()[place] for place in order], [0.8, 0.2])
    assert (shuffled == part[order]).all()


def test_groups_are_never_divided(labels: np.ndarray) -> None:
    groups = np.random.default_rng(1).integers(0, 60, SIZE)
    part = assign_parts(labels, groups, names(), [0.75, 0.25])
    assert all(len(set(part[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    assert abs((part == 1).sum() - 75) <= 8


def test_what_is_joined_twice_is_one_group() -> None:
    assert join_groups(6, [(4, 1), (1, 5), (2, 3)]).tolist() == [0, 1, 2, 2, 1, 1]
    assert pair_equal(["a", None, "b", "a", None]) == [(0, 0), (2, 2), (0, 3)]


def image(file_name: str, **more: Any) -> dict[str, Any]:
    return {"id": 1, "file_name": file_name, **more}


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (image("a.jpg", video_id=1), image("b.jpg", video_id=1), True),
        (image("a.jpg", video_id=1), image("a2.jpg", video_id=2), False),
        (image("clip_frame_001.jpg"), image("clip_frame_002.jpg"), True),
        (image("one/frame_001.png"), image("two/frame_001.png"), False),
        (image("clip_mp4-3_jpg.rf.0a1b.jpg"), image("clip_mp4-12_jpg.rf.9c.jpg"), True),
        (image("photo_jpg.rf.0a1b.jpg"), image("photo_jpg.rf.77.jpg"), True),
        (image("photo_jpg.rf.0a1b.jpg"), image("other_jpg.rf.0a1b.jpg"), False),
    ],
)
def test_frames_and_copies_are_known_by_key_or_name(one: dict, other: dict, together: bool) -> None:
    key = find_group_key(None, [one, other])
    assert (key(one) == key(other)) is together


@pytest.mark.parametrize("name", ["IMG_0001.jpg", "000000000139.jpg", "framework.jpg", "photo.jpg"])
def test_a_photo_of_a_camera_is_no_frame(name: str) -> None:
    assert find_group_key(None, [image(name)])(image(name)) is None


def group(key: Callable[[dict], Any], images: list[dict]) -> list[Any]:
    return [key(entry) for entry in images]


def test_group_by_is_a_key_or_an_expression() -> None:
    images = [image("p1_a.jpg", site="x"), image("p1_b.jpg"), image("p2_a.jpg", site="x"), image("z.jpg", site=None)]
    assert group(find_group_key("site", images), images) == ["x", None, "x", None]
    assert group(find_group_key("^(p[0-9])_", images), images) == [("p1",), ("p1",), ("p2",), None]
    assert group(find_group_key("p[0-9]", images), images) == ["p1", "p1", "p2", None]


@pytest.mark.parametrize("group_by", ["patient", "(", "^q"])
def test_group_by_that_finds_nothing_is_refused(group_by: str) -> None:
    with pytest.raises(ValueError, match="no image has such a key"):
        find_group_key(group_by, [image("p1_a.jpg")])
