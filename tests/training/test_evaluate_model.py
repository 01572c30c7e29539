"""A model over the validation split of a recipe: speed, classes found again in the data, training's own numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_detr_ft.errors import DataError
from hf_detr_ft.model.speed import folded_norms
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.runs.train import train
from hf_detr_ft.training.evaluate_model import evaluate_model, match_classes
from tests.fixtures import (
    tiny_config,
    tiny_detr_with_spread_weights,
    write_coco_folder,
    write_run_folder,
    write_run_with_spread_weights,
)

NORMS = 15
"""Frozen norms of the tiny DETR's backbone."""
RED_RED_BLUE = ({"id": 0, "name": "red"}, {"id": 1, "name": "red"}, {"id": 2, "name": "blue"})
"""Categories of which two have one name, as in exports whose root class is called like a class."""


def config(names: list[str], category_ids: list[int] | None = None) -> object:
    made = tiny_config(names)
    if category_ids is not None:
        made.category_ids = category_ids
    return made


def truth(categories: dict[int, str], *used: int) -> dict:
    return {
        "categories": [{"id": id_, "name": name} for id_, name in categories.items()],
        "annotations": [{"category_id": id_} for id_ in used],
    }


@pytest.mark.parametrize(
    ("names", "trained", "data", "expected"),
    [
        (["a", "b"], [3, 7], {7: "b", 3: "a"}, (3, 7)),
        (["a", "b"], None, {1: "b", 2: "a"}, (2, 1)),  # a model of others: by name
        (["a", "b"], [0, 1], {1: "a", 2: "b"}, (1, 2)),  # numbered anew: id 1 is b there and a here
        (["a", "b"], [0, 1], {0: "a"}, (0, -2)),
        (["a", "b"], [0, 1], {0: "a", 5: "b"}, (0, 5)),  # what ids leave goes by name
        (["red", "red", "blue"], [0, 1, 2], {0: "red", 1: "red", 2: "blue"}, (0, 1, 2)),
        (["red", "red", "blue"], [0, 1, 2], {1: "red", 2: "blue"}, (-1, 1, 2)),
        (["N/A", "cat", "N/A"], None, {4: "cat"}, (-1, 4, -3)),
    ],
)
def test_classes_go_by_id_where_these_agree_and_else_by_name(
    names: list[str], trained: list[int] | None, data: dict[int, str], expected: tuple[int, ...]
) -> None:
    label_map = match_classes(config(names, trained), truth(data, *data), "run")
    assert (label_map.category_ids, label_map.names) == (expected, tuple(names))


@pytest.mark.parametrize(
    ("names", "trained", "data"),
    [
        (["red", "red", "blue"], None, {0: "red", 1: "red", 2: "blue"}),
        (["red", "red", "blue"], [0, 1, 2], {1: "red", 2: "red", 3: "blue"}),  # ids moved by one
        (["red", "red", "blue"], [0, 1, 2], {5: "red", 6: "blue"}),
        (["red", "blue"], None, {0: "red", 1: "red", 2: "blue"}),
        (["red", "red"], [0, 1], {0: "red", 9: "red"}),
    ],
)
def test_a_name_that_could_be_two_classes_is_refused(
    names: list[str], trained: list[int] | None, data: dict[int, str]
) -> None:
    with pytest.raises(DataError, match=r'\["red"\] is the name of several classes .* of \'run\'.* name of its own'):
        match_classes(config(names, trained), truth(data, *data), "run")


def test_objects_of_a_class_that_the_model_does_not_know_are_refused() -> None:
    unused = truth({3: "a", 4: "c"}, 3)
    assert match_classes(config(["a", "b"], [3, 7]), unused, "run").category_ids == (3, -2)
    with pytest.raises(DataError, match=r"'run' knows the classes .*; the data have objects of \[\"c\"\]"):
        match_classes(config(["a", "b"], [3, 7]), truth({3: "a", 4: "c"}, 4), "run")


def test_evaluate_gives_trainings_numbers_with_two_classes_of_one_name(tmp_path: Path) -> None:
    """Truth is what the model finds, moved a little and of both red classes, so that there is an AP to compare."""
    model = tiny_detr_with_spread_weights(seed=15, labels=[category["name"] for category in RED_RED_BLUE])
    start = write_run_folder(tmp_path / "start", model, category_ids=(0, 1, 2))
    root = write_coco_folder(tmp_path / "data", categories=RED_RED_BLUE)
    flags = ["--data.root", str(root), "--training.bf16", "false", "--training.use_cpu", "true"]
    annotations = root / "annotations" / "custom_val.json"
    found = evaluate_model(str(start), load_recipe(None, flags)).detections
    entries = [found.to_results()[place] for place in np.argsort(-found.score)[::2]]
    for number, entry in enumerate(entries):
        x, y, w, h = entry["bbox"]
        entry |= {"id": number, "bbox": [x + 0.1 * w, y, w, h]}
    annotations.write_text(json.dumps({**json.loads(annotations.read_text()), "annotations": entries}))

    run = tmp_path / "run"
    flags += ["--model.checkpoint", str(start), "--model.shortest_edge", "96", "--model.longest_edge", "160"]
    flags += ["--training.output_dir", str(run), "--training.max_steps", "1", "--training.learning_rate", "1e-9"]
    assert train(None, [*flags, "--training.backbone_learning_rate", "1e-9", "--augment.preset", "none"]) == 0
    best = json.loads((run / "metrics.json").read_text())["best"]
    again = evaluate_model(str(run), load_recipe(run / "recipe.yaml", [])).result.as_dict()
    trained, evaluated = ([row["ap"] for row in result["per_class"]] for result in (best, again))
    assert min(trained[:2]) > 0.05
    assert evaluated == pytest.approx(trained, abs=1e-6)
    assert again["metrics"] == pytest.approx(best["metrics"], abs=1e-6)


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
