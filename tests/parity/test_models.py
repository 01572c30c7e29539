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


def limit(kind: str, fp64: bool) -> float:
    """The largest difference; in fp32 one pixel of the mask head that a ReLU lets through or not is worth 1e-2."""
    return 1e-6 if fp64 else 1e-4 if kind == "gradients" else 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_answers_as_the_original(name: str) -> None:
    model = MODELS[name]
    theirs = {key: torch.tensor(value) for key, value in json.loads(MODEL_ANSWERS.read_text())[name].items()}
    mine = shown(run_converted(model, random_tensors(model), fp64=model.masks))
    found = model_differences({key: torch.tensor(value) for key, value in mine.items()}, theirs)
    assert found.keys() == KINDS.keys() - (() if model.masks else {"masks"})
    assert {kind: value for kind, value in found.items() if value > limit(kind, model.masks)} == {}
