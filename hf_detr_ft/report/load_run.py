"""A run as its folder tells it, and its validation split with detections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from datasets import Dataset

from hf_detr_ft.evaluation.coco_result import MAX_DETECTIONS
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.matching import MatchedDetections, match_detections
from hf_detr_ft.evaluation.truth import has_masks, read_truth
from hf_detr_ft.plots.training_curves import History
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.training.original_log import read_original_log


@dataclass(frozen=True, eq=False)
class Validation:
    """Truth and detections of the weights that the page is about.

    Attributes:
        truth: the COCO dict that was evaluated on.
        detections: on its images.
        rows: of `load_split`, one for each image; None where there are no images to show.
        max_detections: the best per image and class that count beside COCO's numbers.
    """

    truth: dict
    detections: Detections
    rows: Dataset | None
    max_detections: int = MAX_DETECTIONS

    @cached_property
    def matched(self) -> MatchedDetections:
        """Truth and detections as arrays, matched once for all that the page shows."""
        truth = read_truth(self.truth, self.detections.masks is not None and has_masks(self.truth))
        return match_detections(truth, self.detections, self.max_detections)


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """Files of a run's folder, read.

    Attributes:
        name: of the folder, or what the user called the model.
        metrics: metrics.json, or what an evaluation for this page found under `best`; empty without any evaluation.
        history: Transformers' log; empty where the folder has none.
        recipe: recipe.yaml as a dictionary; empty where there is none.
        recipe_text: recipe.yaml as it is.
        folder: as it is written in commands; None of what is no run folder.
        is_original: facebookresearch/detr trained it, of whose evaluations COCO's twelve numbers alone are known.
        exports: what was measured of each exported file.
    """

    name: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    history: History = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    folder: str | None = None
    is_original: bool = False
    exports: Sequence[Mapping[str, Any]] = ()

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The best evaluation, as metrics.json has it."""
        return self.metrics.get("best")

    @property
    def last(self) -> Mapping[str, Any] | None:
        """The last evaluation; None of a model that was evaluated for this page."""
        return self.metrics.get("last")

    @property
    def test(self) -> Mapping[str, Any] | None:
        """The evaluation of these weights on a test split; None without one."""
        return self.metrics.get("test")

    @property
    def keeps_best_weights(self) -> bool:
        """True where the weights in the folder are those of the best evaluation, false where of the last."""
        return not self.is_original and self.setting("training", "load_best_model_at_end") is not False

    @property
    def evaluation(self) -> Mapping[str, Any] | None:
        """The evaluation whose weights lie in the folder."""
        return self.best if self.keeps_best_weights else self.last or self.best

    @property
    def threshold(self) -> float:
        """Threshold of the best F1; 0.5 without an evaluation."""
        return float(self.evaluation["best_f1"]["threshold"]) if self.evaluation else 0.5

    @property
    def has_ap_curve(self) -> bool:
        """True where the training's log has evaluations."""
        return any("eval_map" in entry for entry in self.history)

    def setting(self, section: str, key: str) -> Any:
        """Value of a recipe's field, None where it has none."""
        return (self.recipe.get(section) or {}).get(key)


def load_run(run: RunFolder) -> LoadedRun:
    """Reads a run folder, as far as there is something in it.

    Raises:
        DataError: metrics, log or recipe cannot be read.
    """
    if run.is_original:
        history, evaluations = read_original_log(run.original_log)
        best = max(evaluations, key=lambda evaluation: evaluation["metrics"]["map"], default=None)
        metrics = {"best": best, "last": evaluations[-1]} if best else {}
        return LoadedRun(run.name, metrics, history, folder=str(run), is_original=True)
    recipe, text = run.read_recipe()
    return LoadedRun(
        name=run.name,
        metrics=run.read_metrics(),
        exports=run.read_exports(),
        history=run.read_history(),
        recipe=recipe,
        recipe_text=text,
        folder=str(run),
    )


def read_runs(runs: Sequence[RunFolder]) -> list[LoadedRun]:
    """Run folders by names that tell them apart: their own, or the paths as given."""
    records = [load_run(run) for run in runs]
    if len({record.name for record in records}) < len(records):
        return [replace(record, name=str(run)) for record, run in zip(records, runs, strict=True)]
    return records
