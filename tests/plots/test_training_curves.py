"""Curves of trainings: what is drawn is what the log says."""

import io
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_detr_ft.plots.training_curves import (
    LOSS_TITLES,
    MOST_POINTS,
    average_neighbours,
    plot_average_precision,
    plot_gradient_norm,
    plot_layers,
    plot_learning_rates,
    plot_losses,
    read_series,
)


def log(epochs: int, factor: float = 1.0) -> list[dict[str, Any]]:
    """Two lines of losses and one of an evaluation an epoch."""
    lines: list[dict[str, Any]] = []
    for epoch in range(epochs):
        for half in (0.5, 1.0):
            rates = {"learning_rate": 1e-4, "backbone_learning_rate": 1e-5}
            lines.append({"epoch": epoch + half, "loss": factor * (10 - epoch), "grad_norm": 7.0, **rates})
        values = {"map": 0.1 * epoch, "map_50": 0.2 * epoch, "map_small": -1.0, "loss": factor * (11 - epoch)}
        layers = {"loss_ce_0": 3.0, "loss_ce_1": 2.0, "loss_ce": 1.0}
        lines.append({"epoch": epoch + 1.0, **{f"eval_{name}": v for name, v in {**values, **layers}.items()}})
    return lines


def drawn(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    (axes,) = figure.axes
    lines = [line for line in axes.lines if len(np.asarray(line.get_xdata()))]
    return {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_training_and_validation_lie_in_one_figure() -> None:
    lines = drawn(plot_losses({"a": log(2)}))
    assert lines["training"] == ([0.5, 1.0, 1.5, 2.0], [10, 10, 9, 9])
    assert lines["validation"] == ([1.0, 2.0], [11, 10])


def test_runs_are_overlaid_in_colours_of_their_own() -> None:
    figure = plot_losses({"a": log(2), "b$b$": log(3, 2.0)})
    lines = drawn(figure)
    assert lines["a"] == ([1.0, 2.0], [11, 10])
    assert lines["b$b$"] == ([1.0, 2.0, 3.0], [22, 20, 18])
    by_label = {str(line.get_label()): line.get_color() for line in figure.axes[0].lines}
    assert by_label["a"] != by_label["b$b$"]
    (legend,) = figure.legends
    assert not any(text.get_parse_math() for text in legend.get_texts())


def test_every_layer_is_there_and_the_last_one_is_named() -> None:
    lines = drawn(plot_layers(log(1), "loss_ce"))
    assert {label: y for label, (_, y) in lines.items()} == {
        "layer 1": [3.0],
        "layer 2": [2.0],
        "layer 3, the last": [1.0],
    }
    only_training = [{"epoch": 1.0, "loss_giou": 0.5, "loss_giou_0": 0.25}]
    assert drawn(plot_layers(only_training, "loss_giou")) == {
        "layer 1": ([1.0], [0.25]),
        "layer 2, the last": ([1.0], [0.5]),
    }


def test_what_else_a_family_learns_from_is_drawn_beside_its_layers() -> None:
    """As D-FINE logs it: in validation the last layer alone, and no DDF of the last layer, which is the teacher."""
    values = {"loss_vfl_0": 1.0, "loss_vfl": 2.0, "loss_vfl_initial": 3.0, "loss_vfl_enc": 4.0, "loss_ddf_0": 5.0}
    denoising = {"loss_vfl_dn_0": 6.0, "loss_vfl_dn_1": 7.0, "loss_vfl_dn_initial": 8.0}
    history = [{"epoch": 1.0, **values, **denoising}, {"epoch": 1.0, "eval_loss_vfl": 9.0, "eval_loss_vfl_enc": 9.5}]
    layers, noised, ddf = (
        plot_layers(history, "loss_vfl"),
        plot_layers(history, "loss_vfl", denoising=True),
        plot_layers(history, "loss_ddf"),
    )
    assert {label: y for label, (_, y) in drawn(layers).items()} == {
        "layer 1": [1.0],
        "layer 2, the last": [2.0],
        "initial boxes": [3.0],
        "encoder": [4.0],
    }
    assert {label: y for label, (_, y) in drawn(noised).items()} == {
        "layer 1": [6.0],
        "layer 2": [7.0],
        "initial boxes": [8.0],
    }
    assert drawn(ddf) == {"layer 1": ([1.0], [5.0])}
    assert layers.axes[0].get_title("left").endswith("training") and "denoising" in noised.axes[0].get_title("left")


def test_tiny_losses_have_no_power_of_ten_over_the_title() -> None:
    figure = plot_losses({"a": [{"epoch": float(epoch), "loss_fgl": epoch * 1e-7} for epoch in range(3)]}, "loss_fgl")
    figure.canvas.draw()
    assert figure.axes[0].yaxis.get_offset_text().get_text() == ""
    assert "1e-07" in [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_an_error_that_is_zero_throughout_has_no_axis_below_zero() -> None:
    history = [{"epoch": 1.0, "class_error": 0.0}, {"epoch": 2.0, "class_error": 0.0}]
    (axes,) = plot_losses({"a": history}, "class_error").axes
    assert axes.get_ylim()[0] == 0 < axes.get_ylim()[1]


def test_average_precision_begins_at_zero_and_marks_the_best_epoch() -> None:
    figure = plot_average_precision({"a": log(3)}, best_epoch=3.0)
    lines = drawn(figure)
    assert lines["AP"] == ([1.0, 2.0, 3.0], [0.0, 0.1, 0.2])
    assert lines["AP50"][1] == [0.0, 0.2, 0.4]
    assert lines["best: epoch 3"][0] == [3.0, 3.0]
    assert figure.axes[0].get_ylim()[0] == 0


def test_both_learning_rates_and_the_norm_with_its_limit() -> None:
    lines = drawn(plot_learning_rates({"a": log(1)}))
    assert (lines["transformer and heads"][1], lines["backbone"][1]) == ([1e-4] * 2, [1e-5] * 2)
    figure = plot_gradient_norm({"a": log(1)}, 0.1)
    assert drawn(figure)["clipped to 0.1"][1] == [0.1, 0.1]
    assert figure.axes[0].get_yscale() == "log"
    assert not any("clipped" in label for label in drawn(plot_gradient_norm({"a": log(1)}, 0.0)))


@pytest.mark.parametrize("history", [[], [{"train_runtime": 3.0}], [{"epoch": 1.0, "loss": math.nan, "eval_map": -1}]])
def test_what_is_not_there_is_said(history: list) -> None:
    figures = [plot_losses({"a": history}, part) for part in LOSS_TITLES]
    figures += [plot_layers(history), plot_learning_rates({"a": history}), plot_gradient_norm({"a": history}, 1.0)]
    figures += [plot_average_precision({"a": history}), plot_average_precision({"a": log(2)}, ["map_small"])]
    for figure in figures:
        (axes,) = figure.axes
        assert len(texts(axes)) == 1 and texts(axes)[0].startswith(("not in the log", "no evaluation"))
        assert axes.get_title(loc="left")
        figure.savefig(io.BytesIO(), format="svg")


def test_one_epoch_is_a_point_that_is_seen() -> None:
    (axes,) = plot_average_precision({"a": log(1)}).axes
    assert {line.get_marker() for line in axes.lines} == {"o"}
    assert axes.get_xlim()[0] == 0


def test_long_logs_are_averaged_not_cut() -> None:
    x, y = average_neighbours(np.arange(1000.0), np.arange(1000.0) * 2, most=300)
    assert len(x) == 250
    assert (x[0], y[0]) == (1.5, 3.0)
    x, y = average_neighbours(np.arange(10.0), np.ones(10), most=4)
    assert (x.tolist(), y.tolist()) == ([1.0, 4.0, 7.0, 9.0], [1.0] * 4)
    steps = [{"epoch": step / 10, "loss": 1.0} for step in range(30_000)]
    assert len(drawn(plot_losses({"a": steps}))["training"][0]) <= MOST_POINTS


def test_series_leave_out_what_is_no_number() -> None:
    history = [{"epoch": 1.0, "loss": 2}, {"epoch": 2.0, "loss": math.inf}, {"epoch": 3.0, "loss": "much"}, {"loss": 1}]
    epochs, values = read_series(history, "loss")
    assert (epochs.tolist(), values.tolist()) == ([1.0], [2.0])
