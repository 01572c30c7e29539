"""Figures of the data, read off their artists, and their words where there is nothing to show."""

import io
import warnings
from collections.abc import Callable, Mapping
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Text

from hf_detr_ft.data.statistics import SplitStatistics, describe_split
from hf_detr_ft.formatting import percent
from hf_detr_ft.plots.data_plots import (
    plot_aspect_ratios,
    plot_class_balance,
    plot_image_sizes,
    plot_object_sizes,
    plot_objects_per_image,
    plot_positions,
    plot_resized_sides,
)
from hf_detr_ft.plots.style import INK, PALETTE

SVG = "{http://www.w3.org/2000/svg}"

Splits = Mapping[str, SplitStatistics]


def plot_first_positions(splits: Splits) -> Figure:
    name, split = next(iter(splits.items()))
    return plot_positions(split, name)


PLOTS: list[Callable[[Splits], Figure]] = [
    plot_class_balance,
    plot_objects_per_image,
    plot_object_sizes,
    plot_resized_sides,
    plot_aspect_ratios,
    plot_image_sizes,
    plot_first_positions,
]


def split_of(
    counts: Mapping[int, int], images: int = 4, classes: int = 3, box: tuple = (10, 20, 30, 60), **given: object
) -> SplitStatistics:
    """So many objects of each category id, spread over images of 100 x 200 pixels in turn; ids are multiples of 5."""
    ids = [id_ for id_, count in counts.items() for _ in range(count)]
    return describe_split(
        {
            "images": [{"id": place, "height": 100, "width": 200} for place in range(images)],
            "annotations": [
                {"image_id": place % images, "category_id": id_, "bbox": list(box), **given}
                for place, id_ in enumerate(ids)
            ],
            "categories": [{"id": 5 * (label + 1), "name": f"class {label}"} for label in range(classes)],
        }
    )


def drawn(figure: Figure) -> np.ndarray:
    """`[h, w, 4]`; with the warnings of matplotlib, about letters or layout, as errors."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


EMPTY = {
    "no images": split_of({}, images=0),
    "no objects": split_of({}),
    "crowd alone": split_of({5: 3}, iscrowd=1),
    "an empty box alone": split_of({5: 1}, box=(10, 10, 0, 5)),
}
FULL = {
    "one object": split_of({5: 1}, images=1, classes=1),
    "one pixel": split_of({5: 1}, box=(199, 99, 1, 1)),
    "over the border": split_of({5: 2}, box=(-50, -50, 900, 900)),
    "slivers": split_of({5: 2}, box=(0, 0, 200, 0.001)),
    "80 classes": split_of({5 * label: label for label in range(1, 78)}, classes=80),
}


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
@pytest.mark.parametrize("first", [*EMPTY, *FULL])
def test_any_split_alone_and_beside_another_fits_its_figure(plot: Callable[[Splits], Figure], first: str) -> None:
    """Nothing is drawn over the figure's border, and letters are as large as they must be."""
    split = {**EMPTY, **FULL}[first]
    other = FULL["one object" if first == "80 classes" else "80 classes"]
    for splits in ({"training": split}, {"training": split, "validation": other}):
        if plot is plot_first_positions and len(splits) > 1:
            continue
        figure = plot(splits)
        pixels = drawn(figure)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert not border[:, 3].any()
        assert pixels[..., 3].any()
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 9


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
@pytest.mark.parametrize("case", ["no objects", "80 classes", "far apart"])
def test_a_page_can_replace_every_ink(plot: Callable[[Splits], Figure], case: str) -> None:
    """Nothing is black: neither written out nor left out, which is black, too; in the dark it would not be seen."""
    split = {**EMPTY, **FULL, "far apart": split_of({5: 900, 10: 1})}[case]
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        plot({"training": split}).savefig(stream, format="svg")
    root = ElementTree.fromstring(stream.getvalue())
    letters = [element.get("style", "") for element in root.iter(f"{SVG}text") if "".join(element.itertext()).strip()]
    assert letters
    assert all(f"fill: {INK}" in style for style in letters)
    visible = [group for group in root.iter() if group.tag in (f"{SVG}path", f"{SVG}use") and group.get("style")]
    assert not any("#000000" in group.get("style", "") for group in visible)


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
@pytest.mark.parametrize("case", EMPTY)
def test_nothing_is_said_not_shown_as_zero(plot: Callable[[Splits], Figure], case: str) -> None:
    split = EMPTY[case]
    figure = plot({"training": split})
    of_images = plot in (plot_objects_per_image, plot_image_sizes)
    has_any = split.images if of_images else split.objects if plot is plot_class_balance else split.placed.any()
    said = {"no images", "no objects"} & set(texts(figure))
    assert said == (set() if has_any else {"no images" if of_images else "no objects"})
    assert has_any or not figure.axes[0].has_data()


