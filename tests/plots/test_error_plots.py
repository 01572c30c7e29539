import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from hf_detr_ft.evaluation.analysis import analyse_detections
from hf_detr_ft.evaluation.confusion import Confusion
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.plots.error_plots import DIAGONAL, OFF_DIAGONAL, plot_confusion, plot_errors
from hf_detr_ft.plots.style import compact
from tests.evaluation.test_coco_eval import boxes, one_image, random_case
from tests.plots.test_precision_recall import all_on_page


def cells(figure: Figure) -> dict[tuple[float, float], str]:
    """Text at (column, row)."""
    return {text.get_position(): text.get_text() for text in figure.axes[0].texts}


def ticks(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def confusion(counts: list[list[int]]) -> Confusion:
    return Confusion(np.array(counts), [f"c{i}" for i in range(len(counts) - 1)], 0.6789)


def test_the_matrix_has_its_counts_and_colours_by_the_share_of_the_row() -> None:
    figure = plot_confusion(confusion([[8, 2, 0], [0, 0, 5], [1, 0, 0]]))
    assert cells(figure) == {(0, 0): "8", (1, 0): "2", (2, 1): "5", (0, 2): "1"}
    drawn = {patch.get_xy(): (to_hex(patch.get_facecolor()), patch.get_alpha()) for patch in figure.axes[0].patches}
    assert drawn[(-0.5, -0.5)] == (DIAGONAL, pytest.approx(0.12 + 0.5 * 0.8))
    assert drawn[(0.5, -0.5)] == (OFF_DIAGONAL, pytest.approx(0.12 + 0.5 * 0.2))
    assert drawn[(1.5, 0.5)] == (OFF_DIAGONAL, pytest.approx(0.62))
    assert len(drawn) == 4
    assert ticks(figure) == ["c0", "c1", "background"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["c0", "c1", "nothing"]
    assert figure.axes[0].get_title("left") == "Confusion, scores above 0.679"
    assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1]  # the first class is at the top


def test_of_many_classes_the_most_confused_are_shown_and_the_title_says_so() -> None:
    counts = np.diag([*[50] * 80, 0])
    counts[7, 70] = 9  # the only two classes that are confused
    counts[np.arange(20, 40), -1] = np.arange(11, 31)
    counts[:, -1] += 1
    counts[-1, -1] = 0
    figure = plot_confusion(confusion(counts.tolist()))
    assert ticks(figure) == ["c7", *(f"c{i}" for i in range(32, 40)), "c70", "background"]  # the most missed after them
    assert figure.axes[0].get_title("left").endswith(",\nthe 10 most confused of 80 classes")
    assert cells(figure)[(9, 0)] == "9"
    assert cells(figure)[(10, 1)] == "24"
    assert all_on_page(figure)


@pytest.mark.parametrize("classes", [1, 2, 10, 80])
def test_a_matrix_of_any_size_fits_its_figure(classes: int) -> None:
    coco, detections = random_case(2, max(3, classes))
    for entry in coco["categories"]:
        entry["name"] = f"a long name, {entry['name']} of them"
    figure = plot_confusion(analyse_detections(coco, detections, 0.1).confusion)
    assert all_on_page(figure)
    assert max(figure.get_size_inches()) < 6.5
    single = plot_confusion(analyse_detections(one_image({"bbox": [0, 0, 9, 9]}), boxes((0, 0, 9, 9, 0.9))).confusion)
    assert cells(single) == {(0, 0): "1"} and all_on_page(single)


def test_names_with_dollars_are_not_taken_for_formulas() -> None:
    named = Confusion(np.array([[1, 0], [0, 0]]), ["a $5 and $6"], 0.5)
    axes = plot_confusion(named).axes[0]
    for label in (axes.get_xticklabels()[0], axes.get_yticklabels()[0]):
        assert label.get_text() == "a $5 and $6" and not label.get_parse_math()


def test_an_empty_matrix_says_so() -> None:
    assert list(cells(plot_confusion(confusion([[0, 0], [0, 0]]))).values()) == ["No objects, nothing predicted"]


def test_errors_draws_gains_and_counts() -> None:
    coco = one_image({"bbox": [0, 0, 50, 50]}, {"bbox": [100, 0, 50, 50]})
    rows = ((0, 0, 50, 50, 0.9), (0, 0, 50, 50, 0.8), (125, 0, 50, 50, 0.7), (300, 0, 50, 50, 0.2))
    errors = analyse_detections(coco, boxes(*rows), 0.5).errors
    figure = plot_errors(errors)
    axes = figure.axes[0]
    assert ticks(figure) == ["Classification", "Localisation", "Both", "Duplicate", "Background", "Missed"]
    assert [bar.get_width() for bar in axes.patches] == [kind.gain for kind in errors.kinds.values()]
    # 51 of the 101 levels are reached; with the box right the others have precision 2/3.
    assert errors.kinds["localisation"].gain == pytest.approx(50 * 2 / 3 / 101)
    assert [text.get_text() for text in axes.texts] == [
        *("+0.000  (0)", "+0.330  (1)", "+0.000  (0)", "+0.000  (1)", "+0.000  (0)", "+0.000  (0)")
    ]
    assert axes.get_xlabel() == "AP50 to gain (now 0.505)\n(how many, with scores above 0.500)"
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert all_on_page(figure)


def test_gains_that_are_undefined_are_not_drawn_as_zero() -> None:
    for coco in (one_image(), one_image({"bbox": [0, 0, 50, 50]})):
        axes = plot_errors(analyse_detections(coco, Detections.empty()).errors).axes[0]
        assert axes.texts[-1].get_text() == f"n/a  ({len(coco['annotations'])})"
    empty = plot_errors(analyse_detections(one_image(), Detections.empty()).errors)
    assert {text.get_text() for text in empty.axes[0].texts} == {"n/a  (0)"}
    assert empty.axes[0].get_xlabel().startswith("AP50 to gain (undefined without objects)")


def test_numbers_are_short() -> None:
    counts = (0, 999, 1000, 9949, 9950, 99_499, 99_500, 264_725)
    assert [compact(count) for count in counts] == ["0", "999", "1.0k", "9.9k", "10k", "99k", "0.1M", "0.3M"]
