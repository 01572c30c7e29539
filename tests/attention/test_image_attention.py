"""Detections and points chosen for attention maps, and where the packaged tiny DETR attends."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image
from transformers import DetrForObjectDetection, DetrImageProcessor

from hf_detr_ft.attention.attention_plots import plot_attention
from hf_detr_ft.attention.image_attention import (
    ImageAttention,
    SampledPoints,
    attend,
    choose_detections,
    choose_points,
    queries_of,
    share_in_box,
)
from hf_detr_ft.attention.recorded_forward import record_attention
from hf_detr_ft.data.images import decode_rgb
from hf_detr_ft.errors import CheckpointError, DataError
from hf_detr_ft.inference.detect import ImageDetections, detect, load_detector, prepare
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.synthetic.render import render
from tests.families import tiny_model
from tests.fixtures import CLASSES, plain_image, tiny_detr_with_spread_weights, tiny_processor

PHOTOS = 30
SIZES = ((160, 213), (213, 160), (180, 180), (160, 284))


def detections(*entries: tuple[tuple[float, ...], int, float]) -> ImageDetections:
    """Detections from boxes, labels and scores."""
    boxes, labels, scores = zip(*entries, strict=True)
    return ImageDetections(np.array(scores, np.float32), np.array(labels), np.array(boxes, np.float32))


# The packaged model


@pytest.fixture(scope="module")
def tiny() -> tuple[DetrForObjectDetection, DetrImageProcessor]:
    return load_detector("package:hf_detr_ft/tiny_detr")


def photos_of_one_object(names: list[str]) -> Iterator[tuple[Image.Image, str, np.ndarray]]:
    """Drawn photos of four shapes with a single object: the photo, its class and its box xyxy."""
    found = index = 0
    while found < PHOTOS:
        photo = render(index, seed=7, classes=names, size=SIZES[index % len(SIZES)])
        index += 1
        if len(photo.objects) == 1:
            found += 1
            x, y, w, h = photo.objects[0].box_xywh_px
            yield Image.fromarray(photo.image), photo.objects[0].name, np.array([x, y, x + w, y + h])


def peak_in_box(weights: np.ndarray, box_xyxy_px: np.ndarray, size: tuple[int, int]) -> bool:
    """True where the middle of the cell with the largest weight lies in the box."""
    row, column = np.unravel_index(weights.argmax(), weights.shape)
    x, y = (column + 0.5) * size[1] / weights.shape[1], (row + 0.5) * size[0] / weights.shape[0]
    return bool(box_xyxy_px[0] <= x <= box_xyxy_px[2] and box_xyxy_px[1] <= y <= box_xyxy_px[3])


def test_the_decoder_looks_at_the_object(tiny: tuple[DetrForObjectDetection, DetrImageProcessor]) -> None:
    """Its attention for the best detection peaks in the true box, which is a tenth of the photo, and lies there.

    The control is the next photo's map, which knows where objects like to be, but not where this one is.
    """
    model, processor = tiny
    names = list((model.config.id2label or {}).values())
    photos = list(photos_of_one_object(names))
    assert len({name for _, name, _ in photos}) >= 9
    maps, boxes, sizes = [], [], []
    for image, _, box_xyxy_px in photos:
        attention = attend(model, processor, image, most=1)
        maps.append(attention.cross_map(0))
        boxes.append(box_xyxy_px)
        sizes.append(attention.size)
    assert all(maps[0].shape == one.shape for one in maps)

    def hits(own: list[np.ndarray]) -> int:
        return sum(peak_in_box(*both) for both in zip(own, boxes, sizes, strict=True))

    def shares(own: list[np.ndarray]) -> float:
        return float(np.median([share_in_box(*both) for both in zip(own, boxes, sizes, strict=True)]))

    other = maps[1:] + maps[:1]
    assert shares([np.full_like(one, 1 / one.size) for one in maps]) < 0.15
    assert hits(maps) >= 0.85 * PHOTOS
    assert hits(other) <= 0.4 * PHOTOS
    assert shares(maps) > 0.7
    assert shares(other) < 0.3


def test_the_detections_are_those_of_every_other_way(tiny: tuple[DetrForObjectDetection, DetrImageProcessor]) -> None:
    model, processor = tiny
    image = Image.fromarray(render(16, seed=5, classes=("bottle", "cone", "mug"), size=(180, 240)).image)
    (expected,) = detect(model, processor, [image])
    found = attend(model, processor, image)
    assert len(found) > 1
    np.testing.assert_array_equal(found.scores, expected.scores[found.queries])
    np.testing.assert_array_equal(found.labels, expected.labels[found.queries])
    np.testing.assert_array_equal(found.boxes_xyxy_px, expected.boxes_xyxy_px[found.queries])
    assert (np.diff(found.scores) <= 0).all()


def test_real_photos(tiny: tuple[DetrForObjectDetection, DetrImageProcessor], balloon: Path) -> None:
    model, processor = tiny
    paths = sorted((balloon / "val2017").glob("*.jpg"))[::4]
    assert len(paths) >= 3
    for path in paths:
        image = decode_rgb(path)
        attention = attend(model, processor, image, threshold=0.3)
        np.testing.assert_allclose(attention.cross.sum((-2, -1)), 1, atol=1e-5)
        np.testing.assert_allclose(attention.encoder.sum((-2, -1)), 1, atol=1e-5)
        assert attention.size == (image.height, image.width)
        assert (attention.points_xy_px > 0).all() and (attention.points_xy_px < image.size).all()


# attend


@pytest.mark.parametrize("shape", [(90, 150), (150, 90), (64, 64), (40, 200), (1, 1)])
def test_shapes_of_what_comes_back(shape: tuple[int, int]) -> None:
    attention = attend(
        tiny_detr_with_spread_weights(), tiny_processor(), plain_image(*shape, seed=1), threshold=0.0, most=3
    )
    count = len(attention)
    points = len(attention.points_xy_px)
    h, w = attention.encoder.shape[1:]
    assert 1 <= count <= 3 and count <= points <= count + 1
    assert attention.size == shape
    assert attention.queries.shape == attention.labels.shape == attention.scores.shape == (count,)
    assert attention.boxes_xyxy_px.shape == (count, 4)
    assert attention.cross.shape == (2, count, 4, h, w)
    assert attention.encoder.shape == (points, h, w)
    assert attention.point_of.tolist() == [*range(count), -1][:points]
    np.testing.assert_allclose(attention.cross.sum((-2, -1)), 1, atol=1e-5)
    np.testing.assert_allclose(attention.encoder.sum((-2, -1)), 1, atol=1e-5)
    np.testing.assert_allclose(attention.cross_map(0), attention.cross[1, 0].mean(axis=0))
    np.testing.assert_array_equal(attention.cross_map(0, 0, 2), attention.cross[0, 0, 2])


def test_points_are_given_in_pixels_of_the_image() -> None:
    model, processor = tiny_detr_with_spread_weights(), tiny_processor()
    image = plain_image(120, 180, 0)
    points = np.array([[10, 110], [170, 10], [90, 60]])
    attention = attend(model, processor, image, points_xy_px=points)
    recorded = record_attention(model, prepare(image, processor))
    assert recorded.size == (3, 5)
    cells = np.array([[0.1, 5 / 6], [0.9, 1 / 6], [0.5, 0.5]])
    np.testing.assert_array_equal(attention.encoder, recorded.self_attention(cells).mean(axis=1))
    assert len(np.unique(attention.encoder.reshape(3, -1), axis=0)) == 3
    assert attention.point_of.tolist() == [-1, -1, -1]


def test_the_background_is_no_detection_that_is_not_shown(
    tiny: tuple[DetrForObjectDetection, DetrImageProcessor],
) -> None:
    model, processor = tiny
    image = Image.fromarray(render(16, seed=5, classes=("bottle", "cone", "mug", "umbrella"), size=(180, 240)).image)
    (found,) = detect(model, processor, [image])
    boxes_xyxy_px = found.above(0.5).boxes_xyxy_px
    assert len(boxes_xyxy_px) >= 3
    attention = attend(model, processor, image, most=1)
    assert attention.point_of.tolist() == [0, -1]
    x, y = attention.points_xy_px[1]
    assert not any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes_xyxy_px)


def test_without_encoder_layers_there_are_no_points() -> None:
    attention = attend(tiny_detr_with_spread_weights(encoder_layers=0), tiny_processor(), plain_image(90, 150, 0))
    assert attention.points_xy_px.shape == (0, 2)
    assert len(attention.encoder) == len(attention.point_of) == 0


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_shows_what_its_detections_read(family: str) -> None:
    model, photo = tiny_model(family), plain_image(64, 64, seed=0)
    processor = getattr(transformers, FAMILIES[family].processor)(size={"height": 64, "width": 64})
    if not hasattr(getattr(model, "model", None), "decoder"):
        with pytest.raises(CheckpointError, match="found one without"):
            attend(model, processor, photo)
        return
    attended = attend(model, processor, photo, threshold=0)
    assert len(attended) and (np.diff(attended.scores) <= 0).all()
    found = detect(model, processor, [photo])[0]
    best = found.scores.argmax()
    np.testing.assert_allclose(attended.scores[0], found.scores[best], rtol=1e-5)
    np.testing.assert_allclose(attended.boxes_xyxy_px[0], found.boxes_xyxy_px[best], rtol=1e-4, atol=1e-3)
    assert attended.labels[0] == found.labels[best]
    if attended.sampled is None:
        np.testing.assert_allclose(attended.cross.sum((-2, -1)), 1, atol=1e-4)
        assert len(attended.encoder)
    else:
        assert attended.cross.size == len(attended.encoder) == 0
        points, weights = attended.sampled.of(0)
        assert points.shape == (len(weights), 2) and weights.sum() == pytest.approx(1, abs=1e-4)
    assert 0 <= attended.share_in_own_box(0) <= 1.001
    assert plot_attention(photo, attended, CLASSES, family).axes


def test_points_that_are_read_are_given_in_pixels_of_the_photo() -> None:
    model, photo = tiny_model("deformable_detr"), plain_image(64, 128, seed=0)
    processor = transformers.DeformableDetrImageProcessor(size={"height": 64, "width": 128})
    attended = attend(model, processor, photo, threshold=0, most=1)
    points, _ = record_attention(model, prepare(photo, processor)).sampled_points(attended.queries)
    assert attended.sampled is not None
    np.testing.assert_allclose(attended.sampled.points_xy_px, points * (128, 64), rtol=1e-5)


def test_the_share_of_points_in_a_box_is_that_of_their_weights() -> None:
    points = np.array([[[[[1, 1], [9, 9]], [[2, 3], [-5, 1]]]]], np.float32)  # of 2 heads
    weights = np.array([[[[0.25, 0.75], [0.5, 0.5]]]], np.float32)
    none = np.zeros((0, 2))
    attended = ImageAttention(
        *((10, 10), 0.5, np.array([0]), np.array([0]), np.array([0.9])),
        *(np.array([[0, 0, 4, 4]]), np.zeros((1, 1, 2, 0, 0)), none, none[:, 0], none, SampledPoints(points, weights)),
    )
    assert attended.share_in_own_box(0) == pytest.approx((0.25 + 0.5) / 2)
    assert attended.share_in_own_box(0, head=1) == pytest.approx(0.5)


def test_the_attention_of_a_given_detection_is_that_of_its_query(
    tiny: tuple[DetrForObjectDetection, DetrImageProcessor],
) -> None:
    model, processor = tiny
    image = Image.fromarray(render(3, seed=7, size=(160, 213)).image)
    found = detect(model, processor, [image])[0]
    wanted = found.at(np.array([20, 7]))
    attention = attend(model, processor, image, shown=wanted)
    assert attention.queries.tolist() == [20, 7]
    assert attention.labels is wanted.labels and attention.scores is wanted.scores


def test_the_second_class_of_a_query_keeps_its_name() -> None:
    boxes = np.array([[0, 0, 9, 9], [5, 5, 20, 20]], np.float32)
    pairs = detections(((5, 5, 20, 20), 1, 0.6), ((5, 5, 20, 20), 0, 0.3), ((0, 0, 9, 9), 1, 0.2))
    assert queries_of(pairs, ImageDetections(np.ones(2, np.float32), np.zeros(2, int), boxes)).tolist() == [1, 1, 0]


def test_a_model_without_a_decoder_is_refused() -> None:
    model = tiny_model("detr")
    del model.model.decoder
    with pytest.raises(CheckpointError, match=r"DETR: expected a model with a decoder .*, found one without"):
        attend(model, tiny_processor(), plain_image(64, 64, seed=0))


def test_an_image_that_cannot_be_resized_is_named() -> None:
    with pytest.raises(DataError, match="line.png"):
        attend(tiny_detr_with_spread_weights(), tiny_processor(), Image.new("RGB", (5000, 1)), name="line.png")


# Choosing


def test_other_classes_come_before_more_of_a_class() -> None:
    found = detections(
        ((0, 0, 10, 10), 0, 0.6), ((50, 0, 60, 10), 1, 0.9), ((0, 50, 10, 60), 1, 0.8), ((50, 50, 60, 60), 2, 0.7)
    )
    assert choose_detections(found, 0.5, 4).tolist() == [1, 2, 3, 0]
    assert choose_detections(found, 0.5, 3).tolist() == [1, 3, 0]
    assert choose_detections(found, 0.5, 1).tolist() == [1]
    assert choose_detections(found, 0.65, 4).tolist() == [1, 2, 3]


def test_one_place_is_not_shown_twice() -> None:
    """Whatever the second one's class, and also where it overlaps with one that is not shown itself."""
    found = detections(
        ((0, 0, 10, 10), 0, 0.9), ((0, 0, 10, 9), 1, 0.8), ((0, 5, 10, 15), 0, 0.7), ((2, 2, 4, 4), 0, 0.6)
    )
    assert choose_detections(found, 0.5).tolist() == [0, 2, 3]


