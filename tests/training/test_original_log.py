"""log.txt as facebookresearch/detr writes it: from our log, and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.coco_result import COCO_METRICS
from hf_detr_ft.plots.training_curves import plot_average_precision, read_series
from hf_detr_ft.training.original_log import original_lines, read_original_log

NUMBERS = {key: 0.01 * place for place, (key, _, _) in enumerate(COCO_METRICS, 1)}
WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
PARTS = {"loss_ce": 0.5, "loss_bbox": 0.25, "loss_giou": 0.125, "loss_bbox_0": 0.75, "cardinality_error": 3.0}
HISTORY: list[dict[str, Any]] = [
    {"loss": 4.0, **PARTS, "class_error": 20.0, "learning_rate": 1e-4, "grad_norm": 2.0, "epoch": 0.5, "step": 1},
    {"loss": 2.0, **PARTS, "class_error": 40.0, "learning_rate": 1e-4, "grad_norm": 2.0, "epoch": 1.0, "step": 2},
    {"eval_loss": 3.0, "eval_loss_bbox": 0.5, "eval_class_error": 25.0, "epoch": 1.0, "step": 2}
    | {f"eval_{key}": value for key, value in NUMBERS.items()},
    {"loss": 1.0, **PARTS, "loss_giou": float("nan"), "learning_rate": 1e-5, "epoch": 2.0, "step": 4},
    {"eval_map": 0.5, "eval_loss": 2.0, "epoch": 2.0, "step": 4},
]


def test_a_line_has_the_originals_names_weights_and_epochs() -> None:
    first, second = original_lines(HISTORY, WEIGHTS, 41_000)
    assert first == {
        **{"train_class_error": 30.0, "train_loss": 3.0, "train_lr": 1e-4},
        **{"train_loss_ce": 0.5, "train_loss_bbox": 1.25, "train_loss_giou": 0.25, "train_loss_bbox_0": 3.75},
        **{f"train_{name}_unscaled": value for name, value in PARTS.items()},
        "train_class_error_unscaled": 30.0,
        **{"test_class_error": 25.0, "test_class_error_unscaled": 25.0, "test_loss": 3.0},
        **{"test_loss_bbox": 2.5, "test_loss_bbox_unscaled": 0.5},
        "test_coco_eval_bbox": list(NUMBERS.values()),
        **{"epoch": 0, "n_parameters": 41_000},
    }
    assert type(first["epoch"]) is int and second["epoch"] == 1
    assert "train_loss_giou" not in second, "which is not finite, and NaN is no JSON"
    (line,) = original_lines([{**HISTORY[2], "epoch": 0.5}], {}, 1)
    assert line["epoch"] == -0.5 and "test_loss_bbox" not in line and line["test_loss_bbox_unscaled"] == 0.5


def test_a_resumed_run_has_the_same_bytes() -> None:
    shuffled = [dict(sorted(entry.items(), reverse=True)) for entry in HISTORY]
    texts = [json.dumps(original_lines(history, WEIGHTS, 41_000)) for history in (HISTORY, shuffled)]
    assert texts[0] == texts[1]


def write(path: Path, *lines: Any) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_what_was_written_is_read_as_it_was(tmp_path: Path) -> None:
    lines = original_lines(HISTORY[:3], WEIGHTS, 41_000)
    history, evaluations = read_original_log(write(tmp_path / "log.txt", *lines))
    assert evaluations == [{"epoch": 1.0, "metrics": NUMBERS}]
    for name, value in {**PARTS, "loss": 3.0, "class_error": 30.0, "learning_rate": 1e-4, "eval_loss": 3.0}.items():
        assert [column.tolist() for column in read_series(history, name)] == [[1.0], [value]], name
    assert read_series(history, "eval_loss_bbox")[1].tolist() == [0.5]
    assert read_series(history, "grad_norm")[1].tolist() == []


def test_ap_is_the_first_of_the_twelve_numbers_and_ap50_the_second(tmp_path: Path) -> None:
    lines = [{"epoch": n, "test_coco_eval_bbox": [0.1 + n / 100, 0.4, 0.3, *[-1.0] * 9]} for n in range(3)]
    history, _ = read_original_log(write(tmp_path / "log.txt", *lines))
    for name, title, expected in (("map", "AP", [0.1, 0.11, 0.12]), ("map_50", "AP50", [0.4] * 3)):
        (axes,) = plot_average_precision({"a": history}, [name]).axes
        assert axes.get_title(loc="left") + axes.get_title() == title
        np.testing.assert_allclose(axes.lines[0].get_ydata(), expected)
        np.testing.assert_allclose(axes.lines[0].get_xdata(), [1, 2, 3])
    assert read_series(history, "eval_map_small")[1].tolist() == [], "-1: there is no such object"


def test_of_an_epoch_that_comes_twice_the_later_line_counts(tmp_path: Path) -> None:
    lines = [{"epoch": epoch, "train_loss": loss} for epoch, loss in ((0, 9.0), (1, 8.0), (0, 3.0), (1, 2.0))]
    history, evaluations = read_original_log(write(tmp_path / "log.txt", *lines))
    assert read_series(history, "loss")[1].tolist() == [3.0, 2.0] and not evaluations


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"epoch": 0}, '{"epoch": 1, "tra'], "line 2: expected a JSON object, but Unterminated string"),
        (["epoch 1 loss 3"], "line 1: expected a JSON object, but Expecting value"),
        ([["a", "list"]], "line 1: expected an epoch of facebookresearch/detr, with 'epoch' and 12 numbers"),
        ([{"step": 1}], "line 1: expected an epoch"),
        ([{"epoch": 0, "test_coco_eval_bbox": [0.5]}], "line 1: expected an epoch"),
        ([{"epoch": 0, "test_coco_eval_bbox": ["high"] * 12}], "line 1: expected an epoch"),
        ([], "expected the log of facebookresearch/detr, a JSON object an epoch, found nothing."),
    ],
)
def test_another_log_is_named_with_its_line(lines: list[Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "log.txt", *lines)
    with pytest.raises(DataError) as caught:
        read_original_log(path)
    assert str(caught.value).startswith(f"{path}: {message}")
