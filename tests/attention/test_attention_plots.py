"""Figures of attention: the map lies where its weights are, and the texts say what it is."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from hf_detr_ft.attention.attention_panels import DIM, MAP_COLOURS, PANEL_SIDE, blend
from hf_detr_ft.attention.attention_plots import plot_attention, plot_cross_attention, plot_places, plot_self_attention
from hf_detr_ft.attention.image_attention import ImageAttention, SampledPoints
from hf_detr_ft.plots.style import FAINT, INK
from tests.plots.compared import GREY, pixels

NAMES = ("disc", "box")
SHAPES = ((300, 400), (400, 300), (200, 200), (90, 1000), (1000, 150), (1, 1))


def constructed(size: tuple[int, int] = (300, 400), count: int = 2, background: bool = True) -> ImageAttention:
    """Detections side by side, the score of each lower; the last layer's maps have all weight in a cell of their own.

    The cell of detection k is in row 1, column 2 k; the point of k is the centre of its box, and reads row 2.
    """
    height, width = size
    cross, encoder = np.zeros((2, count, 2, 4, 8), np.float32), np.full((count + background, 4, 8), 1 / 32, np.float32)
    cross[0, ..., 3, 7] = 1
    boxes, points = [], []
    for index in range(count):
        cross[1, index, :, 1, 2 * index] = 1
        encoder[index] = 0
        encoder[index, 2, 2 * index] = 0.75
        encoder[index, 3, 2 * index] = 0.25
        boxes.append([2 * index * width / 8, height / 4, (2 * index + 1) * width / 8, height / 2])
        points.append([(2 * index + 0.5) * width / 8, 0.375 * height])
    if background:
        points.append([0.95 * width, 0.9 * height])
    return ImageAttention(
        size=size,
        threshold=0.5,
        queries=np.arange(count),
        labels=np.arange(count) % 2,
        scores=np.linspace(0.9, 0.6, count, dtype=np.float32),
        boxes_xyxy_px=np.array(boxes, np.float32).reshape(-1, 4),
        cross=cross,
        points_xy_px=np.array(points, dtype=np.float64).reshape(-1, 2),
        point_of=np.array([*range(count), *([-1] * background)]),
        encoder=encoder,
    )


def photo(size: tuple[int, int] = (300, 400)) -> Image.Image:
    return Image.new("RGB", size[::-1], GREY)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def boxes(figure: Figure) -> list[Line2D]:
    """Those of the first panel."""
    return [line for line in figure.axes[0].lines if line.get_gid() == "box"]


def written(figure: Figure) -> list[str]:
    """Lines over the panels."""
    return [text.get_text() for text in figure.texts]


# The map


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (200, 200)])
def test_the_map_peaks_in_the_cell_of_the_largest_weight(size: tuple[int, int]) -> None:
    for row, column in ((0, 0), (1, 5), (3, 7)):
        weights = np.zeros((4, 8))
        weights[row, column] = 0.4
        seen = blend(photo(size), weights).astype(int)
        assert max(seen.shape[:2]) == PANEL_SIDE
        assert seen.shape[0] / seen.shape[1] == pytest.approx(size[0] / size[1], abs=0.01)
        coloured = np.argwhere(np.ptp(seen, axis=-1) > 40)
        middle = (coloured.mean(axis=0) + 0.5) / seen.shape[:2] * (4, 8)
        # At the border half of a blob is missing.
        np.testing.assert_allclose(middle, (row + 0.5, column + 0.5), atol=0.35)
        bright = np.argwhere(seen.sum(axis=-1) == seen.sum(axis=-1).max())
        assert (np.floor((bright.mean(axis=0) + 0.5) / seen.shape[:2] * (4, 8)) == (row, column)).all()


def test_without_weight_the_photo_is_seen_dark_and_grey() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (PANEL_SIDE, PANEL_SIDE, 3), np.uint8))
    weights = np.zeros((4, 4))
    weights[0, 0] = 1
    half = PANEL_SIDE // 2
    for seen in (blend(image, weights)[half:, half:], blend(image, 0 * weights)[half:, half:]):
        assert (np.ptp(seen, axis=-1) == 0).all()
        expected = DIM * np.asarray(image.convert("L"))[half:, half:]
        np.testing.assert_allclose(seen[..., 0], expected, atol=4)


def test_the_colour_tells_the_weight_relative_to_the_largest() -> None:
    """Colours of a map on an image of one grey follow each other as its weights do, whatever they sum to."""
    weights = np.repeat([[0.0, 0.25, 0.5, 1.0]], 2, axis=0) / 3.5
    seen = blend(photo((200, 400)), weights).astype(int)
    np.testing.assert_array_equal(seen, blend(photo((200, 400)), 10 * weights))
    luminance = seen[100, [50, 150, 250, 350]] @ (0.3, 0.6, 0.1)
    assert luminance[3] > luminance[2] + 40 > luminance[1] + 40
    top = np.array(MAP_COLOURS(1.0)[:3]) * 255
    assert np.abs(seen[100, 395] - top).max() < 30


def test_between_cells_a_map_has_no_more_and_no_less_than_in_them() -> None:
    weights = np.zeros((5, 5))
    weights[1, 2], weights[3, 2] = 0.5, 0.5
    seen = blend(Image.new("RGB", (100, 100)), weights, side=100).astype(int).sum(axis=-1)
    assert seen.max() == seen[30, 50] == seen[70, 50]
    assert (seen[50, :] == 0).all()
    assert (seen[:, :30] == 0).all()
    assert (np.diff(seen[30, 30:50]) >= 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_maps_of_a_single_row_or_column(shape: tuple[int, int]) -> None:
    seen = blend(photo(), np.full(shape, 0.1))
    assert seen.shape == (300, 400, 3)
    assert (seen == seen[0, 0]).all()


# Figures of one panel


def test_sampled_points_lie_where_they_are_read_and_the_heaviest_is_on_top() -> None:
    points = np.array([[[[[10, 20], [390, 290]], [[200, 150], [-50, 10]]]] * 2], np.float32)
    weights = np.array([[[[0.1, 0.9], [0.6, 0.4]]] * 2], np.float32)
    attention = replace(constructed(), cross=np.zeros((1, 2, 2, 0, 0)), sampled=SampledPoints(points, weights))
    figure = plot_cross_attention(photo(), attention, 0, NAMES)
    (drawn,) = (part for part in figure.axes[0].collections if part.get_gid() == "sampled")
    np.testing.assert_allclose(drawn.get_offsets(), [[10, 20], [-50, 10], [200, 150], [390, 290]])
    assert (np.diff(drawn.get_sizes()) > 0).all()
    assert "in the box: 0% of attention" in titles(figure)[0]
    assert "in a point" in figure.axes[-1].get_xlabel()
    assert figure.axes[0].get_xlim() == (0, 400), "points beside the image do not widen it"


@pytest.mark.parametrize("size", [(300, 400), (400, 300)])
def test_box_map_and_photo_lie_on_each_other(size: tuple[int, int]) -> None:
    """The box is drawn around the cell that has all the weight, so its middle is the brightest place."""
    attention = constructed(size)
    figure = plot_cross_attention(photo(size), attention, 1, NAMES)
    seen = pixels(figure)
    (box,) = boxes(figure)
    area = box.get_window_extent()
    x, y = round((area.x0 + area.x1) / 2), round(figure.bbox.height - (area.y0 + area.y1) / 2)
    np.testing.assert_allclose(seen[y, x], np.array(MAP_COLOURS(1.0)[:3]) * 255, atol=30)
    whole = figure.axes[0].get_window_extent()
    assert (area.x0 - whole.x0) / whole.width == pytest.approx(2 / 8)
    assert (whole.y1 - area.y1) / whole.height == pytest.approx(1 / 4)
    elsewhere = round(figure.bbox.height - whole.y0 - 0.2 * whole.height), round(whole.x0 + 0.9 * whole.width)
    assert np.ptp(seen[elsewhere]) == 0
    assert whole.height / whole.width == pytest.approx(size[0] / size[1])


def test_a_box_over_the_border_is_drawn_to_the_border() -> None:
    attention = constructed(count=1)
    over = ImageAttention(**{**vars(attention), "boxes_xyxy_px": np.array([[-50.0, 200, 90, 350]])})
    for figure in (plot_cross_attention(photo(), over, 0, NAMES), plot_places(photo(), over)):
        (box,) = boxes(figure)
        assert box.get_path().get_extents().extents.tolist() == [0, 200, 90, 300]


def test_titles_name_the_detection_and_how_much_lies_in_its_box() -> None:
    attention = constructed()
    (title,) = titles(plot_cross_attention(photo(), attention, 0, NAMES))
    assert title == "1: disc 0.90\nin the box: 100% of attention, 3% of area"
    (title,) = titles(plot_cross_attention(photo(), attention, 1, NAMES, layer=0, head=1))
    assert title == "2: box 0.60, layer 1 of 2, head 2\nin the box: 0% of attention, 3% of area"
    (title,) = titles(plot_self_attention(photo(), attention, 1, NAMES))
    assert title == "p2: centre of box 0.60\nin the box: 0% of attention, 3% of area"
    (title,) = titles(plot_self_attention(photo(), attention, 2, NAMES))
    assert title == "p3: x 380, y 270 px\noutside the boxes"


def test_a_detection_below_the_threshold_is_called_so() -> None:
    attention = constructed(count=1)
    low = ImageAttention(**{**vars(attention), "scores": np.array([0.31], np.float32)})
    (title,) = titles(plot_cross_attention(photo(), low, 0, NAMES))
    assert title.startswith("1: disc 0.31, not above 0.5\n")


def test_a_point_in_a_box_that_is_not_its_own() -> None:
    attention = constructed(count=1)
    moved = ImageAttention(**{**vars(attention), "points_xy_px": np.array([[20.0, 100], [30, 110]])})
    (title,) = titles(plot_self_attention(photo(), moved, 1, NAMES))
    assert title == "p2: x 30, y 110 px\nwithin a box"


def test_the_scale_names_the_largest_weight() -> None:
    figure = plot_self_attention(photo(), constructed(), 0, NAMES)
    scale = figure.axes[1]
    assert [label.get_text() for label in scale.get_xticklabels()] == ["0", "75.0%"]
    assert scale.get_xlabel() == "share of the attention in a cell"
    assert [
        label.get_text() for label in plot_attention(photo(), constructed(), NAMES, "").axes[-1].get_xticklabels()
    ] == [
        "0",
        "largest",
    ]


def test_places_are_numbered_in_a_photo_that_is_as_it_was() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))
    figure = plot_places(image, constructed())
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["1", "2", "p1", "p2", "p3"]
    assert len(boxes(figure)) == 2
    marks = [line.get_xydata()[0].tolist() for line in axes.lines if line.get_gid() == "point"]
    assert marks == [[25, 112.5], [125, 112.5], [380, 270]]
    np.testing.assert_allclose(axes.images[0].get_array(), np.asarray(image), atol=3)
    pixels(figure)
    label = axes.texts[-1].get_window_extent()
    assert label.x0 > axes.get_window_extent().x0 and label.x1 < axes.get_window_extent().x1


def test_the_number_of_a_small_box_stands_above_it() -> None:
    attention = constructed(count=1)
    for box, above in (([100, 100, 120, 190], True), ([100, 100, 190, 190], False), ([100, 5, 120, 25], False)):
        figure = plot_places(photo(), ImageAttention(**{**vars(attention), "boxes_xyxy_px": np.array([box])}))
        pixels(figure)
        number = figure.axes[0].texts[0].get_window_extent()
        assert (number.y0 > boxes(figure)[0].get_window_extent().y1) == above


# All figures

Plot = Callable[[Image.Image, ImageAttention], Figure]
PLOTS: dict[str, Plot] = {
    "cross": lambda image, attention: plot_cross_attention(image, attention, 0, NAMES),
    "self": lambda image, attention: plot_self_attention(image, attention, 0, NAMES),
    "places": plot_places,
    "sheet": lambda image, attention: plot_attention(image, attention, NAMES, "a title"),
}


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
@pytest.mark.parametrize("size", SHAPES)
def test_photos_of_all_shapes(size: tuple[int, int], plot: Plot) -> None:
    """Nothing reaches over the figure's border, and no text has fewer than 9 points."""
    figure = plot(photo(size), constructed(size))
    pixels(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for axes in figure.axes:
        area = axes.get_window_extent()
        assert area.x0 > -0.5 and area.y0 > -0.5 and area.x1 < width + 0.5 and area.y1 < height + 0.5
        texts = [axes.title, *([axes.xaxis.label, *axes.get_xticklabels()] if axes.axison else [])]
        for text in (text for text in texts if text.get_text()):
            extent = text.get_window_extent()
            assert extent.x0 > -0.5 and extent.y0 > -0.5 and extent.x1 < width + 0.5 and extent.y1 < height + 0.5
            assert text.get_fontsize() >= 9
            assert text.get_color() in (INK, FAINT)


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_figures_are_small_and_transparent(plot: Plot) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    image = Image.fromarray(noise).resize((4000, 3000))
    figure = plot(image, constructed((3000, 4000)))
    stream = io.BytesIO()
    figure.savefig(stream, format="svg")
    panels = len(titles(figure))
    assert len(stream.getvalue()) < panels * 300_000
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert np.asarray(canvas.buffer_rgba())[1, 1, 3] == 0


def test_long_names_and_letters_that_the_font_lacks() -> None:
    names = ("balloon of a very long name " * 4, "気球")
    figure = plot_cross_attention(photo(), constructed(), 0, names)
    pixels(figure)
    title = figure.axes[0].title
    assert "…" in title.get_text()
    assert title.get_window_extent().width <= figure.bbox.width
    (title,) = titles(plot_cross_attention(photo(), constructed(), 1, names))
    assert title.startswith("2: class 1 0.60\n")
    figure = plot_cross_attention(photo(), constructed(), 0, ("$\\no$", "a"))
    pixels(figure)  # it is no formula, of which this one could not be written
    assert titles(figure)[0].startswith("1: $\\no$ 0.90\n")


def test_the_photo_stays_as_it_is() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))
    before = np.asarray(image).copy()
    for plot in PLOTS.values():
        plot(image, constructed())
    np.testing.assert_array_equal(np.asarray(image), before)


