import hashlib
import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.augmented import Augmentation, Augmented
from hf_detr_ft.recipe.sections import AugmentConfig

NOTHING = {
    "horizontal_flip": 0.0,
    "vertical_flip": 0.0,
    "random_crop": 0.0,
    "multi_scale": False,
    "color_jitter": 0.0,
    "rotate": 0.0,
    "min_visibility": 0.0,
}
EVERYTHING = {
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "random_crop": 0.5,
    "multi_scale": True,
    "color_jitter": 1.0,
    "rotate": 180.0,
}
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]])
GRID = [
    [20, 20, 60, 50],
    [120, 30, 40, 70],
    [220, 15, 80, 40],
    [15, 130, 50, 90],
    [110, 150, 90, 60],
    [240, 120, 55, 100],
]
"""Boxes xywh on an image of 240 x 320, apart from each other."""


def knobs(shortest_edge: int = 240, **given: float) -> Augmentation:
    """An augmentation that does only what is given."""
    return build_augmentation(AugmentConfig(preset="none", **{**NOTHING, **given}), shortest_edge)


def coloured_image() -> np.ndarray:
    """Grey, each box of `GRID` filled with the colour of its position."""
    image = np.full((240, 320, 3), 128, dtype=np.uint8)
    for (x, y, w, h), colour in zip(GRID, COLOURS, strict=True):
        image[y : y + h, x : x + w] = colour
    return image


