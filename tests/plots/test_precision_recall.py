import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from hf_detr_ft.evaluation.analysis import Analysis, analyse_detections
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.plots.precision_recall import (
    plot_calibration,
    plot_class_f1,
    plot_class_precision_recall,
    plot_f1,
    plot_precision_recall,
)
from hf_detr_ft.plots.style import INK, PALETTE
from tests.evaluation.test_coco_eval import boxes, one_image, random_case


def analysed(categories: int = 6, seed: int = 0) -> Analysis:
    return analyse_detections(*random_case(seed, categories))


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def written(figure: Figure) -> list[str]:
    axes = figure.axes[0]
    return [*(text.get_text() for text in axes.texts), axes.get_title("left"), axes.get_xlabel()]


def all_on_page(figure: Figure) -> bool:
    """Nothing is cut off at the border, and letters are of two sizes, none too small to read."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    ink = np.asarray(canvas.buffer_rgba())[..., 3] > 0
    border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
    sizes = {text.get_fontsize() for text in figure.findobj(Text) if text.get_text()}
    return bool(ink.any()) and not border.any() and sizes <= {9, 10}


def test_precision_recall_draws_the_mean_whose_area_is_ap_and_three_ious() -> None:
    analysis = analysed()
    figure = plot_precision_recall(analysis.precision_recall)
    mean, *of_iou = figure.axes[0].lines
    metrics = analysis.result.metrics
    assert to_hex(mean.get_color()) == INK
    assert np.mean(mean.get_ydata()) == pytest.approx(metrics["map"], abs=1e-12)
    for line, name in zip(of_iou, ("map_50", "map_75"), strict=False):
        assert np.mean(line.get_ydata()) == pytest.approx(metrics[name], abs=1e-12)
    np.testing.assert_array_equal(mean.get_xdata(), np.linspace(0, 1, 101))
    assert legend(figure)[:3] == [
        f"AP {metrics['map']:.3f}, mean of ten IoUs",
        f"AP {metrics['map_50']:.3f}, IoU 0.50",
        f"AP {metrics['map_75']:.3f}, IoU 0.75",
    ]
    assert len({to_hex(line.get_color()) for line in of_iou}) == 3
    assert all_on_page(figure)


def test_precision_recall_of_classes_names_their_ap() -> None:
    analysis = analysed()
    figure = plot_class_precision_recall(analysis.precision_recall)
    rows = [row for row in analysis.result.per_class if row.objects]
    assert len(rows) == 5  # the sixth has no objects
    assert legend(figure) == [f"AP {row.ap_50:.3f}  {row.name}" for row in rows]
    for line, row in zip(figure.axes[0].lines, rows, strict=True):
        assert np.mean(line.get_ydata()) == pytest.approx(row.ap_50, abs=1e-12)
    assert figure.axes[0].get_title("left") == "Precision against recall at IoU 0.5, by class"


@pytest.mark.parametrize("of_f1", [False, True])
def test_of_many_classes_those_with_the_most_objects_are_drawn_and_the_title_says_so(of_f1: bool) -> None:
    analysis = analysed(80)
    objects = [row.objects for row in analysis.result.per_class]
    figure = plot_class_f1(analysis.thresholds) if of_f1 else plot_class_precision_recall(analysis.precision_recall)
    there = sum(count > 0 for count in objects)
    assert figure.axes[0].get_title("left").endswith(f"\nthe 8 classes with the most objects of {there}")
    names = [text.split("  ")[1] for text in legend(figure)]
    drawn = [row.objects for row in analysis.result.per_class if row.name in names]
    assert sorted(drawn) == sorted(objects)[-8:]
    assert [to_hex(line.get_color()) for line in figure.axes[0].lines] == list(PALETTE)
    assert all_on_page(figure)


def test_names_that_are_odd_or_long_are_drawn() -> None:
    coco, detections = random_case(1)
    for entry, name in zip(coco["categories"], ("_x", "a $5 and $6", "風船", "word " * 30, "<b>", ""), strict=True):
        entry["name"] = name
    analysis = analyse_detections(coco, detections)
    for figure in (plot_class_precision_recall(analysis.precision_recall), plot_class_f1(analysis.thresholds)):
        assert len(legend(figure)) == len(figure.axes[0].lines) == 5
        assert not any(text.get_parse_math() for text in figure.legends[0].get_texts())
        assert all_on_page(figure)


def test_f1_draws_the_curves_and_marks_the_best() -> None:
    analysis = analysed()
    curves, best = analysis.thresholds, analysis.result.best_f1
    figure = plot_f1(curves)
    lines = figure.axes[0].lines
    for line, values in zip(lines, (curves.overall.f1, curves.overall.precision, curves.overall.recall), strict=False):
        np.testing.assert_array_equal(line.get_ydata(), values)
        np.testing.assert_array_equal(line.get_xdata(), curves.thresholds)
    assert legend(figure) == ["F1", "Precision", "Recall"]
    assert list(lines[3].get_xdata()) == [best.threshold] * 2
    assert (lines[4].get_xdata()[0], lines[4].get_ydata()[0]) == (best.threshold, best.f1)
    assert figure.axes[0].get_title("left").endswith(f"\nbest F1 {best.f1:.3f}, with scores above {best.threshold:.3f}")
    assert to_hex(figure.axes[0]._left_title.get_color()) == INK
    assert all_on_page(figure)


def test_f1_of_classes() -> None:
    coco = one_image({"bbox": [0, 0, 50, 50]}, {"bbox": [99, 0, 50, 50], "category_id": 1}, categories=3)
    figure = plot_class_f1(analyse_detections(coco, boxes((0, 0, 50, 50, 0.6))).thresholds)
    assert legend(figure) == ["best 1.000  c0", "none right  c1"]
    first, second = (line.get_ydata() for line in figure.axes[0].lines)
    assert (first[:61] == 1).all() and (first[61:] == 0).all() and (second == 0).all()


def test_calibration_draws_a_bar_for_each_bin_that_has_detections() -> None:
    coco = one_image({"bbox": [0, 0, 50, 50]})
    detections = boxes((0, 0, 50, 50, 0.84), (300, 0, 50, 50, 0.82), (300, 0, 50, 50, 0.31))
    analysis = analyse_detections(coco, detections, 0.5)
    figure = plot_calibration(analysis.calibration)
    bars = [(round(bar.get_x() + bar.get_width() / 2, 6), bar.get_height()) for bar in figure.axes[0].patches]
    assert bars == [(0.35, 0), (0.85, 0.5)]
    dots = figure.axes[0].lines[1]
    assert np.allclose(dots.get_xdata(), [0.31, 0.83]) and np.allclose(dots.get_ydata(), [0, 0.5])
    assert [(text.get_text(), round(text.get_position()[0], 6)) for text in figure.axes[0].texts] == [
        ("1", 0.35),
        ("2", 0.85),
    ]
    error = (0.31 + 2 * 0.33) / 3
    assert written(figure)[-1] == f"Score\ncalibration error {error:.3f} (0.330 above 0.500)"
    assert all_on_page(figure)


def test_what_is_undefined_is_said() -> None:
    empty = analyse_detections(one_image(), Detections.empty())
    assert written(plot_precision_recall(empty.precision_recall))[0] == "No objects: no precision, no recall"
    assert written(plot_class_precision_recall(empty.precision_recall))[0] == "No objects: no precision, no recall"
    assert written(plot_f1(empty.thresholds))[0] == "No objects: no recall, no F1"
    assert written(plot_class_f1(empty.thresholds))[0] == "No objects: no F1"
    assert written(plot_calibration(empty.calibration))[0] == "No detections"
    nothing = analyse_detections(one_image({"bbox": [0, 0, 50, 50]}), Detections.empty())
    assert written(plot_f1(nothing.thresholds))[0] == "No detection matches an object"
    assert written(plot_precision_recall(nothing.precision_recall))[0] == "No detection matches an object"


def test_figures_are_small_and_let_the_page_through() -> None:
    analysis = analysed()
    for figure in (plot_f1(analysis.thresholds), plot_calibration(analysis.calibration)):
        assert figure.get_size_inches().tolist() == [4.2, 3.0]
        assert figure.patch.get_alpha() == figure.axes[0].patch.get_alpha() == 0