# The sheet


def test_each_point_lies_below_its_detection_and_the_background_below_the_photo() -> None:
    figure = plot_attention(photo(), constructed(count=3), NAMES, "a title")
    pixels(figure)
    starts = {title.split(":")[0]: index for index, title in enumerate(titles(figure))}
    areas = [axes.get_window_extent() for axes in figure.axes]
    for upper, lower in (("Detections and points", "p4"), ("1", "p1"), ("2", "p2"), ("3", "p3")):
        above, below = areas[starts[upper]], areas[starts[lower]]
        assert above.x0 == pytest.approx(below.x0) and above.width == pytest.approx(below.width)
        assert below.y1 < above.y0
    assert written(figure) == [
        "a title",
        "Decoder: what each detection's query reads",
        "Encoder: what each point's place reads",
    ]


def test_without_a_background_the_place_below_the_photo_stays_free() -> None:
    figure = plot_attention(photo(), constructed(count=2, background=False), NAMES, "a title")
    left = {axes.get_title().split(":")[0]: axes.get_window_extent().x0 for axes in figure.axes if axes.get_title()}
    assert left["p1"] == pytest.approx(left["1"]) and left["p2"] == pytest.approx(left["2"])
    assert left["1"] > left["Detections and points"]


@pytest.mark.parametrize(("count", "points", "own"), [(1, 1, 0), (2, 2, 2), (4, 5, 4), (1, 7, 0), (2, 0, 0)])
def test_any_number_of_detections_and_points(count: int, points: int, own: int) -> None:
    base = constructed(count=count)
    attention = ImageAttention(
        **{
            **vars(base),
            "points_xy_px": np.full((points, 2), 7.0),
            "point_of": np.array([*range(own), *([-1] * (points - own))], dtype=np.int64),
            "encoder": np.full((points, 4, 8), 1 / 32, np.float32),
        }
    )
    figure = plot_attention(photo(), attention, NAMES, "a title " * 40)
    pixels(figure)
    assert len(titles(figure)) == 1 + count + points
    assert len(written(figure)) == (3 if points else 2)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    boxes += [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    boxes += [text.get_window_extent() for text in figure.texts]
    corners = np.array([box.extents for box in boxes])
    for index, box in enumerate(corners):
        sides = np.minimum(box[2:], corners[:, 2:]) - np.maximum(box[:2], corners[:, :2])
        assert (sides > 0.5).all(axis=1).nonzero()[0].tolist() == [index]
    assert (corners[:, :2] > -0.5).all() and (
        corners[:, 2:] < (figure.bbox.width + 0.5, figure.bbox.height + 0.5)
    ).all()