def test_without_any_above_the_threshold_the_best_query_is_chosen() -> None:
    found = detections(((0, 0, 10, 10), 0, 0.2), ((0, 0, 10, 10), 1, 0.5), ((20, 20, 30, 30), 2, 0.1))
    assert choose_detections(found, 0.5).tolist() == [1]


def test_boxes_without_an_area_are_chosen_too() -> None:
    found = detections(((5, 5, 5, 5), 0, 0.9), ((5, 5, 5, 5), 0, 0.8))
    assert choose_detections(found, 0.5).tolist() == [0, 1]


def test_points_are_centres_and_the_middle_of_the_background() -> None:
    boxes = np.array([[10, 20, 30, 60], [-20, 0, 40, 100]], np.float32)
    points, point_of = choose_points(boxes, boxes, (100, 300))
    assert points[:2].tolist() == [[20, 40], [20, 50]]
    assert point_of.tolist() == [0, 1, -1]
    x, y = points[2]
    # As far as can be from the boxes and from the border: in a strip 260 wide and 100 high, in its middle line.
    assert y == pytest.approx(50, abs=2)
    assert 40 + 48 <= x <= 300 - 48


def test_the_background_is_where_no_detection_is_shown_or_not() -> None:
    shown, taken = np.array([[0, 0, 20, 20]]), np.array([[0, 0, 20, 20], [40, 0, 200, 100]])
    points, _ = choose_points(shown, taken, (100, 200))
    assert points[-1, 0] < 40
    assert not (points[-1] < 20).all()


