"""`hf-detr-ft export RUN`: a file for another runtime, measured on the run's own validation split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_detr_ft.data.find_data import require_annotations
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.importing import large_imports
from hf_detr_ft.model.checkpoint import Checkpoint
from hf_detr_ft.recipe.files import check_early, load_recipe, recipe_of
from hf_detr_ft.run_folder import EXPORTS, RunFolder


def export(
    source: str,
    flags: Sequence[str] = (),
    format: str = "onnx",
    precision: str = "fp32",
    tolerance: float = 0.005,
    force: bool = False,
    recipe: Path | None = None,
    output: Path | None = None,
) -> int:
    """Writes the file, and beside it a JSON with its AP, its largest box difference and its speed.

    Those stand in the model card and on the report's page from then on.

    Args:
        source: a run folder, another folder of a model, or a Hub id.
        flags: over the recipe, such as `--data.root`.
        format: onnx, openvino, torchscript or exported-program.
        precision: fp32, fp16, int8 (calibrated on training images) or int8-dynamic.
        tolerance: AP that the file may lose against PyTorch in fp32.
        force: keep a file that has lost more.
        recipe: whose images are used; the run's own where not given.
        output: a folder; by default `export` in the run folder.

    Raises:
        RecipeError: an argument is wrong.
        CheckpointError: the model cannot be exported, or the file has lost more AP.
    """
    run = RunFolder(source)
    path = recipe_of(source, recipe, flags)
    if output is None and not run.path.is_dir():
        raise RecipeError(f"'{source}' is no folder here to write into. Give --output FOLDER.")
    if not 0 <= tolerance <= 1:
        raise RecipeError(f"--tolerance: expected AP from 0 to 1, found {tolerance}.")
    Checkpoint(source).check_exists()
    check_early(path, flags, require_annotations("val", *(["train"] if precision == "int8" else [])))
    with large_imports():
        from hf_detr_ft.export.export_run import export_run
        from hf_detr_ft.export.formats import require_format

    chosen = require_format(format, precision)
    folder = output or run.path / EXPORTS
    target, measured = export_run(source, load_recipe(path, flags), chosen, precision, folder, tolerance, force)
    print(f"written: {target}")
    print(describe(measured))
    if output is None and run.metrics.is_file():
        from hf_detr_ft.hub import write_model_card

        write_model_card(run.path)
        print(f"the model card has these numbers; the page gets them from hf-detr-ft report {source}")
    return 0


def describe(measured: dict[str, Any]) -> str:
    """Measurements, for the terminal."""
    lines = [
        f"AP {measured['ap']:.4f} on {measured['images']} validation images, {measured['ap_pytorch']:.4f} in PyTorch",
        f"boxes differ by at most {measured['box_difference_px']:.4f} pixels, "
        f"{measured['box_difference_rel']:.2e} of the longer side",
        f"{measured['images_per_second']:.2f} images/s, one by one; {measured['images_per_second_pytorch']:.2f} in "
        f"PyTorch with {measured['threads']} threads",
    ]
    return "\n".join(lines)
