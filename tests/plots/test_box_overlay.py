import colorsys

import numpy as np
import pytest
from matplotlib.figure import Figure

from hf_detr_ft.plots.box_overlay import (
    FOUND_STYLE,
    IGNORED_STYLE,
    MISSED_STYLE,
    WRONG_STYLE,
    ComparedPhoto,
    found_colour,
    overlay_boxes,
)
from tests.plots.compared import GREY, compared, kinds, pixels, texts


def draw(photo: ComparedPhoto, names: tuple[str, ...] = ("disc", "box")) -> Figure:
    """The boxes on grey, at the size of their frame; as on a sheet, another axes lies below."""
    height, width = photo.size
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="#787878")
    for _ in range(2):
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
    overlay_boxes(axes, photo, photo.size, names)
    return figure


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))


def at(seen: np.ndarray, x: int, y: int) -> tuple[int, ...]:
    return tuple(seen[y, x].tolist())


def test_each_kind_has_its_own_line_on_the_edges_of_its_boxes() -> None:
    box = (100, 80, 300, 200)
    for outcome, colour in ((1, found_colour(1)), (0, WRONG_STYLE.colour), (-1, IGNORED_STYLE.colour)):
        seen = pixels(draw(compared(predictions=[(box, 1, 0.9, outcome)])))
        for x, y in ((100, 150), (300, 150), (200, 80), (250, 200)):
            assert at(seen, x, y) == rgb(colour), outcome
        assert at(seen, 200, 250) == GREY
        assert at(seen, 350, 140) == GREY


def test_dashes_of_missed_objects_and_of_found_ones_are_told_apart() -> None:
    def on_left_edge(found: bool) -> set[tuple[int, ...]]:
        seen = pixels(draw(compared(objects=[((100, 80, 300, 200), 0, found)])))
        return {at(seen, 100, y) for y in range(90, 190)}

    missed, found = on_left_edge(False), on_left_edge(True)
    assert rgb(MISSED_STYLE.colour) in missed
    assert min(map(max, missed)) < 60, "no dark gaps between the dashes"
    assert (255, 255, 255) in found
    assert min(map(max, found)) < 60, "no dark gaps between the dashes"
    assert rgb(MISSED_STYLE.colour) not in found and (255, 255, 255) not in missed


def test_what_is_missed_or_wrong_is_tinted_and_what_is_right_is_not() -> None:
    def inside(photo: ComparedPhoto) -> tuple[int, ...]:
        return at(pixels(draw(photo)), 200, 140)

    box = (100, 80, 300, 200)
    assert inside(compared(objects=[(box, 0, True)], predictions=[(box, 0, 0.9, 1)])) == GREY
    assert inside(compared(objects=[(box, 0, False)])) != GREY
    assert inside(compared(predictions=[(box, 0, 0.9, 0)])) != GREY


def test_where_a_prediction_fits_its_object_both_are_seen() -> None:
    box = (100, 80, 300, 200)
    seen = pixels(draw(compared(objects=[(box, 0, True)], predictions=[(box, 0, 0.9, 1)])))
    across = {at(seen, x, y) for x in range(97, 104) for y in range(120, 180)}
    assert {rgb(found_colour(0)), (255, 255, 255)} <= across


def test_a_box_over_the_border_is_drawn_along_it() -> None:
    seen = pixels(draw(compared(predictions=[((-50, -80, 900, 700), 0, 0.9, 1)])))
    colour = rgb(found_colour(0))
    assert at(seen, 1, 150) == at(seen, 398, 150) == at(seen, 200, 298) == at(seen, 390, 1) == colour


def test_crowd_regions_are_hatched_and_count_as_neither() -> None:
    photo = compared(crowd=[(50, 50, 350, 250)], predictions=[((100, 100, 200, 200), 0, 0.8, -1)])
    figure = draw(photo)
    assert kinds(figure) == {"crowd": 1, "ignored": 1}
    assert photo.counts.tolist() == [0, 0, 0]
    inside = pixels(figure)[60:90, 60:340]
    assert 0.02 < (inside != GREY).any(axis=-1).mean() < 0.5


def test_labels_name_class_and_score_but_a_single_class_needs_no_name() -> None:
    photo = compared(
        objects=[((10, 100, 60, 160), 0, False)],
        predictions=[((100, 100, 160, 160), 1, 0.876, 1), ((200, 100, 260, 160), 0, 0.5, 0)],
    )
    assert sorted(texts(draw(photo), 0)) == ["box 0.88", "disc", "disc 0.50"]
    one = compared(objects=[((10, 100, 60, 160), 0, False)], predictions=[((100, 100, 160, 160), 0, 0.876, 1)])
    assert texts(draw(one, ("disc",)), 0) == ["0.88"]


