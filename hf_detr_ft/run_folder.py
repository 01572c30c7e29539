"""A run's folder: names of its files, reading them, its checkpoints, and what may be written over.

No other module knows a file name of a run. Names that Transformers gives are here, too, since messages name them.
"""

import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hf_detr_ft.errors import CheckpointError, DataError, RecipeError
from hf_detr_ft.yaml12 import parse_yaml

RECIPE = "recipe.yaml"
"""The recipe as resolved, with versions and fingerprints; it runs again as it is."""
METRICS = "metrics.json"
"""Best and last evaluation, and the numbers of the report."""
RESULTS = "results.csv"
"""A row per evaluation."""
DETECTIONS = "detections.npz"
"""Detections of the evaluation whose weights lie beside it; in a checkpoint the same, at that time."""
LOG = "trainer_state.json"
"""Transformers' log of all logging steps."""
REPORT = "report.html"
CARD = "README.md"
PLOTS = "plots"
"""The folder of the report's figures; those with images of the user's lie in `IMAGE_PLOTS` below it."""
IMAGE_PLOTS = "photos"
PREDICTIONS = "predictions.png"
"""File in `PLOTS`: validation images with truth and predictions."""
WEIGHTS = "model.safetensors"
ALL_WEIGHTS = (WEIGHTS, f"{WEIGHTS}.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that Transformers takes weights from; a pickled one is opened with `weights_only`."""
CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
OPTIMIZER = "optimizer.pt"
SCHEDULER = "scheduler.pt"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
"""A checkpoint's folder, with its step."""
TENSORBOARD = "runs"
WRITTEN = (
    *("checkpoint-*", "*.json", "*.safetensors", "*.csv", "*.npz", ".*.tmp"),
    *(RECIPE, CARD, REPORT, PLOTS, TENSORBOARD),
)
"""Patterns of what runs write."""


class RunFolder:
    """A folder that a run writes, or wrote.

    Attributes:
        path: of the folder, which need not exist.
        name: its own, whatever the path is written like.
        recipe: path of the resolved recipe.
        metrics: path of the best and the last evaluation.
        results: path of the table of evaluations.
        detections: path of what the weights that lie here found.
        log: path of Transformers' log.
        report: path of the page.
        card: path of the model card.
        plots: path of the folder of figures.
        predictions: path of the validation images with truth and predictions.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name
        self.recipe = self.path / RECIPE
        self.metrics = self.path / METRICS
        self.results = self.path / RESULTS
        self.detections = self.path / DETECTIONS
        self.log = self.path / LOG
        self.report = self.path / REPORT
        self.card = self.path / CARD
        self.plots = self.path / PLOTS
        self.predictions = self.plots / PREDICTIONS

    def __str__(self) -> str:
        return str(self.path)

    @property
    def is_run(self) -> bool:
        """True where a run of this package wrote it."""
        return self.recipe.is_file() or self.metrics.is_file()

    def read_recipe(self) -> tuple[dict[str, Any], str]:
        """The resolved recipe, parsed as every recipe is, and its text; both empty where there is none.

        Raises:
            DataError: it is no YAML.
        """
        text = self.recipe.read_text(encoding="utf-8") if self.recipe.is_file() else ""
        try:
            recipe = parse_yaml(text)
        except yaml.YAMLError as error:
            raise DataError(f"{self.recipe}: expected YAML, but {' '.join(str(error).split())}; correct it") from error
        return (recipe if isinstance(recipe, dict) else {}), text

    def read_metrics(self) -> dict[str, Any]:
        """Best and last evaluation; empty where there is none.

        Raises:
            DataError: it is no JSON object.
        """
        return read_object(self.metrics)

    def read_history(self) -> list[dict[str, Any]]:
        """The log's entries, those of the newest checkpoint where the run was interrupted; empty without any.

        Raises:
            DataError: the log is no JSON object.
        """
        logs = [folder / LOG for folder in (self.path, *self.checkpoints())]
        newest = next((log for log in logs if log.is_file()), None)
        return (read_object(newest).get("log_history") or []) if newest else []

    def checkpoints(self) -> list[Path]:
        """The checkpoints' folders, whole or not, the newest first."""
        if not self.path.is_dir():
            return []
        steps = {path: CHECKPOINT.fullmatch(path.name) for path in self.path.iterdir() if path.is_dir()}
        found = [(int(match[1]), path) for path, match in steps.items() if match]
        return [path for _, path in sorted(found, reverse=True)]

    def newest_whole_checkpoint(self) -> tuple[Path | None, dict[Path, list[str]]]:
        """The checkpoint to go on from, and newer ones that cannot be, each with what is wrong with it."""
        passed_over: dict[Path, list[str]] = {}
        for checkpoint in self.checkpoints():
            faults = checkpoint_faults(checkpoint)
            if not faults:
                return checkpoint, passed_over
            passed_over[checkpoint] = faults
        return None, passed_over

    def holds(self, checkpoint: Path) -> bool:
        """True of a checkpoint of this run."""
        return checkpoint.resolve().parent == self.path.resolve()

    def check_free(self, overwrite: bool) -> None:
        """Makes sure that a new run can have this folder; removes nothing yet.

        Raises:
            RecipeError: it is a file, it holds a run and overwriting was not asked for, or it holds other things.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RecipeError(f"training.output_dir: expected a folder, '{self}' is a file. Name another one.")
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not overwrite:
            resume = " To go on with it: --training.resume_from_checkpoint last." if self.checkpoints() else ""
            raise RecipeError(
                f"training.output_dir: '{self}' is not empty, and nothing is overwritten without being asked."
                f"{resume} To start over: --training.overwrite. To keep it: another --training.output_dir."
            )
        foreign = sorted(p.name for p in self.path.iterdir() if not any(p.match(pattern) for pattern in WRITTEN))
        if foreign or not (self.recipe.is_file() or self.checkpoints()):
            raise RecipeError(
                f"training.overwrite: '{self}' does not look like a run folder"
                f"{f'; it holds {foreign[:5]}' if foreign else f' (no {RECIPE})'}. Nothing was removed; choose another "
                "--training.output_dir or empty it yourself."
            )

    def make(self) -> None:
        """An empty folder, where `check_free` found nothing against it.

        Raises:
            RecipeError: the disk refuses it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for entry in self.path.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        except OSError as error:
            raise RecipeError(
                f"training.output_dir: cannot make the folder '{self}': {error.strerror}. Name another one."
            ) from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is no file.

    Raises:
        DataError: it is no JSON, or something other than an object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: expected JSON, but {error}; it was cut off or edited, remove it") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found a {type(content).__name__}; remove it")
    return content


