"""`hf-detr-ft report RUN`: one self-contained HTML page of a run, or of several beside each other."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_detr_ft.atomic import check_output_file
from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.dataset import prepare_coco
from hf_detr_ft.data.split_source import Source, load_source
from hf_detr_ft.data.splits import Splits, build_splits, require_no_errors
from hf_detr_ft.errors import InputError, RecipeError
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.report.attention_sheet import draw_attention
from hf_detr_ft.report.collect import gather_views
from hf_detr_ft.report.load_run import RunRecord, Validation, read_run
from hf_detr_ft.report.pages import build_comparison_page, build_run_page
from hf_detr_ft.report.svg import own_style
from hf_detr_ft.report.write_report import check_page, write_own_page, write_page
from hf_detr_ft.run_folder import DETECTIONS, METRICS, RECIPE, REPORT, RunFolder
from hf_detr_ft.training.evaluate_model import Evaluation, evaluate_model


def report(
    sources: Sequence[str],
    flags: Sequence[str] = (),
    output: Path | None = None,
    overwrite: bool = False,
    attention: Path | None = None,
) -> int:
    """Writes the page and prints where it lies.

    Args:
        sources: a run folder, another folder of a model, or a Hub id; several run folders are compared.
        flags: over the run's recipe, such as `--data.root` where the data have moved.
        output: the file; by default report.html in the run folder, or here where there are several or none.
        overwrite: replace a file; the page in a run folder is always replaced.
        attention: an image; a picture of the model's attention over it is drawn instead of the page.

    Raises:
        InputError: there is nothing to report on, or the file cannot be written.
    """
    if attention is not None:
        if len(sources) > 1 or flags:
            raise RecipeError(f"--attention: expected one model and no other flags, found {[*sources, *flags]}.")
        print(draw_attention(sources[0], attention, output, overwrite=overwrite))
        return 0
    check_output_file(output)
    runs = [RunFolder(source) for source in sources]
    own = runs[0].report if len(runs) == 1 and output is None and runs[0].is_run else None
    target = own or output or Path(REPORT)
    if own is None:
        check_page(target, overwrite)
    if len(runs) > 1:
        if flags:
            raise RecipeError(f"argument '{flags[0]}': flags go with one run, found {len(runs)}.")
        records = read_runs(runs)
        with own_style():
            write_page(build_comparison_page(records), target)
    else:
        record, validation, notes = find_validation(sources[0], flags)
        recipe, splits, lacking = find_splits(sources[0], record, flags)
        views, missing = gather_views(sources[0], record, validation, recipe, splits)
        notes = [*notes, *lacking, *missing]
        if own is not None:
            write_own_page(runs[0], record, views, notes)
        else:
            with own_style():
                write_page(build_run_page(record, views, notes), target)
        for note in notes:
            print(f"note      {note}")
    print(f"written: {target}")
    return 0


def read_runs(runs: Sequence[RunFolder]) -> list[RunRecord]:
    """Run folders by names that tell them apart: their own, or the paths as given.

    Raises:
        RecipeError: one of them is no run folder, or is given twice.
    """
    no_runs = [str(run) for run in runs if not run.is_run]
    if no_runs:
        raise RecipeError(f"expected run folders to compare, found no {METRICS} or {RECIPE} in {no_runs}.")
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise RecipeError(f"expected runs to compare, found one of them twice: {', '.join(map(str, runs))}.")
    records = [read_run(run) for run in runs]
    if len({record.name for record in records}) < len(records):
        return [replace(record, name=str(run)) for record, run in zip(records, runs, strict=True)]
    return records


def find_validation(source: str, flags: Sequence[str]) -> tuple[RunRecord, Validation | None, list[str]]:
    """The run, its truth and its detections, and what has to be said about them.

    The detections are those that the training kept, from which metrics.json was computed; where there are none, or the
    validation annotations are other ones now, the model runs over the images once more, as in `evaluate`.

    Raises:
        InputError: there are neither results nor data to show.
    """
    run = RunFolder(source)
    record = read_run(run) if run.is_run else RunRecord(source)
    if run.is_run and record.kept is None and not flags:
        return record, None, []
    try:
        recipe = _recipe_of(source, record, flags)
        split = load_source(recipe.data, "val")
        require_no_errors(check_coco(split.coco, split.annotations, None))
        truth = prepare_coco(split.coco, recipe.data.val_limit)
        detections = read_detections(run, record, split, truth)
        if isinstance(detections, Detections):
            rows = split.load(truth, LabelMap.from_coco(truth))
            return record, Validation(truth, detections, rows), []
    except InputError as error:
        if not run.is_run:
            raise
        return record, None, [_missing(source, error)]
    try:
        evaluation = evaluate_model(source, recipe)
    except InputError as error:
        if not run.is_run:
            raise
        return record, None, [f"The gallery is left out. {detections}, and the model cannot run over them: {error}"]
    return _of_evaluation(record, evaluation, recipe.data.name, detections, _same_data(record, split, truth))


def find_splits(source: str, record: RunRecord, flags: Sequence[str]) -> tuple[Recipe | None, Splits | None, list[str]]:
    """The run's recipe and data, images unchecked, and what has to be said where they cannot be read."""
    try:
        recipe = _recipe_of(source, record, flags)
        sources = {name: load_source(recipe.data, name) for name in ("train", "val")}
        problems = [p for one in sources.values() for p in check_coco(one.coco, one.annotations, None)]
        return recipe, build_splits(recipe.data, sources, problems), []
    except InputError as error:
        return None, None, [f"The section about the data is left out: {error}"]


