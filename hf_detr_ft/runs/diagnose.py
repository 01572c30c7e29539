"""`hf-detr-ft diagnose RECIPE|RUN`: the first cause that explains why a model finds nothing."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.importing import large_imports
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.rules import require_sound
from hf_detr_ft.run_folder import RECIPE, RunFolder

WIDTH = 11


def diagnose(source: str, flags: Sequence[str] = (), threshold: float = 0.5) -> int:
    """Looks for a cause in the order of likelihood, prints what was looked at, and stops at the first that it finds.

    Args:
        source: a recipe, or a run folder, whose log and detections are looked at as well.
        flags: over the recipe.
        threshold: of scores at which nothing was seen, 0 to 1.

    Returns:
        0 where nothing was found, 1 where something was.

    Raises:
        InputError: the recipe is wrong, or the folder is no run's.
    """
    run = RunFolder(source) if Path(source).is_dir() else None
    if run is not None and not run.recipe.is_file():
        raise RecipeError(f"'{source}': expected a recipe or a run folder with its {RECIPE}, found none in it.")
    if not 0 <= threshold <= 1:
        raise RecipeError(f"--threshold: expected a number from 0 to 1, found {threshold:g}.")
    with large_imports():
        from hf_detr_ft.diagnosis.case import Case
        from hf_detr_ft.diagnosis.probe_table import diagnose as go_through
        from hf_detr_ft.training.model_defaults import model_defaults

    recipe = load_recipe(Path(source), flags, model_defaults) if run is None else load_recipe(run.recipe, flags)
    require_sound(recipe)
    found = None
    with TemporaryDirectory() as folder:
        for step in go_through(Case(recipe, Path(folder), run, flags, threshold)):
            found = step.finding
            outcome = "found" if found else f"left out: {step.skipped}" if step.skipped else "nothing"
            print(f"{step.stage.name:{WIDTH}} {step.stage.looks_at}: {outcome}", flush=True)
    if found is None:
        print("\nnothing found")
        return 0
    print(f"\n{'cause' if found.is_sure else 'likely':{WIDTH}} {found.cause}")
    print(f"{'evidence':{WIDTH}} {found.evidence}\n{'remedy':{WIDTH}} {found.remedy}")
    return 1
