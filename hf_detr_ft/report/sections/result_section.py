"""The section Result: COCO's numbers of best and last, per class and per size, and the threshold of the best F1."""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_detr_ft.evaluation.analysis import Analysis
from hf_detr_ft.evaluation.coco_result import COCO_METRICS, metric_rows
from hf_detr_ft.evaluation.groups import Estimate
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.report.blocks import Block, Cell, Note, Number, Section, Table, Text
from hf_detr_ft.report.load_run import LoadedRun
from hf_detr_ft.report.sections.error_section import interval_table, recall_table
from hf_detr_ft.run_folder import METRICS

MOST_CLASSES = 1000
"""Rows of a table."""


def describe_result(run: LoadedRun, analysis: Analysis | None = None) -> Section:
    """Describes the result of one run.

    Args:
        run: with the numbers.
        analysis: of the same detections; None where there are none.
    """
    evaluation = run.evaluation
    if evaluation is None:
        note = "No evaluation took place (training.eval_strategy: no), so there is no result. Evaluate the run with"
        return Section("Result", "result", [Note(f"{note} hf-detr-ft evaluate {run.folder or run.name}.")])
    columns = [(_title("Best", run.best), run.best), (_title("Last", run.last), run.last)]
    given = [(title, evaluation) for title, evaluation in columns if evaluation]
    blocks: list[Block] = [Text(_in_words(run, evaluation))]
    if not evaluation["objects"]:
        blocks.append(Note("The validation images have no objects: AP is not defined, and every prediction is wrong."))
    blocks += [*_coco_tables(given), *(interval_table(analysis) if analysis else ()), _size_table(evaluation)]
    blocks += [*([recall_table(analysis)] if analysis else ()), *_threshold(evaluation), *_class_table(evaluation)]
    blocks += [_test_table(run.test)] if run.test else []
    return Section("Result", "result", blocks)


def describe_together(together: Mapping[str, Estimate], images: int, pooled: bool) -> Section:
    """Describes what runs of one recipe come to together.

    Args:
        together: AP and AP50 of all.
        images: that they are of.
        pooled: they are of the detections of all folds, and not means over seeds alone.
    """
    has_seeds = any(found.deviation is not None for found in together.values())
    columns = ["", "Mean", *(["Deviation between seeds"] if has_seeds else []), "95 % from", "to"]
    rows: list[tuple[Cell, ...]] = []
    for name, found in together.items():
        limits = (getattr(found.interval, limit, None) for limit in ("low", "high"))
        values = (found.mean, *([found.deviation] if has_seeds else []), *limits)
        rows.append((name, *map(Number, values)))
    what = "detections of all folds pooled" if pooled else "mean over seeds"
    caption = f"{pluralize(images, 'validation image')}, {what}"
    note = f"The limits are for other images of the kind{' and other seeds' * has_seeds}."
    return Section("Together", "together", [Table("together", caption, columns, rows), Text(note)])


def compare_results(runs: Sequence[LoadedRun]) -> Section:
    """Sets several runs side by side, a column each: the evaluation whose weights lie in the folder."""
    given = [(run.name, run.evaluation) for run in runs if run.evaluation]
    without = [run.name for run in runs if not run.evaluation]
    blocks: list[Block] = [Note(f"No evaluation took place in {', '.join(without)}.")] if without else []
    originals = [run.name for run in runs if run.is_original]
    if originals:
        told = "has COCO's twelve numbers of each epoch, of which the last one's are shown"
        text = f"{', '.join(originals)}: a log of facebookresearch/detr, which {told}. It does not say on which images."
        blocks.append(Note(text))
    own = [run for run in runs if run.evaluation and not run.is_original]
    data = {str((run.metrics.get("data") or {}).get("name")) for run in own}
    sizes = {(run.evaluation["images"], run.evaluation["objects"]) for run in own if run.evaluation}
    if len(data) > 1 or len(sizes) > 1:
        blocks.append(Note("These runs were evaluated on different data, so their numbers cannot be compared."))
    if given:
        blocks += _coco_tables(given)
    if own:
        blocks.append(_f1_table([(run.name, run.evaluation) for run in own if run.evaluation]))
    return Section("Result", "result", blocks)


def _title(which: str, evaluation: Mapping[str, Any] | None) -> str:
    epoch = (evaluation or {}).get("epoch")
    return which if epoch is None else f"{which} (epoch {epoch:.4g})"