def test_a_long_name_is_shortened_and_dollars_are_no_formula() -> None:
    figure = draw(compared(predictions=[((100, 100, 160, 160), 0, 0.9, 1)]), ("a name that goes on and on and on", "b"))
    (label,) = texts(figure, 0)
    assert label.startswith("a name") and label.endswith("and on 0.90") and "…" in label
    figure = draw(compared(predictions=[((100, 100, 160, 160), 0, 0.9, 1)]), ("$x_1$", "b"))
    assert texts(figure, 0) == ["$x_1$ 0.90"]
    assert pixels(figure).min() < 255
    assert not any(text.get_parse_math() for text in figure.axes[1].texts)


def test_labels_lie_in_the_photo_and_on_no_other_label_however_many_there_are() -> None:
    rng = np.random.default_rng(0)
    corners = rng.random((30, 2)) * (340, 250)
    boxes = np.hstack([corners, corners + rng.uniform(20, 60, (30, 2))])
    figure = draw(compared(predictions=[(tuple(box), 0, 0.9, int(i % 2)) for i, box in enumerate(boxes)]))
    patches = [patch for patch in figure.axes[1].patches if patch.get_gid() == "label"]
    areas = np.array([[*patch.get_xy(), patch.get_width(), patch.get_height()] for patch in patches])
    areas[:, 2:] += areas[:, :2]
    assert len(areas) > 15
    assert (areas >= 0).all() and (areas <= (400, 300, 400, 300)).all()
    for index, area in enumerate(areas):
        sides = np.minimum(area[2:], areas[:, 2:]) - np.maximum(area[:2], areas[:, :2])
        assert (sides > 1e-6).all(axis=1).nonzero()[0].tolist() == [index]
    pixels(figure)
    for text, (x0, _, x1, _) in zip(figure.axes[1].texts, areas, strict=True):
        window = text.get_window_extent()
        assert x0 <= window.x0 and window.x1 <= x1 + 1, "letters reach over their label"


def test_one_right_prediction_is_seen_among_many_wrong_ones_at_its_place() -> None:
    box = (100, 80, 300, 200)
    wrong = [(box, 0, 0.4, 0)] * 9
    figure = draw(compared(objects=[(box, 1, True)], predictions=[(box, 1, 0.9, 1), *wrong]))
    assert "box 0.90" in texts(figure, 0)
    seen = pixels(figure)
    edge = {at(seen, x, y) for x in range(185, 215) for y in range(77, 84)}  # between labels
    assert rgb(found_colour(1)) in edge and rgb(WRONG_STYLE.colour) not in edge
    assert at(seen, 200, 140) != rgb(WRONG_STYLE.colour)
    narrow = (0, 0, 60, 26)
    figure = draw(compared((26, 60), predictions=[(narrow, 0, 0.4, 0), (narrow, 0, 0.9, 1)]))
    assert texts(figure, 0) == ["0.90"], "there is room for one label"


def test_lines_of_small_boxes_are_thin_enough_to_see_the_inside() -> None:
    seen = pixels(draw(compared(predictions=[((200, 150, 210, 160), 0, 0.9, 1)])))
    assert at(seen, 202, 155) == at(seen, 207, 155) == at(seen, 205, 152) == GREY


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3)])
def test_tiny_photos(size: tuple[int, int]) -> None:
    photo = compared(size, objects=[((0, 0, size[1], size[0]), 0, True)], predictions=[((0, 0, 1, 1), 0, 0.9, 1)])
    assert kinds(draw(photo)) == {"found": 1, "truth": 1}


def test_colours_of_classes_differ_and_are_neither_that_of_missed_nor_of_wrong_ones() -> None:
    colours = [found_colour(label) for label in range(60)]
    assert len(set(colours)) == 60
    hues = [colorsys.rgb_to_hsv(*(part / 255 for part in rgb(colour)))[0] for colour in colours]
    assert min(hues) > 0.35 and max(hues) < 0.85
    for style in (MISSED_STYLE, WRONG_STYLE):
        red, green, blue = rgb(style.colour)
        assert not 0.25 < colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)[0] < 0.9
    assert FOUND_STYLE.colour == ""
