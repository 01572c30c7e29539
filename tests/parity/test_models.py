"""Converted models answer as the originals did, which `python -m tests.parity` wrote down."""

import json

import pytest
import torch

from tests.parity.original_models import (
    KINDS,
    MODEL_ANSWERS,
    MODELS,
    model_differences,
    random_tensors,
    run_converted,
    shown,
)

LIMITS = {"gradients": 1e-4}
"""Largest differences; 1e-5 of anything else."""


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_answers_as_the_original(name: str) -> None:
    model = MODELS[name]
    theirs = {key: torch.tensor(value) for key, value in json.loads(MODEL_ANSWERS.read_text())[name].items()}
    mine = shown(run_converted(model, random_tensors(model)))
    found = model_differences({key: torch.tensor(value) for key, value in mine.items()}, theirs)
    assert found.keys() == KINDS.keys() - (() if model.masks else {"masks"})
    assert {kind: value for kind, value in found.items() if value > LIMITS.get(kind, 1e-5)} == {}
