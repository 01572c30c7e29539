"""A run exported to a file, and the file measured on the run's own validation split."""

from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_detr_ft.atomic import write_files_beside, write_json
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.export.formats import Format
from hf_detr_ft.export.measure import ExportedModel, Measured, check_shapes, largest_difference, measure
from hf_detr_ft.export.network import Network, describe
from hf_detr_ft.inference.detect import load_detector
from hf_detr_ft.machine import count_cores
from hf_detr_ft.model.families import family_of
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.run_folder import MEASURED
from hf_detr_ft.training.evaluate_model import load_rows

CALIBRATION = 32
"""Training images that int8's ranges are taken from, evenly spread over the split."""


def export_run(
    source: str,
    recipe: Recipe,
    chosen: Format,
    precision: str,
    folder: Path,
    tolerance: float,
    force: bool,
) -> tuple[Path, dict[str, Any]]:
    """Writes a file, measures it, and keeps it with what was measured where it is good enough.

    Args:
        source: a run folder, another folder of a model, or a Hub id.
        recipe: whose validation split it is measured on.
        chosen: the format.
        precision: of the file.
        folder: it is written into, under `model.*`.
        tolerance: AP that the file may lose.
        force: keep it even so.

    Raises:
        CheckpointError: the model cannot be exported, or the file has lost more AP.
    """
    model, processor = load_detector(source)
    if family_of(model).masks:
        raise CheckpointError(
            f"'{source}': expected a detector of boxes, found one with a mask head, which cannot be exported yet. "
            "Export the run it was trained on."
        )
    network = Network(model)
    split = load_rows(recipe, model, processor, source)
    description = describe(model, processor, source, precision)
    stem = "model" if precision == "fp32" else f"model_{precision.replace('-', '_')}"
    target = folder / f"{stem}{chosen.suffix}"

    def training_images() -> Iterator[np.ndarray]:
        rows = load_rows(recipe, model, processor, source, name="train").rows
        prepared = transformed(rows, DetrTransform(processor))
        for index in islice(range(0, len(rows), max(1, len(rows) // CALIBRATION)), CALIBRATION):
            yield prepared[index]["pixel_values"].numpy()

    with write_files_beside(folder, last=[target.name]) as beside:
        beside.mkdir(parents=True)
        file = beside / target.name
        chosen.write(network, file, description, training_images)
        run = chosen.open(file)
        if precision == "fp32":
            check_shapes(run, network, target.name)
        models = (model, ExportedModel(run, network))
        theirs, ours = measure(models, split, processor, recipe.evaluation, recipe.data.on_bad_image)
        lost = theirs.ap - ours.ap
        if lost > tolerance and not force:
            raise CheckpointError(
                f"{target.name}: expected to lose at most {tolerance:g} AP, but PyTorch has {theirs.ap:.4f} and the "
                f"file {ours.ap:.4f}; it is not kept. Use another precision, a higher --tolerance, or --force."
            )
        measured = _record(chosen, precision, file, theirs, ours) | {"tolerance": tolerance}
        write_json(beside / f"{target.name}{MEASURED}", measured)
        del run
    return target, measured


def _record(chosen: Format, precision: str, file: Path, theirs: Measured, ours: Measured) -> dict[str, Any]:
    pixels, share = largest_difference(theirs, ours)
    files = sorted(file.parent.iterdir(), key=lambda path: path != file)  # OpenVINO's weights have one of their own
    return {
        "files": [path.name for path in files],
        "format": chosen.name,
        "precision": precision,
        "runtime": f"{chosen.runtime} {version(chosen.runtime)}",
        "bytes": sum(path.stat().st_size for path in files),
        "images": len(ours.found),
        "ap": ours.ap,
        "ap_pytorch": theirs.ap,
        "box_difference_px": round(pixels, 5),
        "box_difference_rel": round(share, 8),
        "images_per_second": round(ours.images_per_second, 2),
        "images_per_second_pytorch": round(theirs.images_per_second, 2),
        "cores": count_cores(),
        "threads": torch.get_num_threads(),
    }