def bars(figure: Figure, colour: str) -> list[float]:
    """Widths of a split's bars from the top; each lies in its row, and the axis points downwards."""
    found = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    own = [patch for patch in found if to_hex(patch.get_facecolor()) == colour]
    assert [round(patch.get_y() + patch.get_height() / 2) for patch in own] == list(range(len(own)))
    assert figure.axes[0].yaxis_inverted()
    return [patch.get_width() for patch in own]


def test_bars_are_shares_and_numbers_are_counts() -> None:
    splits = {"training": split_of({5: 10, 10: 30}), "validation": split_of({5: 3, 15: 1})}
    figure = plot_class_balance(splits)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["class 0", "class 1", "class 2"]
    assert bars(figure, PALETTE[0]) == [25, 75, 0]
    assert bars(figure, PALETTE[1]) == [75, 0, 25]
    assert [note.get_text() for note in figure.axes[0].texts] == ["10", "30", "0", "3", "0", "1"]
    assert {"training, 40 objects", "validation, 4 objects"} <= set(texts(figure))


def test_rare_classes_share_a_bar_that_says_how_many_are_empty() -> None:
    figure = plot_class_balance({"training": FULL["80 classes"]})
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(names) == 31
    assert names[0] == "class 76"
    assert names[-1] == "50 others, 3 empty"
    total = sum(range(78))
    assert bars(figure, PALETTE[0])[-1] == pytest.approx(100 * sum(range(48)) / total)
    assert sum(bars(figure, PALETTE[0])) == pytest.approx(100)
    just_all = plot_class_balance({"training": split_of({5: 1}, classes=31)})
    assert len(just_all.axes[0].get_yticklabels()) == 31, "a bar for one other class would spare nothing"


def test_bars_of_very_different_lengths_are_logarithmic() -> None:
    assert plot_class_balance({"training": split_of({5: 500, 10: 2})}).axes[0].get_xscale() == "log"
    assert plot_class_balance({"training": split_of({5: 300, 10: 2})}).axes[0].get_xscale() == "linear"


def test_long_and_foreign_names_of_classes() -> None:
    coco = {
        "images": [{"id": 1, "height": 9, "width": 9}],
        "annotations": [{"image_id": 1, "category_id": id_, "bbox": [1, 1, 2, 2]} for id_ in (1, 2)],
        "categories": [
            {"id": 1, "name": "a very long name of a class " * 5},
            {"id": 2, "name": "$x^2$"},
            {"id": 3, "name": "风筝"},
        ],
    }
    figure = plot_class_balance({"training": describe_split(coco)})
    drawn(figure)
    assert figure.axes[0].get_position().width > 0.4
    long, formula, foreign = (label.get_text() for label in figure.axes[0].get_yticklabels())
    assert (long[:6], foreign) == ("a very", "class 2")
    assert formula == "$x^2$"
    assert not any(label.get_parse_math() for label in figure.axes[0].get_yticklabels())


def steps(figure: Figure) -> list[tuple[np.ndarray, np.ndarray]]:
    """Heights and edges of each split's line."""
    lines = [patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch) and not patch.get_fill()]
    return [(patch.get_data().values, patch.get_data().edges) for patch in lines]


