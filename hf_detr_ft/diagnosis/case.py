"""A recipe or a run under diagnosis: data, model and results, each read when a probe first asks for it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from datasets import Dataset

from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.dataset import prepare_coco
from hf_detr_ft.data.image_size import ImageProcessor, ImageSize
from hf_detr_ft.data.split_source import Source
from hf_detr_ft.data.splits import Splits, build_splits, check_data
from hf_detr_ft.evaluation.matching import MatchedDetections, match_detections
from hf_detr_ft.evaluation.truth import read_truth
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.report.load_run import LoadedRun, load_run
from hf_detr_ft.report.read_inputs import read_evaluated
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.training.choose_preset import apply_preset
from hf_detr_ft.training.evaluate_model import evaluate_model
from hf_detr_ft.training.job import Job, prepare_trial, show_progress

LEARNED = 0.1
"""AP50 from which on a run has learned something: what would keep it at 0 is not there."""


class Case:
    """Subject of all probes.

    Args:
        recipe: of the training, or of the run.
        folder: for files of trials, which nobody needs afterwards.
        run: what a training left; None before one.
        flags: over the run's recipe.
        threshold: of scores, at which the user saw nothing.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        run: RunFolder | None = None,
        flags: Sequence[str] = (),
        threshold: float = 0.5,
    ) -> None:
        self.recipe = recipe.with_training(output_dir=str(folder), report_to=[], auto_find_batch_size=False)
        self.folder = folder
        self.run = run
        self.flags = flags
        self.threshold = threshold

    @cached_property
    def _checked(self) -> tuple[dict[str, Source], list[Problem]]:
        size, masks = ImageSize.from_config(self.recipe.model), self.recipe.masks
        return check_data(self.recipe.data, size, decode=False, progress=show_progress, masks=masks)

    @property
    def sources(self) -> dict[str, Source]:
        """Splits before any check, as `check_data` returns them; images are read as far as their headers."""
        return self._checked[0]

    @property
    def problems(self) -> list[Problem]:
        """All that `check` finds without decoding images."""
        return self._checked[1]

    @cached_property
    def splits(self) -> Splits:
        """The splits, where they have no errors."""
        return build_splits(self.recipe.data, *self._checked)

    @cached_property
    def job(self) -> Job:
        """The training as it would begin."""
        return prepare_trial(apply_preset(self.recipe, self.splits, prepare_trial), self.splits)

    @property
    def model(self) -> Detector:
        """The model that the training begins with."""
        return cast(Detector, self.job.trainer.model)

    @property
    def processor(self) -> ImageProcessor:
        """The model's."""
        return cast(Any, self.job.trainer.processing_class)

    @cached_property
    def loaded(self) -> LoadedRun | None:
        """Numbers and log of the run."""
        return None if self.run is None else load_run(self.run)

    @property
    def ap_50(self) -> float | None:
        """AP50 of the weights that the run kept; None without an evaluation."""
        evaluation = None if self.loaded is None else self.loaded.evaluation
        return None if evaluation is None else float(evaluation["metrics"]["map_50"])

    @property
    def has_learned(self) -> bool:
        """True of a run whose detections are right often enough."""
        return (self.ap_50 or 0.0) >= LEARNED

    @cached_property
    def matched(self) -> MatchedDetections:
        """Validation objects of the run and the detections of its weights."""
        return read_evaluated(str(self.run), self.flags)[0].matched

    def sample(self, split: str, count: int) -> Source:
        """Some images of a split that have objects, spread evenly over it, as a split of their own."""
        source = self.sources[split]
        with_objects = {entry["image_id"] for entry in source.coco["annotations"] if not entry.get("iscrowd")}
        images = [image for image in source.coco["images"] if image["id"] in with_objects]
        places = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int))
        chosen = [images[place] for place in places.tolist()]
        ids = {image["id"] for image in chosen}
        annotations = [entry for entry in source.coco["annotations"] if entry["image_id"] in ids]
        return replace(source, coco={**source.coco, "images": chosen, "annotations": annotations}, origin=None)

    def sample_rows(self, split: str, count: int) -> Dataset:
        """Rows of `sample`, with paths or bytes of images."""
        sample = self.sample(split, count)
        return sample.load(prepare_coco(sample.coco, None, sample.masks), self.splits.label_map).with_format(None)

    def evaluate(self, model: str, split: Source) -> MatchedDetections:
        """Objects of some images and what a folder's or the Hub's model finds there."""
        data = replace(self.recipe.data, val_limit=None)
        evaluation = evaluate_model(model, replace(self.recipe, data=data), split)
        return match_detections(read_truth(evaluation.truth), evaluation.detections)
