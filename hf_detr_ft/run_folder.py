"""What is in a run folder before a run: nothing, a run to resume, or things that are not ours to touch."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from hf_detr_ft.errors import CheckpointError, DataError, RecipeError

WRITTEN = (
    "checkpoint-*",
    "*.json",
    "*.safetensors",
    "*.csv",
    "*.npz",
    "recipe.yaml",
    "README.md",
    "report.html",
    "plots",
    "runs",
)
"""What runs write, TensorBoard's `runs` among it."""


def check_output(output: Path | None, flag: str = "--output") -> None:
    """Refuses, before any work, a file of `--output` or another flag that could not be written for want of a folder.

    Raises:
        RecipeError: its folder does not exist.
    """
    if output is not None and not output.parent.is_dir():
        raise RecipeError(f"{flag}: expected a file in a folder that exists, found '{output}'. Make '{output.parent}'.")


def find_checkpoint(run: Path, wanted: str | None, sharded: bool) -> str | None:
    """The checkpoint that `training.resume_from_checkpoint` asks for; None for a fresh start.

    Raises:
        RecipeError: there is none.
        CheckpointError: it is not whole.
    """
    if wanted in (None, "false", "no"):
        return None
    found = get_last_checkpoint(str(run)) if wanted in ("last", "true", "yes") and run.is_dir() else wanted
    if found is None or not (Path(found) / "trainer_state.json").is_file():
        raise RecipeError(
            f"training.resume_from_checkpoint: expected 'last' with a checkpoint-* folder in '{run}', or the "
            f"folder of a checkpoint; found no trainer_state.json for '{wanted}'. Leave it out to start anew."
        )
    if not sharded:
        check_checkpoint(Path(found))
    return str(found)


def check_checkpoint(checkpoint: Path) -> None:
    """Finds what a run leaves behind that was ended, or filled the disk, while it saved.

    Raises:
        CheckpointError: files are missing or cut off; training would stop, or go on without the optimizer's state.
    """
    faults = [f"no {name}" for name in ("optimizer.pt", "scheduler.pt") if not (checkpoint / name).is_file()]
    saved = sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")])
    faults += [f"a {path.name} that is cut off" for path in saved if not zipfile.is_zipfile(path)]
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except ValueError:
        faults.append("a trainer_state.json that is cut off")
    if faults:
        raise CheckpointError(
            f"training.resume_from_checkpoint: expected a whole checkpoint, found {' and '.join(faults)} in "
            f"'{checkpoint}'. Resume from an earlier one, or leave it out to start anew."
        )


def check_free(run: Path, overwrite: bool) -> None:
    """Makes sure that a new run can have this folder; removes nothing yet.

    Raises:
        RecipeError: it is a file, it holds a run and overwriting was not asked for, or it holds other things.
    """
    if run.exists() and not run.is_dir():
        raise RecipeError(f"training.output_dir: expected a folder, '{run}' is a file. Name another one.")
    if not run.exists() or not any(run.iterdir()):
        return
    if not overwrite:
        resume = " To go on with it: --training.resume_from_checkpoint last." if get_last_checkpoint(str(run)) else ""
        raise RecipeError(
            f"training.output_dir: '{run}' is not empty, and nothing is overwritten without being asked."
            f"{resume} To start over: --training.overwrite. To keep it: another --training.output_dir."
        )
    foreign = sorted(path.name for path in run.iterdir() if not any(path.match(pattern) for pattern in WRITTEN))
    if foreign or not ((run / "recipe.yaml").is_file() or any(run.glob("checkpoint-*"))):
        raise RecipeError(
            f"training.overwrite: '{run}' does not look like a run folder"
            f"{f'; it holds {foreign[:5]}' if foreign else ' (no recipe.yaml)'}. Nothing was removed; choose another "
            "--training.output_dir or empty it yourself."
        )


def make_run_folder(run: Path) -> None:
    """An empty run folder, where `check_free` found nothing against it.

    Raises:
        RecipeError: the disk refuses it.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        for entry in run.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    except OSError as error:
        raise RecipeError(
            f"training.output_dir: cannot make the folder '{run}': {error.strerror}. Name another one."
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says what the disk refused."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}. See --output.") from error