def test_objects_per_image_are_shares_of_images_and_none_has_a_bin() -> None:
    figure = plot_objects_per_image({"training": split_of({5: 3}, images=4), "validation": split_of({5: 7}, images=1)})
    (train, edges), (val, _) = steps(figure)
    assert edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]
    assert train.tolist() == [25, 75, 0, 0, 0, 0, 0, 0]
    assert val.tolist() == [0, 0, 0, 0, 0, 0, 0, 100]
    (many, edges), *_ = steps(plot_objects_per_image({"training": split_of({5: 1000}, images=1)}))
    assert edges[:2].tolist() == [-0.5, 0.5]
    assert (many.sum(), many[0]) == (100, 0)
    assert len(many) <= 50


@pytest.mark.parametrize(
    ("plot", "value"),
    [(plot_object_sizes, np.sqrt(0.09)), (plot_resized_sides, 200), (plot_aspect_ratios, 0.5)],
    ids=lambda case: getattr(case, "__name__", None),
)
def test_all_objects_are_in_the_bin_of_their_value(plot: Callable[[Splits], Figure], value: float) -> None:
    """A box of 30 x 60 in 100 x 200 pixels, resized to 666 x 1333."""
    ((heights, edges),) = steps(plot({"training": split_of({5: 8})}))
    (place,) = np.flatnonzero(heights)
    assert heights[place] == 100
    assert edges[place] <= value <= edges[place + 1]


def test_what_lies_beyond_the_axis_is_counted_in_its_last_bin() -> None:
    ((heights, edges),) = steps(plot_aspect_ratios({"training": FULL["slivers"]}))
    assert heights[-1] == 100
    assert edges[-1] == 32


def test_the_line_of_a_cell_says_which_share_is_below_it() -> None:
    below, above = split_of({5: 3}, box=(0, 0, 60, 4)), split_of({5: 1}, box=(0, 0, 60, 6))
    figure = plot_resized_sides({"training": below, "validation": above})
    (note,) = figure.axes[0].texts
    assert note.get_text().splitlines()[2:] == ["training 100 %", "validation 0 %"]
    assert [percent(share) for share in (0.0004, 0.0046, 0.014, 0.5)] == ["0.04 %", "0.5 %", "1 %", "50 %"]
    assert figure.axes[0].lines[0].get_xdata() == [32, 32]


def test_the_map_of_positions_is_upright() -> None:
    figure = plot_positions(split_of({5: 1}, box=(0, 0, 100, 10)), "training")
    (image,) = figure.axes[0].images
    assert figure.axes[0].get_ylim() == (100, 0)
    assert image.get_array()[0, 0] > 1
    assert not image.get_array()[-1].any()
    pixels = drawn(figure).astype(int)
    box = figure.axes[0].get_window_extent()
    height = len(pixels)
    left, top = round(box.x0) + 5, round(height - box.y1) + 3
    right, bottom = round(box.x1) - 5, round(height - box.y0) - 4
    assert pixels[top, left, :3].sum() > pixels[top, right, :3].sum() + 100
    assert pixels[bottom, left].tolist() == pixels[bottom, right].tolist() == pixels[top, right].tolist()


def test_sizes_of_images_are_discs_in_proportion_to_their_number() -> None:
    coco = {"annotations": [], "categories": [{"id": 1, "name": "a"}]}
    sizes = [(100, 200)] * 3 + [(300, 150)]
    images = [{"id": place, "height": height, "width": width} for place, (height, width) in enumerate(sizes)]
    figure = plot_image_sizes({"training": describe_split({**coco, "images": images})})
    (discs,) = figure.axes[0].collections
    assert discs.get_offsets().tolist() == [[200, 100], [150, 300]]
    assert discs.get_sizes()[0] == 3 * discs.get_sizes()[1]
    many = [{"id": place, "height": 300 + place % 700, "width": 500} for place in range(1400)]
    (discs,) = plot_image_sizes({"training": describe_split({**coco, "images": many})}).axes[0].collections
    assert len(discs.get_offsets()) < 60
