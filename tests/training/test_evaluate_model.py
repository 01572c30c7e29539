"""A model over the validation split of a recipe, with the recipe's measures for speed."""

from pathlib import Path
from typing import Any

import pytest

from hf_detr_ft.model.speed import folded_norms
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.training.evaluate_model import evaluate_model
from tests.fixtures import write_coco_folder, write_run_with_spread_weights

NORMS = 15
"""Frozen norms of the tiny DETR's backbone."""


def test_norms_are_folded_once_or_never_as_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, root = write_run_with_spread_weights(tmp_path / "run"), write_coco_folder(tmp_path / "data")
    folded: list[Any] = []
    fold = folded_norms._fold
    monkeypatch.setattr(folded_norms, "_fold", lambda convolution: folded.append(convolution) or fold(convolution))
    scores = []
    for folds, times in (("true", 2 * NORMS), ("false", 0)):  # one is the probe
        folded.clear()
        flags = ["--data.root", str(root), "--training.bf16", "false", "--training.per_device_eval_batch_size", "1"]
        evaluation = evaluate_model(str(run), load_recipe(None, [*flags, "--speed.fold_frozen_norms", folds]))
        assert len(folded) == times
        scores.append(evaluation.detections.score)
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
