import numpy as np
import pytest
from PIL import Image

from hf_detr_ft.plots.box_overlay import MISSED_STYLE, WRONG_STYLE, found_colour
from hf_detr_ft.plots.comparison import LEAST_CELL, SHEET_MARGIN, count_pieces, plot_comparison
from hf_detr_ft.plots.style import TILE, shrink
from tests.plots.compared import INSIDE, compared, extent, kinds, pixels, texts

NAMES = ("disc", "box")


def caption(counts: tuple[int, int, int]) -> str:
    return "".join(text for text, _ in count_pieces(np.array(counts)))


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (200, 200), (90, 1000), (1000, 150)])
@pytest.mark.parametrize("resolution", [0.5, 3.0])
def test_boxes_lie_on_their_objects_in_photos_of_any_shape_and_resolution(
    size: tuple[int, int], resolution: float
) -> None:
    """The object's pixels, which went through the photo, end where the line that was drawn runs."""
    height, width = size
    box = (0.3 * width, 0.5 * height, 0.8 * width, 0.9 * height)
    bare = compared(size, objects=[(box, 0, True)], resolution=resolution)
    with_line = compared(size, objects=[(box, 0, True)], predictions=[(box, 0, 0.9, 1)], resolution=resolution)
    inside = extent(pixels(plot_comparison([bare], NAMES, "a")), INSIDE)
    figure = plot_comparison([with_line], NAMES, "a")
    tile = figure.axes[1].get_window_extent()
    below_header = pixels(figure)
    below_header[: round(figure.bbox.height - tile.y1)] = 255
    label = next(patch for patch in figure.axes[1].patches if patch.get_gid() == "label").get_window_extent()
    top, bottom = round(figure.bbox.height - label.y1), round(figure.bbox.height - label.y0)
    below_header[top : bottom + 1, round(label.x0) : round(label.x1) + 1] = 255
    line = extent(below_header, found_colour(0))
    np.testing.assert_allclose(line, inside, atol=2 + max(1.0, 1.5 * TILE / max(size) / resolution))
    assert max(inside[2] - inside[0], inside[3] - inside[1]) >= 0.4 * TILE * min(size) / max(size)


def test_no_photo_is_larger_than_a_tile_and_small_ones_are_enlarged() -> None:
    assert shrink(Image.new("RGB", (3000, 2000)), TILE).size == (480, 320)
    assert shrink(Image.new("RGB", (30, 60)), 100).size == (50, 100)
    assert shrink(Image.new("RGB", (5000, 2)), 100).size == (100, 1)


def test_the_figure_is_made_of_whole_pixels_and_photos_lie_on_it_unchanged() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 64, (TILE, 333, 3), np.uint8) * 4)
    photo = compared((TILE, 333))
    figure = plot_comparison([type(photo)(**{**vars(photo), "image": image})], NAMES, "a")
    seen = pixels(figure)
    tile = figure.axes[1].get_window_extent()
    top, left = round(figure.bbox.height - tile.y1), round(tile.x0)
    np.testing.assert_array_equal(seen[top : top + TILE, left : left + 333], np.asarray(image))


def test_captions_count_what_is_drawn() -> None:
    objects = [((10, 10, 50, 50), 0, True), ((60, 10, 90, 50), 0, True), ((100, 10, 150, 50), 1, False)]
    predictions = [
        *(((10, 10, 50, 50), 0, 0.9, 1), ((60, 10, 90, 50), 0, 0.8, 1)),
        *(((100, 10, 150, 50), 0, 0.7, 0), ((200, 100, 250, 150), 1, 0.6, 0), ((20, 200, 50, 250), 1, 0.6, -1)),
    ]
    photo = compared(objects=objects, predictions=predictions, crowd=[(0, 190, 100, 300)], name="one.jpg")
    empty = compared((400, 300), name="two.jpg")
    figure = plot_comparison([photo, empty], NAMES, "a title")
    written = "".join(texts(figure))
    assert written.startswith("a title2 found, 1 missed, 2 wrongtrue box")
    assert written.endswith("no objects, 0 wrongtwo.jpg2 found, 1 missed, 2 wrongone.jpg")
    assert kinds(figure, 0) == {}
    assert kinds(figure, 1) == {"crowd": 1, "ignored": 1, "found": 2, "truth": 2, "missed": 1, "wrong": 2}


