"""What is known of a run: what its folder holds, and its validation split where that can be read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset

from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.formatting import cut_threshold
from hf_detr_ft.plots.training_curves import History
from hf_detr_ft.training.callbacks import TRAINER_STATE


@dataclass(frozen=True, eq=False)
class Validation:
    """Truth and detections of the weights that the page is about.

    Attributes:
        truth: the COCO dict that was evaluated on.
        detections: on its images.
        rows: of `load_split`, one for each image; None where there are no photos to show.
    """

    truth: dict
    detections: Detections
    rows: Dataset | None


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run as its folder tells it.

    Attributes:
        name: of the folder, or what the user called the model.
        metrics: metrics.json, or what an evaluation for this page found under `best`; empty without any evaluation.
        history: Transformers' log; empty where the folder has none.
        recipe: recipe.yaml as a dictionary; empty where there is none.
        recipe_text: recipe.yaml as it is.
        folder: as it is written in commands; None of what is no run folder.
    """

    name: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    history: History = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    folder: str | None = None

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The best evaluation, as metrics.json has it."""
        return self.metrics.get("best")

    @property
    def last(self) -> Mapping[str, Any] | None:
        """The last evaluation; None of a model that was evaluated for this page."""
        return self.metrics.get("last")

    @property
    def keeps_best(self) -> bool:
        """Whether the weights in the folder are those of the best evaluation, not of the last."""
        return self.setting("training", "load_best_model_at_end") is not False

    @property
    def kept(self) -> Mapping[str, Any] | None:
        """The evaluation whose weights lie in the folder."""
        return self.best if self.keeps_best else self.last or self.best

    @property
    def threshold(self) -> float:
        """That of the best F1, cut to three decimals, so that every detection that counted stays."""
        threshold = self.kept["best_f1"]["threshold"] if self.kept else 0.5
        return cut_threshold(threshold) or float(threshold)

    def setting(self, section: str, key: str) -> Any:
        """A value of the recipe, None where it has none."""
        return (self.recipe.get(section) or {}).get(key)


def read_run(folder: Path) -> RunRecord:
    """Reads metrics.json, trainer_state.json and recipe.yaml of a run folder, as far as they are there.

    Raises:
        DataError: one of them cannot be read.
    """
    recipe_file = folder / "recipe.yaml"
    text = recipe_file.read_text(encoding="utf-8") if recipe_file.is_file() else ""
    try:
        recipe = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise DataError(f"{recipe_file}: expected YAML, but {' '.join(str(error).split())}; correct it") from error
    return RunRecord(
        name=folder.resolve().name,
        metrics=_read_object(folder / "metrics.json"),
        history=_read_object(_newest_state(folder)).get("log_history") or [],
        recipe=recipe if isinstance(recipe, dict) else {},
        recipe_text=text,
        folder=str(folder),
    )


def _newest_state(folder: Path) -> Path:
    """The run's log; that of its last checkpoint where it was made by an earlier version, or was interrupted."""
    own = folder / TRAINER_STATE
    states = [path / TRAINER_STATE for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    states = [state for state in states if state.is_file()]
    if own.is_file() or not states:
        return own
    return max(states, key=lambda state: int(state.parent.name.rpartition("-")[2]))


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: expected JSON, but {error}; it was cut off or edited, remove it") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found a {type(content).__name__}; remove it")
    return content
