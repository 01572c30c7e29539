"""The report of a run: `plots/predictions.png`, the page, and its numbers in metrics.json."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from transformers import PreTrainedModel

from hf_detr_ft.atomic import write_bytes, write_json, write_text
from hf_detr_ft.data.image_size import ImageProcessor
from hf_detr_ft.data.splits import Splits
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.report.attempt import attempt
from hf_detr_ft.report.blocks import Page, Plot
from hf_detr_ft.report.collect import add_numbers, collect_report_data
from hf_detr_ft.report.load_run import LoadedRun, Validation, load_run
from hf_detr_ft.report.pages import ReportData, build_run_page
from hf_detr_ft.report.predictions_sheet import draw_predictions
from hf_detr_ft.report.render_page import render_page
from hf_detr_ft.report.svg import report_style, to_png
from hf_detr_ft.run_folder import IMAGE_PLOTS, METRICS, PLOTS, RunFolder
from hf_detr_ft.training.callbacks import log_picture
from hf_detr_ft.training.job import Job


@dataclass
class Report:
    """Files of a report, and what has to be said about it.

    Attributes:
        page: the HTML file; None where it could not be written.
        picture: validation images with truth and predictions; None where there is none.
        notes: what is missing in the report, and why, a line each.
    """

    page: Path | None = None
    picture: Path | None = None
    notes: list[str] = field(default_factory=list)


def write_report(
    run: RunFolder,
    recipe: Recipe | None,
    splits: Splits | None,
    *,
    model: PreTrainedModel | None = None,
    processor: ImageProcessor | None = None,
    loaded: LoadedRun | None = None,
    validation: Validation | None = None,
    output: Path | None = None,
    plots: bool = False,
    notes: Sequence[str] = (),
) -> Report:
    """Writes the report of a run as far as it can be made; what fails in it becomes a note and is never raised.

    Args:
        run: the run folder, another folder of a model, or a Hub id.
        recipe: the run's; None where it cannot be read.
        splits: data of the run; None where they cannot be read.
        model: with the run's weights, on any device; used in evaluation mode. Loaded from the run where not given.
        processor: the model's.
        loaded: the run as its folder tells it; read here where not given, and with it the run's detections on `splits`.
        validation: truth, detections and images beside `loaded`; None where they cannot be had.
        output: the page's file; None for the run folder, which gets picture and numbers, too.
        plots: write each figure of the page as a PNG, too, into the folder `plots` beside the page.
        notes: what the page says at its top, and the result first.
    """
    report = Report(notes=list(notes))
    failures: list[str] = []
    with attempt("the report", failures), report_style():
        if loaded is None:
            loaded = LoadedRun(run.name, folder=str(run))
            with attempt("what the run folder tells", report.notes):
                loaded = load_run(run)
            with attempt("the validation images", report.notes):
                validation = read_validation(run, splits, recipe)
        if output is None and validation is not None and validation.rows is not None:
            with attempt("the picture of predictions", report.notes):
                report.picture = draw_predictions(run, validation, loaded.threshold)
        data, missing = collect_report_data(run, loaded, validation, recipe, splits, model, processor)
        report.notes += missing
        page = build_run_page(loaded, data, report.notes, failures)
        target = run.report if output is None else output
        with attempt("the page", failures):
            write_page(page, target, failures)
            report.page = target
        if output is None and loaded.metrics:
            with attempt(f"the report's numbers in {METRICS}", failures):
                add_to_metrics(run, loaded, data)
        if plots:
            with attempt("single figures", failures):
                write_plots(page, run.plots if output is None else output.parent / PLOTS, failures)
    report.notes += failures
    return report


def add_to_metrics(run: RunFolder, loaded: LoadedRun, data: ReportData) -> None:
    """Adds the page's numbers to metrics.json, unless the page is about an evaluation on other data."""
    if loaded.metrics == run.read_metrics():
        write_json(run.metrics, add_numbers(loaded.metrics, data.analysis, data.data))


def read_validation(run: RunFolder, splits: Splits | None, recipe: Recipe | None) -> Validation | None:
    """The run's detections with their truth and images; None without them."""
    if splits is None or recipe is None or not run.detections.is_file():
        return None
    detections = Detections.from_npz(run.detections.read_bytes())
    return Validation(splits.truth, detections, splits.val, recipe.evaluation.max_detections)


def write_page(page: Page, target: Path, failures: list[str] | None = None) -> None:
    """Writes the HTML; figures that cannot be drawn are noted."""
    write_text(target, render_page(page, failures=failures))


def write_plots(page: Page, folder: Path, failures: list[str]) -> None:
    """Writes a PNG of each figure of a page, those with images of the user's into `photos` below the folder.

    `push` takes no picture from there: the user's images are not the model's to publish.
    """
    for block in page.blocks():
        if isinstance(block, Plot):
            with attempt(f"{block.name}.png", failures):
                place = folder / IMAGE_PLOTS if block.shows_images else folder
                place.mkdir(parents=True, exist_ok=True)
                write_bytes(place / f"{block.name}.png", to_png(block.figure))


def report_training(run: RunFolder, job: Job) -> list[str]:
    """Report of a training that has just come to its end, if the recipe wants one; nothing here can undo the training.

    Returns:
        Places of picture and page, and what is missing in them and why, a line each for the terminal.
    """
    if not job.recipe.report.enabled:
        return []
    model, processor = cast(PreTrainedModel, job.trainer.model), job.trainer.processing_class
    report = write_report(run, job.recipe, job.splits, model=model, processor=cast(ImageProcessor, processor))
    notes, lines = list(report.notes), []
    if report.picture is not None:
        lines.append(f"first look  {report.picture}  (validation images: what is found, missed and wrong)")
        with attempt("the picture of predictions in TensorBoard", notes):
            log_picture(job.trainer, "predictions", report.picture)
    if report.page is not None:
        lines.append(f"the page    {report.page}  (results, curves, photos and recipe; open it in a browser)")
    if notes:
        lines += [*(f"note        {note}" for note in notes), f"once more   hf-detr-ft report {run}"]
    return lines
