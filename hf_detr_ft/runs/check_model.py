"""`hf-detr-ft check --model RUN`: annotations that a model contradicts, the worst first."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from accelerate import PartialState

from hf_detr_ft.atomic import is_free, write_bytes, write_json
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.evaluation.truth import index_detections, read_truth
from hf_detr_ft.evaluation.worst_suspects import find_worst_suspects
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.model.checkpoint import Checkpoint
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.report.suspects_sheet import MOST, describe_suspect, draw_suspects
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.training.evaluate_model import Evaluation, evaluate_model

SHOWN = 10
"""Suspects of each split that are printed."""
SPLITS = ("train", "val")


def check_model(path: Path | None, flags: Sequence[str], *, source: str, output: Path) -> int:
    """Runs a model over the training and validation images and lists annotations that are likely wrong.

    Args:
        path: the recipe whose data are looked at; the run's own where not given.
        flags: over it.
        source: a run folder, another folder of a model, or a Hub id.
        output: a folder for a sheet of pictures of each split and a JSON of all suspects; not there yet, or empty.

    Returns:
        0.
    """
    own = RunFolder(source).recipe
    if not is_free(output):
        raise RecipeError(f"--output: expected a folder that is empty or not there, found {output}. Give another one.")
    Checkpoint(source).check_exists()
    recipe = load_recipe(path or (own if own.is_file() else None), flags)
    for split in SPLITS:
        evaluation = evaluate_model(source, recipe, name=split)
        if PartialState().is_main_process:
            print(write_suspects(evaluation, split, output))
    return 0


def write_suspects(evaluation: Evaluation, split: str, output: Path) -> str:
    """Writes picture and list of one split, and returns the words for the terminal."""
    truth = read_truth(evaluation.truth)
    predictions = index_detections(truth, evaluation.detections)
    suspects = find_worst_suspects(truth, predictions)
    ids = [entry["id"] for entry in evaluation.truth["annotations"]]
    names = {entry["id"]: entry["file_name"] for entry in evaluation.truth["images"]}
    lines, entries = [], []
    for suspect in suspects:
        file_name = names[int(truth.image_ids[suspect.image])]
        lines.append(f"  {suspect.right:4.0%} {file_name}: {describe_suspect(suspect, truth, predictions, ids)}")
        entries.append(
            {
                "kind": suspect.kind,
                "right": round(suspect.right, 4),
                "weight": round(suspect.weight, 4),
                "file_name": file_name,
                "annotation_id": None if suspect.annotation is None else ids[suspect.annotation],
                "found_class": truth.names[predictions.category[suspect.detection]],
                "found_bbox": predictions.boxes_xywh_px[suspect.detection].round(1).tolist(),
                "score": round(float(predictions.score[suspect.detection]), 4),
            }
        )
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / f"suspects-{split}.json", entries)
    said = f"{split}: the model contradicts {pluralize(len(suspects), 'annotation')} of {len(ids):,}"
    if not suspects:
        return said
    right = float(np.mean([suspect.right for suspect in suspects]))
    said += f", an estimated {right:.0%} of them rightly, the worst first"
    picture, content = output / f"suspects-{split}.png", io.BytesIO()
    draw_suspects(suspects, truth, predictions, evaluation.rows).save(content, "PNG")
    write_bytes(picture, content.getvalue())
    more = [f"  … and {len(lines) - SHOWN} more in suspects-{split}.json"] if len(lines) > SHOWN else []
    shown = f"written: {picture}, the first {min(MOST, len(lines))}"
    return "\n".join([said, *lines[:SHOWN], *more, shown])
