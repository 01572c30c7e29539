import numpy as np
import pytest
from PIL import Image

from hf_detr_ft.plots.draw_boxes import class_colour, draw_detections, text_colour

GREY = (120, 120, 120)


def changed(drawn: Image.Image, colour: tuple[int, int, int] = GREY) -> np.ndarray:
    """Mask of what was drawn on an image of one colour, `[h, w]`."""
    return (np.asarray(drawn) != colour).any(axis=-1)


def luminance(colour: tuple[int, int, int]) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in np.array(colour) / 255]
    return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))


def test_the_original_stays_and_the_resolution_too():
    image = Image.new("RGB", (321, 123), GREY)
    drawn = draw_detections(image, np.array([[20.0, 40, 100, 100]]), ["disc 0.9"], [0])
    assert drawn.size == image.size
    assert drawn.mode == "RGB"
    assert changed(drawn).any()
    assert not changed(image).any()


def test_nothing_found_nothing_drawn():
    image = Image.new("RGB", (50, 40), GREY)
    drawn = draw_detections(image, np.zeros((0, 4)), [], [])
    assert not changed(drawn).any()
    assert drawn is not image


def test_lines_are_on_the_box_in_the_colour_of_its_class():
    drawn = np.asarray(draw_detections(Image.new("RGB", (400, 300), GREY), np.array([[100, 80, 300, 200]]), ["a"], [3]))
    for x, y in ((100, 150), (300, 150), (200, 200), (250, 80)):
        assert tuple(drawn[y, x]) == class_colour(3).as_rgb()
    assert tuple(drawn[150, 200]) == GREY
    assert tuple(drawn[250, 200]) == GREY


@pytest.mark.parametrize(
    "box", [(-30, -20, 60, 50), (350, 260, 450, 320), (0, 0, 400, 300), (390, 0, 400, 8), (0, 290, 5, 300)]
)
def test_a_label_at_the_border_is_moved_inside(box: tuple[int, ...]):
    """No fewer letters are seen than in the middle of the image."""
    image = Image.new("RGB", (400, 300), GREY)

    def letters(boxes_xyxy_px: np.ndarray) -> int:
        pixels = np.asarray(draw_detections(image, boxes_xyxy_px, ["balloon 0.98"], [0])).astype(int)
        letter = text_colour(class_colour(0)).as_rgb()
        return int((np.abs(pixels - letter).sum(axis=-1) < 60).sum())

    assert letters(np.array([box])) == letters(np.array([[100, 100, 250, 200]])) > 50


def test_labels_of_one_place_stay_there_the_last_in_full_others_with_their_score_or_not_at_all():
    image, boxes = Image.new("RGB", (800, 600), GREY), np.array([[300, 300, 360, 340]] * 30)
    marks = changed(draw_detections(image, boxes, [f"balloon 0.{number}" for number in range(10, 40)], range(30)))
    rows, columns = np.nonzero(marks)
    assert rows.min() >= 300 - 30 and rows.max() <= 340 + 30
    assert columns.min() >= 300 - 150 and columns.max() <= 360 + 150
    alone = changed(draw_detections(image, boxes[-1:], ["balloon 0.39"], [29]))
    assert marks[alone].all() and marks.sum() > 2 * alone.sum()


def test_lines_and_letters_grow_with_the_photo():
    def heights(side: int) -> tuple[int, int]:
        """Thickness of the bottom line and height of the label, in pixels, on a square image."""
        box = np.array([[0.2, 0.2, 0.8, 0.8]]) * side
        marks = changed(draw_detections(Image.new("RGB", (side, side), GREY), box, ["a 1"], [0]))
        return int(marks[side // 2 :, side // 2].sum()), int(marks[: side // 2, round(0.21 * side)].sum())

    (line, label), (large_line, large_label) = heights(1000), heights(4000)
    assert 2 * line < large_line < 5 * line
    assert 3 * label < large_label < 5 * label


def test_a_long_text_is_made_to_fit_into_a_narrow_image():
    drawn = draw_detections(
        Image.new("RGB", (120, 400), GREY), np.array([[10, 100, 100, 300]]), ["a long name 0.98123"], [0]
    )
    label = changed(drawn)[90]
    assert label.sum() > 90
    assert not label[0]  # one that is too wide starts at the left border and is cut off at the right


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (12, 9)])
def test_tiny_images(size: tuple[int, int]):
    box = np.array([[0, 0, *size]], dtype=np.float64)
    assert draw_detections(Image.new("RGB", size), box, ["balloon 0.91"], [0]).size == size


def test_letters_outside_ascii_are_drawn():
    image = Image.new("RGB", (400, 300), GREY)
    box = np.array([[100, 100, 250, 200]])
    pictures = {draw_detections(image, box, [text], [0]).tobytes() for text in ("é", "ж", "?", "ß")}
    assert len(pictures) == 4


def test_many_boxes_of_sparse_classes():
    rng = np.random.default_rng(0)
    boxes = rng.random((100, 4)) * 200
    boxes[:, 2:] += boxes[:, :2]
    drawn = draw_detections(Image.new("RGB", (400, 300), GREY), boxes, ["x 0.5"] * 100, rng.integers(0, 90, 100))
    assert changed(drawn).any()


def test_a_class_has_its_colour_whatever_else_is_in_the_image():
    image, boxes = Image.new("RGB", (400, 300), GREY), np.array([[50, 50, 150, 250], [200, 50, 350, 250]])
    both = np.asarray(draw_detections(image, boxes, ["a", "b"], [1, 7]))
    alone = np.asarray(draw_detections(image, boxes[1:], ["b"], [7]))
    assert tuple(both[150, 200]) == tuple(alone[150, 200]) == class_colour(7).as_rgb()


def test_colours_of_classes_are_told_apart_and_their_text_is_readable():
    colours = [class_colour(index).as_rgb() for index in range(91)]
    assert len(set(colours)) == 91
    first = np.array(colours[:24], dtype=float)
    distances = np.linalg.norm(first[:, None] - first[None], axis=-1) + 1000 * np.eye(24)
    assert distances.min() > 30
    for colour in map(class_colour, range(91)):
        luminances = luminance(colour.as_rgb()), luminance(text_colour(colour).as_rgb())
        assert (max(luminances) + 0.05) / (min(luminances) + 0.05) > 4.5  # WCAG's AA