def test_captions() -> None:
    assert caption((3, 1, 0)) == "3 found, 1 missed, 0 wrong"
    assert caption((0, 2, 1)) == "0 found, 2 missed, 1 wrong"
    assert caption((0, 0, 2)) == "no objects, 2 wrong"
    colours = dict(count_pieces(np.array([3, 0, 2])))
    assert len({colours["3 found"], colours["0 missed"], colours["2 wrong"]}) == 3
    assert colours["0 missed"] == dict(count_pieces(np.array([0, 1, 2])))["0 found"]


def test_the_legend_explains_once_what_there_is() -> None:
    plain = compared(objects=[((10, 10, 50, 50), 0, False)], predictions=[((90, 90, 150, 150), 0, 0.9, 0)])
    figure = plot_comparison([plain, plain], NAMES, "a")
    for meaning in ("true box", "right prediction", "missed object", "wrong prediction"):
        assert texts(figure).count(meaning) == 1
    assert "region that does not count" not in texts(figure)
    samples = [line.get_gid() for line in figure.axes[0].get_lines()]
    assert samples == ["truth", "found", "missed", "wrong"]
    seen = pixels(figure)
    header = seen[: round(figure.bbox.height - figure.axes[1].get_window_extent().y1)]
    for colour in (MISSED_STYLE.colour, WRONG_STYLE.colour, found_colour(0)):
        extent(header, colour)
    crowd = compared(crowd=[(10, 10, 90, 90)], predictions=[((20, 20, 50, 50), 0, 0.9, -1)])
    assert {"region that does not count", "prediction in such a region"} <= set(
        texts(plot_comparison([crowd], NAMES, ""))
    )


@pytest.mark.parametrize("count", [1, 2, 5, 13, 16])
def test_photos_of_all_shapes_lie_side_by_side_within_the_page(count: int) -> None:
    shapes = [(300, 400), (400, 300), (200, 200), (40, 400), (400, 30)]
    photos = [compared(shapes[index % 5], name=f"{index:02d}.jpg") for index in range(count)]
    figure = plot_comparison(photos, NAMES, "a title", tile=120)
    areas = np.array([axes.get_window_extent().extents for axes in figure.axes[1:]])
    assert len(areas) == count
    page = (figure.bbox.width, figure.bbox.height)
    assert (areas[:, :2] >= SHEET_MARGIN - 0.5).all() and (areas[:, 2:] <= np.array(page) - SHEET_MARGIN + 0.5).all()
    for index, area in enumerate(areas):
        sides = np.minimum(area[2:], areas[:, 2:]) - np.maximum(area[:2], areas[:, :2])
        assert (sides > 0).all(axis=1).nonzero()[0].tolist() == [index]
    assert sorted(text for text in texts(figure) if text.endswith(".jpg")) == [photo.name for photo in photos]
    pixels(figure)
    written = np.array([text.get_window_extent().extents for text in figure.axes[0].texts])
    assert (written >= SHEET_MARGIN - 8).all() and (written[:, 2:] <= np.array(page) - SHEET_MARGIN + 2).all()
    for index, area in enumerate(written):
        others = np.vstack([np.delete(written, index, axis=0), areas])
        sides = np.minimum(area[2:], others[:, 2:]) - np.maximum(area[:2], others[:, :2])
        assert not (sides > (2, 4)).all(axis=1).any(), figure.axes[0].texts[index].get_text()


def test_long_names_and_titles_are_made_to_fit_and_unknown_letters_cost_no_warning() -> None:
    long = "folder/" * 30 + "photo.jpg"
    prediction = ((10, 10, 50, 50), 1, 0.9, 1)
    photo = compared((400, 40), objects=[(prediction[0], 1, True)], predictions=[prediction], name=long)
    figure = plot_comparison([photo], ("disc", "気球"), "気球 " + "word " * 40 + "w" * 200)
    name = next(text for text in figure.axes[0].texts if text.get_text().endswith("photo.jpg"))
    pixels(figure)
    assert 0.9 * LEAST_CELL < name.get_window_extent().width <= LEAST_CELL + 1
    wide = compared(predictions=[((100, 100, 150, 150), 1, 0.9, 1)])
    assert texts(plot_comparison([wide], ("disc", "気球"), "a"), 0) == ["class 1 0.90"]


def test_the_same_photos_make_the_same_sheet_and_stay_as_they_are() -> None:
    photo = compared(objects=[((10, 10, 50, 50), 0, False)], predictions=[((90, 90, 150, 150), 0, 0.9, 0)])
    before = np.asarray(photo.image).copy(), photo.boxes_xyxy_px.copy()
    first, second = (pixels(plot_comparison([photo], NAMES, "a")) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.asarray(photo.image), before[0])
    np.testing.assert_array_equal(photo.boxes_xyxy_px, before[1])
