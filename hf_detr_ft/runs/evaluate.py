"""`hf-detr-ft evaluate RUN`: the 12 COCO numbers of a run, a folder or a Hub id on a validation or test split."""

from collections.abc import Sequence
from pathlib import Path

from hf_detr_ft.atomic import check_output_file, write_json
from hf_detr_ft.data.find_data import require_annotations
from hf_detr_ft.importing import large_imports
from hf_detr_ft.model.checkpoint import Checkpoint
from hf_detr_ft.recipe.files import check_early, load_recipe, recipe_of


def evaluate(
    source: str,
    flags: Sequence[str] = (),
    recipe: Path | None = None,
    output: Path | None = None,
    split: str = "val",
) -> int:
    """Prints the table and, if asked to, writes it as JSON.

    The backbone runs in bf16 where `training.bf16` says so or, if it says nothing, where that is faster; the rest runs
    in fp32.

    Args:
        source: a run folder, another folder of a model, or a Hub id.
        flags: over the recipe, such as `--data.root`.
        recipe: whose validation split is used; the run's own where not given.
        output: a JSON file for the result.
        split: "val" or "test".
    """
    path = recipe_of(source, recipe, flags)
    check_output_file(output)
    Checkpoint(source).check_exists()
    check_early(path, flags, require_annotations(split))
    with large_imports():
        from accelerate import PartialState

        from hf_detr_ft.training.evaluate_model import evaluate_model

    result = evaluate_model(source, load_recipe(path, flags), name=split).result
    if PartialState().is_main_process:
        print(result.table())
        if output is not None:
            write_json(output, result.as_dict() | {"split": split})
            print(f"written: {output}")
    return 0
