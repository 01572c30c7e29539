"""A page of the report as a file, and its figures beside it."""

from collections.abc import Sequence
from pathlib import Path

from hf_detr_ft.atomic import write_bytes, write_json, write_text
from hf_detr_ft.data.splits import Splits
from hf_detr_ft.errors import RecipeError, first_line
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.report.blocks import Page, Plot
from hf_detr_ft.report.collect import add_numbers, gather_views
from hf_detr_ft.report.load_run import RunRecord, Validation, read_run
from hf_detr_ft.report.pages import Views, build_run_page
from hf_detr_ft.report.predictions_sheet import draw_predictions
from hf_detr_ft.report.render_page import render_page
from hf_detr_ft.report.svg import own_style, to_png
from hf_detr_ft.run_folder import IMAGE_PLOTS, REPORT, RunFolder
from hf_detr_ft.training.callbacks import log_picture
from hf_detr_ft.training.job import Job


def check_page(target: Path, overwrite: bool, flag: str = "--output") -> None:
    """Refuses, before any work, to replace a file without being asked.

    Raises:
        RecipeError: it is there, and not to be overwritten; or it is a folder.
    """
    if target.is_dir():
        raise RecipeError(f"{flag}: expected a file, '{target}' is a folder. Give '{target / REPORT}'.")
    if target.exists() and not overwrite:
        replace_it = "To replace it: --overwrite, or name" if flag == "--output" else "Name"
        raise RecipeError(f"{flag}: '{target}' is there already. {replace_it} another file.")


def is_page(path: Path) -> bool:
    """Whether it is a page that was made here."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b'<meta name="generator" content="hf_detr_ft' in file.read(2000)


def write_page(page: Page, target: Path, plots: Path | None = None) -> None:
    """Writes the page and, into a folder, its figures, those with photos into `photos` below it.

    `push` takes no picture from below the folder: photos are not the model's to publish.
    """
    write_text(target, render_page(page))
    if plots is None:
        return
    for block in page.blocks():
        if isinstance(block, Plot):
            folder = plots / IMAGE_PLOTS if block.shows_photos else plots
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / f"{block.name}.png", to_png(block.figure))


def write_run_page(run: RunFolder, recipe: Recipe, splits: Splits) -> Path:
    """The page of a run that has just come to its end; metrics.json gets its numbers.

    Args:
        run: its folder, with what it keeps.
        recipe: of the run.
        splits: that it was trained and evaluated on.

    Returns:
        Where it lies.
    """
    validation = None
    if run.detections.is_file():
        validation = Validation(splits.truth, Detections.from_npz(run.detections.read_bytes()), splits.val)
    record = read_run(run)
    views, missing = gather_views(str(run), record, validation, recipe, splits)
    write_own_page(run, record, views, missing)
    return run.report


def write_own_page(run: RunFolder, record: RunRecord, views: Views, notes: Sequence[str]) -> None:
    """The page in the run's folder, its figures, and its numbers in metrics.json, where the run has one."""
    with own_style():
        write_page(build_run_page(record, views, notes), run.report, run.plots)
    if run.metrics.is_file():
        write_json(run.metrics, add_numbers(record.metrics, views.analysis, views.data))


def report_training(run: RunFolder, job: Job) -> list[str]:
    """Pictures and page of a training that has just come to its end; nothing here can undo it.

    Returns:
        Where they lie, or what could not be made and why, for the terminal.
    """
    lines = []
    try:
        if job.results.best is not None:
            keeps_best = job.trainer.args.load_best_model_at_end
            kept = job.results.best if keeps_best else job.results.last or job.results.best
            threshold, device = kept["best_f1"]["threshold"], job.trainer.args.device
            splits = job.splits
            picture = draw_predictions(run, splits.val, splits.truth, splits.label_map, threshold, device)
            log_picture(job.trainer, "predictions", picture)
            lines.append(f"first look  {picture}  (validation images: what is found, missed and wrong)")
        page = write_run_page(run, job.recipe, job.splits)
        lines.append(f"the page    {page}  (results, curves, photos and recipe; open it in a browser)")
    except Exception as error:
        lines.append(f"the page    is left out: {type(error).__name__}: {first_line(error)}; hf-detr-ft report {run}")
    return lines