def ruler_image(height: int, width: int) -> np.ndarray:
    """Red tells x and green tells y, so that what is left of an image says where it was."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0], image[..., 1] = np.arange(width)[None], np.arange(height)[:, None]
    return image


def window_of(ruler: np.ndarray) -> np.ndarray:
    """(left, top, right, bottom) of a part of `ruler_image` in pixels of the whole, to about a pixel."""
    values = ruler[..., :2].reshape(-1, 2).astype(float)
    return np.concatenate([values.min(axis=0), values.max(axis=0) + 1])


def assert_sound(result: Augmented, given: int) -> None:
    height, width = result.image.shape[:2]
    boxes = result.boxes_xywh_px
    assert result.image.dtype == np.uint8
    assert result.image.flags.c_contiguous
    assert result.image.shape == (height, width, 3)
    assert boxes.dtype == np.float32
    assert boxes.shape == (len(result.kept), 4)
    assert result.kept.dtype == np.int64
    assert len(set(result.kept.tolist())) == len(result.kept)
    assert set(result.kept.tolist()) <= set(range(given))
    assert np.isfinite(boxes).all()
    assert (boxes >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= np.array([width, height]) * (1 + 1e-6)).all()


@pytest.mark.parametrize(
    ("shortest_edge", "edges", "crop_edges", "crop_range"),
    [
        (800, [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800], [400, 500, 600], (384, 600)),
        (480, [288, 307, 326, 346, 365, 384, 403, 422, 442, 461, 480], [240, 300, 360], (230, 360)),
    ],
)
def test_preset_detr_draws_the_sizes_of_the_original(
    shortest_edge: int, edges: list[int], crop_edges: list[int], crop_range: tuple[int, int]
) -> None:
    augmentation = build_augmentation(AugmentConfig(), shortest_edge)
    image, box = ruler_image(60, 80), [[35, 25, 10, 10]]
    drawn: Counter[int] = Counter()
    scales: Counter[int] = Counter()
    sides = []
    for seed in range(200):
        result = augmentation(image, np.array(box), seed)
        drawn[result.shortest_edge] += 1
        if result.image.shape[:2] != (60, 80):
            sides += result.image.shape[:2]
            window = window_of(result.image)
            if len(result.kept) and window[0] < 34 and window[2] > 46 and window[1] < 24 and window[3] > 36:
                measured = np.sqrt(result.boxes_xywh_px[0, 2:].prod()) / 10 * 60
                scales[min(crop_edges, key=lambda edge: abs(edge - measured))] += 1
                assert min(abs(edge / measured - 1) for edge in crop_edges) < 0.02
                assert result.boxes_xywh_px[0, 2] == pytest.approx(result.boxes_xywh_px[0, 3], rel=0.04)
    assert sorted(drawn) == edges
    assert min(drawn.values()) > 200 / 11 / 3
    assert sorted(scales) == crop_edges
    low, high = crop_range
    assert low <= min(sides) < low * 1.03
    assert high >= max(sides) > high * 0.97


def test_preset_detr_flips_and_crops_half_of_the_images_each_whatever_else_is_drawn() -> None:
    augmentation = build_augmentation(AugmentConfig(), 96)
    image = ruler_image(60, 80)
    seen: Counter[tuple[bool, bool, bool]] = Counter()
    for seed in range(400):
        result = augmentation(image, np.zeros((0, 4)), seed)
        red = result.image[..., 0].astype(int)
        seen[
            bool(red[:, 0].mean() > red[:, -1].mean()), result.image.shape[:2] != (60, 80), result.shortest_edge < 77
        ] += 1
    assert len(seen) == 8
    assert all(25 <= count <= 80 for count in seen.values()), seen


def test_preset_light_flips_and_changes_colours_but_not_the_size() -> None:
    augmentation = build_augmentation(AugmentConfig(preset="light"), 96)
    results = [augmentation(coloured_image(), np.array(GRID), seed) for seed in range(60)]
    assert {result.image.shape for result in results} == {(240, 320, 3)}
    assert {result.shortest_edge for result in results} == {96}
    flipped = sum(bool(result.boxes_xywh_px[0, 0] != GRID[0][0]) for result in results)
    assert 18 <= flipped <= 42
    changed = sum(bool(abs(int(result.image[0, 0, 0]) - 128) > 2) for result in results)
    assert 20 <= changed <= 58


def test_preset_none_leaves_image_and_boxes() -> None:
    augmentation = build_augmentation(AugmentConfig(preset="none"), 96)
    result = augmentation(coloured_image(), np.array(GRID), 5)
    assert np.array_equal(result.image, coloured_image())
    assert result.boxes_xywh_px == pytest.approx(np.array(GRID))
    assert result.kept.tolist() == [0, 1, 2, 3, 4, 5]
    assert result.shortest_edge == 96


def test_a_knob_goes_before_its_preset() -> None:
    augmentation = build_augmentation(AugmentConfig(horizontal_flip=0.0, random_crop=0.0, multi_scale=False), 96)
    results = [augmentation(coloured_image(), np.array(GRID), seed) for seed in range(20)]
    assert all(np.array_equal(result.image, coloured_image()) for result in results)
    assert {result.shortest_edge for result in results} == {96}


@pytest.mark.parametrize(
    "given",
    [
        {"horizontal_flip": 1.0},
        {"vertical_flip": 1.0},
        {"rotate": 20.0},
        {"rotate": 180.0},
        {"random_crop": 1.0},
        {"random_crop": 1.0, "horizontal_flip": 0.5, "vertical_flip": 0.5},
        {"random_crop": 0.5, "horizontal_flip": 0.5, "vertical_flip": 0.5, "rotate": 90.0, "multi_scale": True},
    ],
    ids=lambda given: "-".join(given),
)
@pytest.mark.parametrize("shortest_edge", [120, 800])
def test_boxes_stay_around_their_objects_and_keep_their_labels(given: dict, shortest_edge: int) -> None:
    augmentation, whole = knobs(shortest_edge, **given), 0
    for seed in range(12):
        result = augmentation(coloured_image(), np.array(GRID), seed)
        assert_sound(result, len(GRID))
        height, width = result.image.shape[:2]
        for (x, y, w, h), index in zip(result.boxes_xywh_px.tolist(), result.kept.tolist(), strict=True):
            # Where a rotated object is cut, its box is that of the rotated box's rest, which is larger than its own.
            if "rotate" in given and not (1 < x < x + w < width - 1 and 1 < y < y + h < height - 1):
                continue
            if min(w, h) < 8:
                continue
            near = np.abs(result.image.astype(int) - COLOURS[index]).max(axis=2) < 64
            rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
            seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            # Interpolation blurs an edge over as many pixels as the image was enlarged, and eats thin corners.
            slack = 2.5 + max(0.0, min(height, width) / 240) + (3 if "rotate" in given else 0)
            assert np.abs(np.array(seen) - [x, y, x + w, y + h]).max() < slack, (seed, index)
            whole += 1
    assert whole > 20


def test_colours_change_and_their_places_do_not() -> None:
    augmentation, image = knobs(color_jitter=0.3), coloured_image()
    different = 0
    for seed in range(20):
        result = augmentation(image, np.array(GRID), seed)
        assert result.boxes_xywh_px == pytest.approx(np.array(GRID))
        assert result.kept.tolist() == list(range(6))
        different += not np.array_equal(result.image, image)
        for (x, y, w, h), colour in zip(GRID, COLOURS, strict=True):
            inside = result.image[y : y + h, x : x + w].reshape(-1, 3)
            assert (inside == inside[0]).all()
            assert np.abs(COLOURS - inside[0]).sum(axis=1).argmin() == COLOURS.tolist().index(colour.tolist())
    assert 10 <= different < 20


def test_a_grey_image_stays_grey_and_changes() -> None:
    grey = np.repeat(np.arange(0, 240, dtype=np.uint8).reshape(12, 20, 1), 3, axis=2)
    results = [knobs(color_jitter=1.0)(grey, np.zeros((0, 4)), seed).image for seed in range(20)]
    for image in results:
        assert np.ptp(image.astype(int), axis=2).max() <= 1
    assert sum(not np.array_equal(image, grey) for image in results) >= 10


def test_a_crop_takes_away_boxes_of_which_too_little_is_left_and_clips_the_others() -> None:
    image, boxes = (
        ruler_image(200, 250),
        np.array([[x, y, 40, 40] for x in range(0, 210, 15) for y in range(0, 160, 15)]),
    )
    labels = np.arange(len(boxes))
    gone = clipped = whole = 0
    for seed in range(12):
        result = knobs(200, random_crop=1.0, min_visibility=0.4)(image, boxes, seed)
        window = window_of(result.image)
        scale = np.array(result.image.shape[1::-1]) / (window[2:] - window[:2])
        low = np.maximum(boxes[:, :2], window[:2])
        high = np.minimum(boxes[:, :2] + boxes[:, 2:], window[2:])
        share = np.clip(high - low, 0, None).prod(axis=1) / 1600
        assert set(labels[share > 0.46]) <= set(result.kept.tolist())
        assert not set(labels[share < 0.34]) & set(result.kept.tolist())
        expected = np.concatenate([low - window[:2], high - low], axis=1) * np.tile(scale, 2)
        assert np.abs(result.boxes_xywh_px - expected[result.kept]).max() < 3 * scale.max() + 1
        gone += int(((share > 0.05) & (share < 0.34)).sum())
        clipped += int(((share > 0.46) & (share < 0.95)).sum())
        whole += int((share > 0.99).sum())
    assert min(gone, clipped, whole) > 30


def fix_window(monkeypatch: pytest.MonkeyPatch, left: int, top: int, right: int, bottom: int, size: int) -> None:
    """Makes every crop this window, resized to a square of `size`."""
    along = iter([(top, bottom, size), (left, right, size)] * 100)
    monkeypatch.setattr(Augmentation, "_draw", lambda *_: next(along))


@pytest.mark.parametrize("size", [17, 50, 400])
@pytest.mark.parametrize("min_visibility", [0.1, 0.5, 1.0])
def test_the_share_is_of_the_box_before_the_crop_at_any_scale(
    monkeypatch: pytest.MonkeyPatch, size: int, min_visibility: float
) -> None:
    fix_window(monkeypatch, 0, 0, 50, 50, size)
    exact, below = 50 - 10 * min_visibility, 50.01 - 10 * min_visibility
    boxes = [
        [exact, 5, 10, 10],
        [below, 5, 10, 10],
        [5, exact, 10, 10],
        [5, below, 10, 10],
        [0, 0, 50, 50],
        [49, 49, 1, 1],
    ]
    result = knobs(random_crop=1.0, min_visibility=min_visibility)(ruler_image(100, 100), np.array(boxes), 0)
    assert result.kept.tolist() == [0, 2, 4, 5]
    factor = size / 50
    left = 10 * min_visibility * factor
    wanted = [[exact * factor, 5 * factor, left, 10 * factor], [5 * factor, exact * factor, 10 * factor, left]]
    assert result.boxes_xywh_px[:2] == pytest.approx(np.array(wanted), abs=1e-3)
    assert result.boxes_xywh_px[2:] == pytest.approx(np.array([[0, 0, size, size], [size - factor] * 2 + [factor] * 2]))


def test_the_share_is_what_rotation_and_crop_leave_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # Turned by 45 degrees, the corner's box is 28.28 wide and sticks out at the top: 0.268 of it is left. The window
    # takes half of that, so that 0.134 is left, though neither step alone takes more than 0.75.
    corner = np.array([[0.0, 0.0, 20.0, 20.0]])
    for min_visibility, kept in ((0.13, [0]), (0.14, [])):
        fix_window(monkeypatch, 0, 0, 50, 100, 50)
        augmentation = knobs(random_crop=1.0, rotate=45.0, min_visibility=min_visibility)
        (rotate,) = (step for step in augmentation.pipeline.transforms if type(step).__name__ == "Rotate")
        rotate.limit = (-45.0, -45.0)
        assert augmentation(ruler_image(100, 100), corner, 0).kept.tolist() == kept


def test_without_min_visibility_every_rest_stays_as_in_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_window(monkeypatch, 0, 0, 50, 50, 100)
    result = knobs(random_crop=1.0)(ruler_image(100, 100), np.array([[49.9, 0, 40, 40], [50, 0, 40, 40]]), 0)
    assert result.kept.tolist() == [0]
    assert result.boxes_xywh_px[0] == pytest.approx([99.8, 0, 0.2, 80], abs=1e-4)


NAN, INF = float("nan"), float("inf")
USABLE = [
    [0, 0, 12, 9],  # the whole image
    [0, 0, 3, 3],
    [9, 6, 3, 3],  # touches right and bottom
    [-5, -5, 10, 10],
    [8, 5, 100, 100],
    [-100, 2, 1000, 3],  # wider than the image
    [-1e30, -1e30, 2e30, 2e30],
    [0, 0, 1, 1],
    [11, 8, 1, 1],
    [11.999, 8.999, 1, 1],
    [3.3, 3.3, 0.01, 0.01],
]
UNUSABLE = [
    [3, 3, 0, 5],
    [3, 3, 5, 0],
    [3, 3, -2, 5],
    [5, 5, -3, -3],
    [12, 0, 5, 5],
    [0, 9, 5, 5],
    [-7, 0, 7, 5],
    [50, 50, 5, 5],
    [NAN, 0, 5, 5],
    [0, 0, NAN, 5],
    [-INF, 0, INF, 5],
    [0, 0, INF, 5],
    [3, 3, 1e-30, 5],
    [3, 3, 1e-7, 1e-7],
]


def test_boxes_without_an_area_inside_the_image_go_and_the_others_are_clipped() -> None:
    boxes = np.array([*UNUSABLE, *USABLE, *UNUSABLE], dtype=float)
    given = boxes.copy()
    result = knobs()(ruler_image(9, 12), boxes, 0)
    assert_sound(result, len(boxes))
    assert result.kept.tolist() == list(range(len(UNUSABLE), len(UNUSABLE) + len(USABLE)))
    clipped = [[0, 0, 12, 9], [0, 0, 3, 3], [9, 6, 3, 3], [0, 0, 5, 5], [8, 5, 4, 4], [0, 2, 12, 3], [0, 0, 12, 9]]
    assert result.boxes_xywh_px[:7] == pytest.approx(np.array(clipped), abs=1e-5)
    assert np.array_equal(boxes, given, equal_nan=True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 3), (9, 12), (1, 4000), (60, 40)])
@pytest.mark.parametrize("min_visibility", [0.0, 0.1, 1.0])
def test_no_box_and_no_image_crashes_it(shape: tuple[int, int], min_visibility: float) -> None:
    augmentation = build_augmentation(AugmentConfig(**EVERYTHING, min_visibility=min_visibility), 48)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    for seed in range(40):
        wild = rng.normal(0, 1, (len(USABLE), 4)) * 10.0 ** rng.integers(-8, 6, (len(USABLE), 4))
        boxes = np.concatenate([np.array([*USABLE, *UNUSABLE]), wild])
        result = augmentation(image, boxes, seed)
        assert_sound(result, len(boxes))
        assert max(result.image.shape) <= max(36, *shape)


@pytest.mark.parametrize("count", [0, 1, 300])
def test_any_number_of_objects(count: int) -> None:
    rng = np.random.default_rng(0)
    boxes = rng.uniform((0, 0, 2, 2), (300, 220, 20, 20), (count, 4))
    augmentation = build_augmentation(AugmentConfig(), 240)
    kept = 0
    for seed in range(10):
        result = augmentation(coloured_image(), boxes, seed)
        assert_sound(result, count)
        kept += len(result.kept)
    assert 3 * count <= kept <= 10 * count
    assert augmentation(coloured_image(), [], 0).boxes_xywh_px.shape == (0, 4)


def digest(result: Augmented) -> str:
    parts = (result.image, result.boxes_xywh_px, result.kept, np.array(result.shortest_edge))
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def digests(seeds: list[int]) -> list[str]:
    augmentation = build_augmentation(AugmentConfig(**EVERYTHING), 96)
    return [digest(augmentation(coloured_image(), np.array(GRID), seed)) for seed in seeds]


def test_a_seed_gives_the_same_whatever_was_drawn_before() -> None:
    first = digests([0, 1, 2, 3, 2**32 - 1])
    assert len(set(first)) == 5
    random.seed(7)
    np.random.seed(7)
    state = random.getstate()
    assert digests([2**32 - 1, 3, 2, 1, 0]) == first[::-1]
    assert random.getstate() == state
    assert digests([3]) == first[3:4]


OFFLINE = """
import os, socket
def refuse(*args, **kwargs):
    print("reached for the network")
    os._exit(9)
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
from tests.data.test_augment import digests
print(*digests([0, 5]))
"""


def test_importing_it_stays_off_the_network_and_another_process_draws_the_same() -> None:
    settings = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, env=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == digests([0, 5])


def test_a_crop_of_hundreds_of_small_objects_keeps_many_of_them() -> None:
    boxes = np.array([[24 * (index % 20) + 10, 24 * (index // 20) + 10, 14, 14] for index in range(400)], np.float64)
    augmentation = build_augmentation(AugmentConfig(random_crop=1.0), shortest_edge=512)
    kept = [len(augmentation(np.zeros((500, 500, 3), np.uint8), boxes, seed).kept) for seed in range(20)]
    assert min(kept) > 400 * 0.4 and max(kept) <= 400
