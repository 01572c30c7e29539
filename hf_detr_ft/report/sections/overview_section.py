"""The section At a glance: AP with its interval and its curve, and how much is found and right."""

from collections.abc import Mapping
from typing import Any

from hf_detr_ft.evaluation.analysis import Analysis
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.plots.training_curves import plot_average_precision
from hf_detr_ft.report.blocks import Block, KeyNumber, KeyNumbers, Plot, Section, Text
from hf_detr_ft.report.describe_errors import describe_result
from hf_detr_ft.report.load_run import LoadedRun


def describe_overview(run: LoadedRun, analysis: Analysis | None) -> Section:
    """Numbers of the weights in the folder, what stands out in words, and the AP over the training.

    Args:
        run: with an evaluation.
        analysis: of the same detections; None where there are none.
    """
    assert run.evaluation is not None
    words = [] if analysis is None else [Text(" ".join(describe_result(analysis)))]
    numbers = _key_numbers(run.evaluation, analysis)
    if run.test and run.test["metrics"]["map"] >= 0:
        over = f"{pluralize(run.test['images'], 'image')} that chose nothing"
        numbers.append(KeyNumber("Test AP", f"{run.test['metrics']['map']:.3f}", over))
    blocks: list[Block] = [KeyNumbers(numbers), *words]
    if run.has_ap_curve:
        best_epoch = run.best.get("epoch") if run.best else None
        blocks.append(Plot("average-precision", plot_average_precision({run.name: run.history}, best_epoch=best_epoch)))
    return Section("At a glance", "overview", blocks)


def _key_numbers(evaluation: Mapping[str, Any], analysis: Analysis | None) -> list[KeyNumber]:
    numbers = []
    for key, name, meaning in (("map", "AP", "IoU 0.50 to 0.95"), ("map_50", "AP50", "IoU 0.50")):
        value = evaluation["metrics"][key]
        interval = analysis.intervals[key] if analysis is not None else None
        if interval is not None:
            meaning = f"{interval.low:.2f} to {interval.high:.2f} with 95 % confidence"
        numbers.append(KeyNumber(name, "n/a" if value < 0 else f"{value:.3f}", meaning))
    mask_ap = (evaluation.get("mask_metrics") or {}).get("mask_map", -1)
    if mask_ap >= 0:
        numbers.append(KeyNumber("Mask AP", f"{mask_ap:.3f}", "IoU of masks 0.50 to 0.95"))
    best = evaluation["best_f1"]
    if best["f1"]:
        objects = pluralize(evaluation["objects"], "object")
        numbers += [
            KeyNumber(
                "Found", f"{100 * best['recall']:.0f} %", f"of {objects}, with scores above {best['threshold']:.3f}"
            ),
            KeyNumber("Right", f"{100 * best['precision']:.0f} %", "of the detections with such scores"),
        ]
    return numbers