def checkpoint_faults(checkpoint: Path) -> list[str]:
    """Faults of a checkpoint whose run was ended, or filled the disk, while it saved; none of a whole one."""
    if not (checkpoint / LOG).is_file():
        return [f"no {LOG}"]
    faults = [f"no {name}" for name in (OPTIMIZER, SCHEDULER) if not (checkpoint / name).is_file()]
    if not any((checkpoint / name).is_file() for name in ALL_WEIGHTS):
        faults.append(f"no {WEIGHTS}")
    saved = sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")])
    faults += [f"a {path.name} that is cut off" for path in saved if not zipfile.is_zipfile(path)]
    faults += [f"a {path.name} that is cut off" for path in checkpoint.glob("*.safetensors") if _is_cut_off(path)]
    try:
        json.loads((checkpoint / LOG).read_text(encoding="utf-8"))
    except ValueError:
        faults.append(f"a {LOG} that is cut off")
    return faults


def _is_cut_off(safetensors: Path) -> bool:
    """True where a file of tensors is shorter than its header says."""
    with safetensors.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header: Mapping[str, Any] = json.loads(file.read(length))
            end = max(
                (tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0
            )
        except (ValueError, KeyError, TypeError, OverflowError, MemoryError):
            return True
    return safetensors.stat().st_size < 8 + length + end


def find_checkpoint(run: RunFolder, wanted: str | None, sharded: bool) -> tuple[Path | None, str]:
    """The checkpoint that `training.resume_from_checkpoint` asks for, and what has to be said about the choice.

    Args:
        run: whose newest whole checkpoint is `last`.
        wanted: `last`, or the folder of a checkpoint; None for a fresh start.
        sharded: the checkpoint was saved by FSDP or DeepSpeed, whose files are their own.

    Returns:
        None for a fresh start.

    Raises:
        RecipeError: there is none.
        CheckpointError: it is not whole.
    """
    if wanted in (None, "false", "no"):
        return None, ""
    if wanted not in ("last", "true", "yes"):
        checkpoint = Path(str(wanted))
        if not (checkpoint / LOG).is_file():
            raise RecipeError(
                f"training.resume_from_checkpoint: expected 'last' or the folder of a checkpoint; found no {LOG} in "
                f"'{wanted}'. Leave it out to start anew."
            )
        faults = [] if sharded else checkpoint_faults(checkpoint)
        if faults:
            raise CheckpointError(
                f"training.resume_from_checkpoint: expected a whole checkpoint, found {' and '.join(faults)} in "
                f"'{checkpoint}'. Resume from an earlier one, or leave it out to start anew."
            )
        return checkpoint, ""
    if sharded:
        newest = next((folder for folder in run.checkpoints() if (folder / LOG).is_file()), None)
        passed_over: dict[Path, list[str]] = {}
    else:
        newest, passed_over = run.newest_whole_checkpoint()
    said = "; ".join(f"{folder.name} has {' and '.join(faults)}" for folder, faults in passed_over.items())
    if newest is None and said:
        raise CheckpointError(
            f"training.resume_from_checkpoint: expected a whole checkpoint-* folder in '{run}', found none: {said}. "
            "To start over, replace it by --training.overwrite."
        )
    if newest is None:
        raise RecipeError(
            f"training.resume_from_checkpoint: expected 'last' with a checkpoint-* folder in '{run}', found none. "
            "Leave it out to start anew."
        )
    return newest, f"passed over, not whole: {said}" if said else ""
