"""A run with its recipe and data as the report needs them, each read once; the model runs where it has to."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedModel

from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.checks.problems import require_no_errors
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.dataset import prepare_coco
from hf_detr_ft.data.image_size import ImageProcessor
from hf_detr_ft.data.split_source import Source
from hf_detr_ft.data.splits import Splits, build_splits, check_sources, load_sources
from hf_detr_ft.errors import DataError, InputError
from hf_detr_ft.evaluation.coco_result import MAX_DETECTIONS, CocoResult
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.model.checkpoint import Checkpoint
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.report.arguments import require_data_flags
from hf_detr_ft.report.load_run import LoadedRun, Validation, load_run
from hf_detr_ft.run_folder import DETECTIONS, METRICS, RunFolder
from hf_detr_ft.training.evaluate_model import evaluate_model


@dataclass
class ReportInputs:
    """A run and its data, each read once, as far as they can be read.

    Attributes:
        run: as its folder tells it, with the numbers of an evaluation for this page where there was one.
        recipe: the run's, with the flags over it.
        splits: training and validation data.
        validation: truth, detections and images.
        model: the model, where it had to run.
        processor: the model's.
        notes: what is missing, or was computed anew.
    """

    run: LoadedRun
    recipe: Recipe | None = None
    splits: Splits | None = None
    validation: Validation | None = None
    model: PreTrainedModel | None = None
    processor: ImageProcessor | None = None
    notes: list[str] = field(default_factory=list)


def read_inputs(source: str, flags: Sequence[str]) -> ReportInputs:
    """Reads a run, its recipe and its data; images are not looked at.

    The detections are those that the training kept, from which metrics.json was computed; where there are none, or the
    validation annotations are other ones now, the model runs over the images once more, as in `evaluate`.

    Raises:
        InputError: there are neither results nor data to show.
    """
    run = RunFolder(source)
    inputs = ReportInputs(load_run(run) if run.is_run else LoadedRun(source))
    wants_images = not run.is_run or inputs.run.evaluation is not None or bool(flags)
    try:
        inputs.recipe = _recipe_of(source, inputs.run, flags)
        masks = inputs.recipe.model.masks
        val = _read_val(inputs.recipe)
    except InputError as error:
        if not run.is_run:
            raise
        inputs.notes += [_missing(source, error)] if wants_images else [f"Left out: the data. {error}"]
        return inputs
    try:
        sources = {**load_sources(inputs.recipe.data, ("train",), masks=inputs.recipe.masks), "val": val}
        inputs.splits = build_splits(inputs.recipe.data, sources, check_sources(sources, decode=None))
    except InputError as error:
        inputs.notes.append(f"Left out: the data. {error}")
    if wants_images:
        splits = inputs.splits
        truth = prepare_coco(val.coco, inputs.recipe.data.val_limit, masks) if splits is None else splits.truth
        try:
            _add_validation(inputs, source, val, truth)
        except InputError as error:
            if not run.is_run:
                raise
            inputs.notes.append(f"The gallery is left out. {error}")
    return inputs


def read_evaluated(source: str, flags: Sequence[str], split: str = "val") -> tuple[Validation, list[str]]:
    """Truth and detections of a run alone, and what has to be said of them.

    Args:
        source: a run folder, another folder of a model, or a Hub id.
        flags: over the run's recipe.
        split: "val", whose detections the training kept, or "test", on which the model runs.

    Raises:
        InputError: they cannot be had.
    """
    run = RunFolder(source)
    if not run.is_run:
        Checkpoint(source).check_exists()
    inputs = ReportInputs(load_run(run) if run.is_run else LoadedRun(source))
    inputs.recipe = _recipe_of(source, inputs.run, flags)
    if split == "test":
        evaluation = evaluate_model(source, inputs.recipe, name=split)
        return Validation(evaluation.truth, evaluation.detections, None), []
    val = _read_val(inputs.recipe)
    truth = prepare_coco(val.coco, inputs.recipe.data.val_limit, inputs.recipe.model.masks)
    _add_validation(inputs, source, val, truth)
    assert inputs.validation is not None
    return inputs.validation, inputs.notes


def _read_val(recipe: Recipe) -> Source:
    """The validation split, with annotations that can be used.

    Raises:
        InputError: they cannot.
    """
    masks = recipe.model.masks
    val = load_sources(recipe.data, ("val",), masks=masks)["val"]
    require_no_errors(check_coco(val.coco, val.annotations, None, masks=masks))
    return val


def _add_validation(inputs: ReportInputs, source: str, val: Source, truth: dict) -> None:
    """Adds the detections that the training kept, or those of the model where these will not do.

    Raises:
        InputError: they will not do, and the model cannot run.
    """
    assert inputs.recipe is not None
    run, limit = inputs.run, inputs.recipe.evaluation.max_detections
    counted = (run.recipe.get("evaluation") or {}).get("max_detections", MAX_DETECTIONS)
    same_data = _is_same_data(run, val, truth)
    try:
        if counted != limit:
            raise DataError(f"evaluation.max_detections is {limit}, and was {counted} in the training")
        detections = read_detections(RunFolder(source), run, same_data)
    except DataError as reason:
        try:
            evaluation = evaluate_model(source, inputs.recipe, val)
        except InputError as error:
            if run.folder is None:
                raise
            raise DataError(f"{reason}, and the model cannot run over them: {error}") from error
        inputs.model, inputs.processor = evaluation.model, evaluation.processor
        inputs.validation = Validation(truth, evaluation.detections, evaluation.rows, limit)
        _say_evaluated(inputs, evaluation.result, str(reason), same_data and counted == limit)
        return
    rows = val.load(truth, LabelMap.from_coco(truth)) if inputs.splits is None else inputs.splits.val
    inputs.validation = Validation(truth, detections, rows, limit)


def read_detections(folder: RunFolder, run: LoadedRun, same_data: bool) -> Detections:
    """Detections that the training kept.

    Args:
        folder: of the run.
        run: as the folder tells it.
        same_data: the validation data are those of the training.

    Raises:
        DataError: there are none, or they are not those of the evaluation in metrics.json on these data.
    """
    if run.evaluation is None or not folder.detections.is_file():
        raise DataError(f"{run.name} has no {DETECTIONS} of its training")
    if not same_data:
        raise DataError("The validation data are other ones than those of the training")
    detections = Detections.from_npz(folder.detections.read_bytes())
    if len(detections) != run.evaluation["detections"]:
        raise DataError(f"{folder.detections} is not of the evaluation in {METRICS}")
    return detections


def _say_evaluated(inputs: ReportInputs, result: CocoResult, why: str, same_data: bool) -> None:
    """Notes that the model ran once more; the page takes its numbers where the run has none of these data."""
    note = f"{why}; the model ran over the validation images once more for this page"
    if same_data and inputs.run.evaluation is not None:
        ap, kept = result.metrics["map"], inputs.run.evaluation["metrics"]["map"]
        inputs.notes.append(f"{note} (AP {ap:.4f}; {METRICS}, which the tables below are from: {kept:.4f}).")
        return
    assert inputs.recipe is not None
    metrics: dict[str, Any] = {"best": result.as_dict(), "data": {"name": inputs.recipe.data.name}}
    inputs.run = replace(inputs.run, metrics=metrics)
    inputs.notes.append(f"{note}, and the tables below are from this.")


def _is_same_data(run: LoadedRun, split: Source, truth: dict) -> bool:
    recorded = (run.recipe.get("made_with") or {}).get("annotations_sha256") or {}
    same_file = not recorded or set(split.fingerprint.values()) <= set(recorded.values())
    return run.evaluation is not None and same_file and len(truth["images"]) == run.evaluation.get("images")


def _recipe_of(source: str, run: LoadedRun, flags: Sequence[str]) -> Recipe:
    if not run.recipe:
        require_data_flags(source, flags)
    return load_recipe(RunFolder(source).recipe if run.recipe else None, flags)


def _missing(source: str, error: InputError) -> str:
    return (
        "The validation data cannot be read, so the gallery is left out. Where they have moved: hf-detr-ft report "
        f"{source} --data.root FOLDER. What was found: {error}"
    )