def _in_words(run: LoadedRun, evaluation: Mapping[str, Any]) -> str:
    over = f"on {pluralize(evaluation['images'], 'image')} with {pluralize(evaluation['objects'], 'object')}"
    if run.last is None:
        return f"The weights as they are, evaluated {over} for this page."
    which = "best" if run.keeps_best_weights else "last"
    where = "" if evaluation.get("epoch") is None else f", after epoch {evaluation['epoch']:.4g}"
    return f"The run folder holds the weights of the {which} evaluation{where}, {over}."


def _coco_tables(given: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Table]:
    """COCO's numbers of boxes and, where there are masks, of these."""
    columns, caption = ["", "Of", *(title for title, _ in given)], "COCO's twelve numbers"
    rows: list[Sequence[Cell]] = [
        (name, meaning, *(Number.of_metric(evaluation["metrics"].get(key, -1)) for _, evaluation in given))
        for key, name, meaning in metric_rows(key for _, evaluation in given for key in evaluation["metrics"])
    ]
    beyond = ", and those of more detections of an image" if len(rows) > len(COCO_METRICS) else ""
    tables = [Table("coco", f"{caption}{beyond}; n/a where there is no such object", columns, rows)]
    if any(evaluation.get("mask_metrics") for _, evaluation in given):
        of_masks = [evaluation.get("mask_metrics") or {} for _, evaluation in given]
        rows = [
            (f"{name} of masks", meaning, *(Number.of_metric(metrics.get(f"mask_{key}", -1)) for metrics in of_masks))
            for key, name, meaning in COCO_METRICS
        ]
        tables.append(Table("coco-masks", f"{caption} of masks, by the IoU of masks", columns, rows))
    return tables


def _test_table(test: Mapping[str, Any]) -> Table:
    over = f"{pluralize(test['images'], 'image')} with {pluralize(test['objects'], 'object')}"
    caption = f"On the test split, {over}: evaluated once, at the end, and used to choose nothing"
    rows = [
        (name, meaning, Number.of_metric(test["metrics"][key])) for key, name, meaning in metric_rows(test["metrics"])
    ]
    return Table("test", caption, ["", "Of", "Test"], rows)


def _size_table(evaluation: Mapping[str, Any]) -> Table:
    limits = {"small": "below 32²", "medium": "from 32² to 96²", "large": "from 96² on"}
    rows: list[Sequence[Cell]] = [
        (
            f"{size} ({limits[size]})",
            Number(evaluation["sizes"][size]),
            *(Number.of_metric(evaluation["metrics"][f"{kind}_{size}"]) for kind in ("map", "mar")),
        )
        for size in limits
    ]
    return Table("sizes", "By size of the object, in square pixels", ["Size", "Objects", "AP", "AR"], rows)


def _class_table(evaluation: Mapping[str, Any]) -> list[Block]:
    columns = ["Class", "Objects", "AP", "AP50", "AR"]
    rows = [
        (row["name"], Number(row["objects"]), *(Number.of_metric(row[key]) for key in ("ap", "ap_50", "ar_100")))
        for row in evaluation["per_class"]
    ]
    blocks: list[Block] = [Table("classes", "By class", columns, rows[:MOST_CLASSES], sortable=len(rows) > 1)]
    if len(rows) > MOST_CLASSES:
        blocks.append(Note(f"{len(rows) - MOST_CLASSES} more classes are in {METRICS}."))
    return blocks


def _threshold(evaluation: Mapping[str, Any]) -> list[Block]:
    if not evaluation["best_f1"]["f1"]:
        return [Text("There is no threshold of the best F1: no detection matches an object.")]
    return [_f1_table([("", evaluation)])]


def _f1_table(given: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    caption = "The best F1 over all classes at IoU 0.50: keep detections with a score above this threshold"
    keys = ("threshold", "f1", "precision", "recall")
    rows = [(name, *(_f1_number(evaluation["best_f1"], key) for key in keys)) for name, evaluation in given]
    columns = ["Threshold", "F1", "Precision", "Recall"]
    if not given[0][0]:
        return Table("best-f1", caption, columns, [row[1:] for row in rows])
    return Table("best-f1", caption, ["Run", *columns], rows)


def _f1_number(best_f1: Mapping[str, float], key: str) -> Number | str:
    if key != "threshold":
        return Number(best_f1[key])
    if not best_f1["f1"]:
        return Number(None)
    return Number(best_f1[key], shown=f"{best_f1[key]:.3f}")
