"""The pages there are, each a list of sections."""

from collections.abc import Sequence
from dataclasses import dataclass

from hf_detr_ft.data.checks.annotation_fields import Problem
from hf_detr_ft.evaluation.analysis import Analysis
from hf_detr_ft.formatting import counted
from hf_detr_ft.report.blocks import Page
from hf_detr_ft.report.load_run import RunRecord, Validation
from hf_detr_ft.report.sections.attention_section import Look, describe_attention
from hf_detr_ft.report.sections.curve_section import describe_curves
from hf_detr_ft.report.sections.data_section import DataView, describe_data
from hf_detr_ft.report.sections.details_section import compare_recipes, describe_making
from hf_detr_ft.report.sections.error_section import describe_errors, describe_precision
from hf_detr_ft.report.sections.gallery_section import describe_gallery
from hf_detr_ft.report.sections.problem_section import describe_problems
from hf_detr_ft.report.sections.result_section import compare_results, describe_result


@dataclass(frozen=True, eq=False)
class Views:
    """What the page shows beside what the run folder tells; None, or nothing, where it cannot be had.

    Attributes:
        validation: truth and detections.
        analysis: of them.
        looks: the model's attention over some photos.
        data: both splits.
    """

    validation: Validation | None = None
    analysis: Analysis | None = None
    looks: Sequence[Look] = ()
    data: DataView | None = None


def build_run_page(record: RunRecord, views: Views, notes: Sequence[str] = ()) -> Page:
    """The page of one run.

    Args:
        record: as its folder tells it.
        views: what there is to see.
        notes: what is missing, and why.
    """
    analysis = views.analysis
    sections = [describe_result(record, analysis), describe_curves([record])]
    if analysis is not None and views.validation is not None:
        sections += [describe_precision(analysis), describe_errors(analysis)]
        sections.append(describe_gallery(views.validation, analysis.errors, record.threshold))
    if views.looks and analysis is not None:
        sections.append(describe_attention(views.looks, [row.name for row in analysis.result.per_class]))
    if views.data is not None:
        sections.append(describe_data(views.data))
    sections.append(describe_making(record))
    return Page(record.name, _subtitle(record), sections, notes)


def build_comparison_page(records: Sequence[RunRecord]) -> Page:
    """The page of several runs: their numbers side by side, their curves laid over each other."""
    sections = [compare_results(records), describe_curves(records), compare_recipes(records)]
    return Page(f"{len(records)} runs", ", ".join(record.name for record in records), sections)


def build_check_page(name: str, problems: Sequence[Problem], data: DataView | None) -> Page:
    """The page of a data set before any training.

    Args:
        name: of the data set.
        problems: what was found in it.
        data: both splits; None where errors stand in the way of reading them.
    """
    sections = [describe_problems(problems)] if data is None else [describe_data(data)]
    return Page(name, "The data, before any training", sections)


def _subtitle(record: RunRecord) -> str:
    kept, data = record.kept, (record.metrics.get("data") or {}).get("name") or record.setting("data", "name")
    parts = [f"fine-tuned on {data}"] if data and record.recipe else []
    if kept is not None:
        ap = kept["metrics"]["map"]
        parts.append("AP n/a" if ap < 0 else f"AP {ap:.3f}, AP50 {kept['metrics']['map_50']:.3f}")
        parts.append(counted(kept["images"], "validation image"))
    return " · ".join(parts)
