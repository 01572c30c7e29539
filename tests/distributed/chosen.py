"""Choices of `training.preset: auto` in several processes; each writes value and reason by field."""

import json
from pathlib import Path
from unittest.mock import patch

from accelerate import PartialState

from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.training import choose_preset
from hf_detr_ft.training.job import Job
from tests.fixtures import write_coco_folder


def run(folder: Path) -> None:
    """Four images, of which the memory has room for two in the first process, for one in the second."""
    state, root = PartialState(), folder / "chosen"
    if state.is_main_process:
        write_coco_folder(root)
    state.wait_for_everyone()
    flags = ["--data.root", str(root), "--data.train_limit", "4", "--training.preset", "auto"]
    flags += ["--model.checkpoint", "null", "--model.backbone", "test_resnet", "--training.use_cpu", "true"]
    recipe = load_recipe(None, flags)
    with patch.object(choose_preset, "find_room", lambda *_: 2 - state.process_index):
        choices = choose_preset.apply_preset(recipe, load_splits(recipe.data), no_trial).choices
    (folder / f"chosen {state.process_index}.json").write_text(json.dumps(choices))


def no_trial(*_: object) -> Job:
    """Stands in for a trial, which is none of this."""
    raise AssertionError