def _of_evaluation(
    record: RunRecord, evaluation: Evaluation, data: str, why: str, same_data: bool
) -> tuple[RunRecord, Validation, list[str]]:
    """What `find_validation` returns where the model ran once more."""
    validation = Validation(evaluation.truth, evaluation.detections, evaluation.rows)
    note = f"{why}; the model ran over the validation images once more for this page"
    if same_data and record.kept is not None:
        ap, kept = evaluation.result.metrics["map"], record.kept["metrics"]["map"]
        return record, validation, [f"{note} (AP {ap:.4f}; {METRICS}, which the tables below are from: {kept:.4f})."]
    found: dict[str, Any] = {"best": evaluation.result.as_dict(), "data": {"name": data}}
    return replace(record, metrics=found), validation, [f"{note}, and the tables below are from this."]


def read_detections(run: RunFolder, record: RunRecord, split: Source, truth: dict) -> Detections | str:
    """What the training kept, or why that does not do."""
    if record.kept is None or not run.detections.is_file():
        return f"{record.name} has no {DETECTIONS} of its training"
    if not _same_data(record, split, truth):
        return "The validation data are other ones than those of the training"
    detections = Detections.from_npz(run.detections.read_bytes())
    if len(detections) != record.kept["detections"]:
        return f"{run.detections} is not of the evaluation in {METRICS}"
    return detections


def _same_data(record: RunRecord, split: Source, truth: dict) -> bool:
    recorded = (record.recipe.get("made_with") or {}).get("annotations_sha256") or {}
    same_file = not recorded or set(split.fingerprint.values()) <= set(recorded.values())
    return record.kept is not None and same_file and len(truth["images"]) == record.kept["images"]


def _recipe_of(source: str, record: RunRecord, flags: Sequence[str]) -> Recipe:
    if not record.recipe and not any(flag.startswith("--data.") for flag in flags):
        raise RecipeError(f"'{source}' carries no {RECIPE} that names the data. Give --data.root and its like.")
    return load_recipe(RunFolder(source).recipe if record.recipe else None, flags)


def _missing(source: str, error: InputError) -> str:
    return (
        "The validation data cannot be read, so the gallery is left out. Where they have moved: hf-detr-ft report "
        f"{source} --data.root FOLDER. What was found: {error}"
    )
