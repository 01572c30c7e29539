"""Pages of the report, each a list of sections."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.evaluation.analysis import Analysis
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.report.attempt import attempt
from hf_detr_ft.report.blocks import Note, Page, Section
from hf_detr_ft.report.load_run import LoadedRun, Validation
from hf_detr_ft.report.sections.attention_section import AttentionSample, describe_attention
from hf_detr_ft.report.sections.curve_section import describe_curves
from hf_detr_ft.report.sections.data_section import DataSummary, describe_data
from hf_detr_ft.report.sections.details_section import compare_recipes, describe_run_details
from hf_detr_ft.report.sections.error_section import describe_errors, describe_precision
from hf_detr_ft.report.sections.gallery_section import describe_gallery
from hf_detr_ft.report.sections.overview_section import describe_overview
from hf_detr_ft.report.sections.problem_section import describe_problems
from hf_detr_ft.report.sections.result_section import compare_results, describe_result


@dataclass(eq=False)
class ReportData:
    """Contents of the page beside what the run folder tells; None, or nothing, where they cannot be had.

    Attributes:
        validation: truth and detections.
        analysis: of them.
        attention: the model's attention over some images.
        data: both splits.
    """

    validation: Validation | None = None
    analysis: Analysis | None = None
    attention: Sequence[AttentionSample] = ()
    data: DataSummary | None = None


def build_run_page(
    run: LoadedRun, data: ReportData, notes: Sequence[str] = (), failures: list[str] | None = None
) -> Page:
    """The page of one run; a section that fails holds a note in its place.

    Args:
        run: as its folder tells it.
        data: what there is to see beside that.
        notes: what is missing, and why.
        failures: gets a line for each section that fails.
    """
    failures = [] if failures is None else failures
    analysis, validation, summary = data.analysis, data.validation, data.data
    sections = []
    if run.evaluation is not None:
        sections.append(_attempt_section("At a glance", "overview", lambda: describe_overview(run, analysis), failures))
    if analysis is not None and validation is not None:
        build = partial(describe_gallery, validation, analysis.errors, run.threshold)
        sections.append(_attempt_section("Gallery", "gallery", build, failures))
    sections += [
        _attempt_section("Curves", "curves", lambda: describe_curves([run]), failures),
        _attempt_section("Result", "result", lambda: describe_result(run, analysis), failures),
    ]
    if analysis is not None:
        sections += [
            _attempt_section("Precision and recall", "precision", lambda: describe_precision(analysis), failures),
            _attempt_section("Errors", "errors", lambda: describe_errors(analysis), failures),
        ]
    if data.attention and analysis is not None:
        names = [row.name for row in analysis.result.per_class]
        build = partial(describe_attention, data.attention, names, failures)
        sections.append(_attempt_section("Attention", "attention", build, failures))
    if summary is not None:
        sections.append(_attempt_section("Data", "data", lambda: describe_data(summary), failures))
    sections.append(_attempt_section("How it was made", "making", lambda: describe_run_details(run), failures))
    return Page(run.name, _subtitle(run), sections, notes)


def build_comparison_page(runs: Sequence[LoadedRun], first: Sequence[Section] = ()) -> Page:
    """The page of several runs: their numbers side by side, their curves laid over each other.

    Args:
        runs: with their numbers.
        first: sections before these.
    """
    sections = [*first, compare_results(runs), describe_curves(runs), compare_recipes(runs)]
    return Page(pluralize(len(runs), "run"), ", ".join(run.name for run in runs), sections)


def build_check_page(
    name: str, problems: Sequence[Problem], data: DataSummary | None, notes: Sequence[str] = ()
) -> Page:
    """The page of a data set before any training.

    Args:
        name: of the data set.
        problems: what was found in it.
        data: both splits; None where errors stand in the way of reading them.
        notes: what is missing, and why.
    """
    sections = [describe_problems(problems)] if data is None else [describe_data(data)]
    return Page(name, "The data, before any training", sections, notes)


def _attempt_section(title: str, anchor: str, build: Callable[[], Section], failures: list[str]) -> Section:
    before = len(failures)
    with attempt(f"the section {title}", failures):
        return build()
    return Section(title, anchor, [Note(failure) for failure in failures[before:]])


def _subtitle(run: LoadedRun) -> str:
    evaluation, data = run.evaluation, (run.metrics.get("data") or {}).get("name") or run.setting("data", "name")
    parts = [f"fine-tuned on {data}"] if data and run.recipe else []
    if evaluation is not None:
        ap = evaluation["metrics"]["map"]
        parts.append("AP n/a" if ap < 0 else f"AP {ap:.3f}, AP50 {evaluation['metrics']['map_50']:.3f}")
        parts.append(pluralize(evaluation["images"], "validation image"))
    return " · ".join(parts)