def test_boxes_everywhere_leave_no_background() -> None:
    boxes = np.array([[-5.0, -5, 110, 210]])
    points, point_of = choose_points(boxes, boxes, (200, 100))
    assert points.tolist() == [[50, 100]]
    assert point_of.tolist() == [0]


def test_without_detections_the_middle_of_the_image_is_background() -> None:
    points, point_of = choose_points(np.zeros((0, 4)), np.zeros((0, 4)), (200, 200))
    assert point_of.tolist() == [-1]
    np.testing.assert_allclose(points, [[100, 100]], atol=2)


def test_share_in_box() -> None:
    weights = np.array([[0.1, 0.2, 0.0], [0.3, 0.0, 0.4]])
    size = (20, 30)
    assert share_in_box(weights, np.array([0, 0, 30, 20]), size) == pytest.approx(1)
    assert share_in_box(weights, np.array([-9, -9, 99, 99]), size) == pytest.approx(1)
    assert share_in_box(weights, np.array([0, 0, 10, 10]), size) == pytest.approx(0.1)
    assert share_in_box(weights, np.array([20, 10, 30, 20]), size) == pytest.approx(0.4)
    assert share_in_box(weights, np.array([0, 5, 15, 20]), size) == pytest.approx(0.5 * (0.1 + 0.1) + 0.3)
    assert share_in_box(weights, np.array([40, 0, 50, 20]), size) == 0
    assert share_in_box(np.full((2, 3), 1 / 6), np.array([3, 4, 9, 10]), size) == pytest.approx(36 / 600)
