"""Figures of one panel: where their labels and legends are, and that they are laid out at little cost."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from hf_detr_ft.plots.style import add_image_axes, add_legend, new_figure, short_names, shrink


def made(x: str = "across", y: str = "up", legend: Sequence[str] = ("a", "b"), title: str = "a title") -> Figure:
    figure, axes = new_figure(title, x, y)
    lines = [axes.plot([0, 1000], [0, 100_000 + index])[0] for index, _ in enumerate(legend)]
    if legend:
        add_legend(axes, lines, legend)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure


def areas(figure: Figure) -> dict[str, Bbox]:
    """Windows of the texts beside the axes, and of the axes."""
    (axes,) = figure.axes
    found = {"axes": axes.get_window_extent()}
    for name, texts in (("x ticks", axes.get_xticklabels()), ("y ticks", axes.get_yticklabels())):
        found[name] = Bbox.union([text.get_window_extent() for text in texts])
    found |= {"x": axes.xaxis.label.get_window_extent(), "y": axes.yaxis.label.get_window_extent()}
    if figure.legends:
        found["legend"] = figure.legends[0].get_window_extent()
    return found


@pytest.mark.parametrize("x", ["across", "across\nin two lines", ""])
@pytest.mark.parametrize("legend", [(), ("a", "b"), ("a long name", "another long name", "a third name that is long")])
def test_labels_and_legend_lie_one_below_the_other_and_fill_the_figure(x: str, legend: Sequence[str]) -> None:
    figure = made(x, legend=legend)
    found = areas(figure)
    assert found["y"].x1 <= found["y ticks"].x0 + 1 and found["y ticks"].x1 <= found["axes"].x0
    assert found["x ticks"].y1 <= found["axes"].y0
    if x:
        assert found["x"].y1 <= found["x ticks"].y0 + 1
    lowest = found["x"] if x else found["x ticks"]
    if legend:
        assert found["legend"].y1 <= lowest.y0 + 1 and found["legend"].y0 >= 0
    assert 0 < found["y"].x0 < 12
    assert found["axes"].y1 > 0.85 * figure.bbox.height and found["axes"].x1 > 0.9 * figure.bbox.width


@pytest.mark.parametrize("lines", [1, 2, 3, 8, 30])
@pytest.mark.parametrize("top", [0.07, 1.3, 22, 240, 7100])
def test_ticks_have_room_whatever_the_legend_leaves(lines: int, top: float) -> None:
    """Lower axes have other ticks, whose labels can be wider: 22.5 beside 20."""
    figure, axes = new_figure("a title", "across", "")
    names = [f"a name that is as wide as the figure itself {number}" for number in range(lines)]
    add_legend(axes, [axes.plot([0, 1], [0.3 * top, top])[0] for _ in names], names)
    FigureCanvasAgg(figure).draw()
    for label in axes.get_yticklabels():
        assert label.get_window_extent().x0 >= 0


def test_a_figure_too_small_for_its_texts_is_drawn() -> None:
    figure = made("a label of the axis\n" * 5, legend=["a name that is long"] * 8)
    figure.set_size_inches(0.5, 0.5)
    FigureCanvasAgg(figure).draw()
    place = figure.axes[0].get_position()
    assert place.width > 0 and place.height > 0 and place.x0 >= 0 and place.x1 <= 1 and place.y0 >= 0 and place.y1 <= 1


def test_a_figure_that_was_enlarged_is_laid_out_anew() -> None:
    figure = made()
    before = figure.axes[0].get_position().bounds
    figure.set_size_inches(8, 6)
    FigureCanvasAgg(figure).draw()
    found = areas(figure)
    assert figure.axes[0].get_position().width > before[2]
    assert found["y"].x1 <= found["y ticks"].x0 + 1 and 0 < found["y"].x0 < 12


def test_drawing_measures_the_axes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    measure = Axes.get_tightbbox

    def counted(self: Axes, *args: object, **kwargs: object) -> object:
        calls.append(self)
        return measure(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Axes, "get_tightbbox", counted)
    made()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("labels", "lines"),
    [
        (["F1", "Precision", "Recall"], 1),
        (["AP 0.613, mean of ten", "AP 0.921, IoU 0.50", "AP 0.729, IoU 0.75", "AP 0.100, IoU 0.90"], 2),
        (["a name that is as wide as the figure itself, almost"] * 3, 3),
    ],
)
def test_a_legend_has_as_few_lines_as_fit(labels: list[str], lines: int) -> None:
    figure = made(legend=labels)
    (legend,) = figure.legends
    tops = {round(text.get_window_extent().y0) for text in legend.get_texts()}
    assert len(tops) == lines
    assert legend.get_window_extent().x1 <= figure.bbox.width


def test_a_title_of_two_lines_has_room() -> None:
    figure = made(title="one line\nand another")
    title = figure.axes[0]._left_title.get_window_extent()  # type: ignore[attr-defined]
    assert title.y1 <= figure.bbox.height and title.y0 >= figure.axes[0].get_window_extent().y1


def test_names_of_classes_are_short_and_writable() -> None:
    assert short_names(["balloon", "気球", "шар"], 100) == ["balloon", "class 1", "шар"]
    (short,) = short_names(["a very long name of a class"], 60)
    assert "…" in short


def test_axes_of_an_image_have_its_pixels_for_coordinates() -> None:
    figure = Figure(figsize=(4, 2), dpi=100)
    axes = add_image_axes(figure, 1, 0.5, 2, 1, (50, 100))
    assert axes.get_window_extent().extents == pytest.approx((100, 50, 300, 150))
    for pixel, place in (((0, 0), (100, 150)), ((100, 50), (300, 50))):
        assert axes.transData.transform(pixel) == pytest.approx(place)
    image = shrink(Image.fromarray(np.zeros((50, 100, 3), np.uint8)), 200)
    assert image.size == (200, 100)


def test_a_notebook_shows_a_figure_on_white_without_pyplot() -> None:
    figure = made()
    image = Image.open(io.BytesIO(figure._repr_png_()))
    assert (image.mode, image.size) == ("RGB", (420, 300))
    assert image.getpixel((1, 1)) == (255, 255, 255) and len(image.getcolors(100_000)) > 20
    assert figure.patch.get_alpha() == 0, "the page's figures still let the page through"
