"""The pages there are, each a list of sections."""

from collections.abc import Sequence

from hf_detr_ft.data.entries import Problem
from hf_detr_ft.evaluation.wording import counted
from hf_detr_ft.report.blocks import Page
from hf_detr_ft.report.curves import describe_curves
from hf_detr_ft.report.gallery import describe_gallery
from hf_detr_ft.report.making import compare_recipes, describe_making
from hf_detr_ft.report.problems import describe_problems
from hf_detr_ft.report.record import RunRecord, Validation
from hf_detr_ft.report.result import compare_results, describe_result


def build_run_page(record: RunRecord, validation: Validation | None, notes: Sequence[str] = ()) -> Page:
    """The page of one run.

    Args:
        record: as its folder tells it.
        validation: truth and detections; None where they cannot be had, which `notes` explain.
        notes: what is missing.
    """
    sections = [describe_result(record), describe_curves([record])]
    if validation is not None:
        sections.append(describe_gallery(validation, record.threshold))
    sections.append(describe_making(record))
    return Page(record.name, _subtitle(record), sections, notes)


def build_comparison_page(records: Sequence[RunRecord]) -> Page:
    """The page of several runs: their numbers side by side, their curves laid over each other."""
    sections = [compare_results(records), describe_curves(records), compare_recipes(records)]
    return Page(f"{len(records)} runs", ", ".join(record.name for record in records), sections)


def build_check_page(name: str, problems: Sequence[Problem]) -> Page:
    """The page of a data set before any training."""
    return Page(name, "The data, before any training", [describe_problems(problems)])


def _subtitle(record: RunRecord) -> str:
    kept, data = record.kept, (record.metrics.get("data") or {}).get("name") or record.setting("data", "name")
    parts = [f"fine-tuned on {data}"] if data and record.recipe else []
    if kept is not None:
        ap = kept["metrics"]["map"]
        parts.append("AP n/a" if ap < 0 else f"AP {ap:.3f}, AP50 {kept['metrics']['map_50']:.3f}")
        parts.append(counted(kept["images"], "validation image"))
    return " · ".join(parts)
