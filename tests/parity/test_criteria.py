"""Ours give what the originals gave, which `python -m tests.parity` wrote down."""

import json
from pathlib import Path

import pytest
import torch

from hf_detr_ft.model.hungarian_matching import UnusableBatchError
from tests.parity.cases import CLASSES, COUNTS, FAMILIES, fingerprint, leaves, losses_and_gradients, ours, random_case

ANSWERS = Path(__file__).with_name("answers.json")


def differences(
    mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]
) -> tuple[dict[str, float], dict[str, float]]:
    """Differences of losses, relative where they are above 1, and of gradients, relative to a tensor's largest.

    The originals have some parts that are always zero, which ours lack, and without objects a class error of 100 %,
    where ours is 0.
    """
    of_parts, of_gradients = {}, {}
    for name, value in theirs.items():
        if name.startswith("d "):
            of_gradients[name] = float((mine[name] - value).abs().max() / value.abs().max().clamp(min=1e-12))
        elif (name in mine or value.item() != 0) and (name, value.item()) != ("class_error", 100):
            of_parts[name] = abs(mine[name].item() - value.item()) / max(1.0, abs(value.item()))
    return of_parts, of_gradients


@pytest.mark.parametrize("case", COUNTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_losses_and_gradients_are_the_originals(name: str, case: str) -> None:
    answers = json.loads(ANSWERS.read_text())[f"{name}, {case}"]
    theirs = {key: torch.tensor(value, dtype=torch.float64) for key, value in answers.items()}
    result = losses_and_gradients(ours(name), *random_case(name, COUNTS[case]))
    mine = {key: torch.tensor(fingerprint(value)) if key.startswith("d ") else value for key, value in result.items()}
    of_parts, of_gradients = differences(mine, theirs)
    assert len(of_parts) > 3 and of_gradients
    assert {key: value for key, value in of_parts.items() if value > 1e-5} == {}
    assert {key: value for key, value in of_gradients.items() if value > 1e-4} == {}


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_is_matched_and_summed_in_fp32(name: str) -> None:
    predictions, labels = random_case(name, COUNTS["objects"])
    for _, tensor in leaves(predictions):
        tensor.data = tensor.data.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss, parts = ours(name)(predictions, labels)
    for _, tensor in leaves(predictions):
        tensor.data = tensor.data.float()
    expected, _ = ours(name)(predictions, labels)
    assert loss.dtype == parts["loss_giou"].dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_labels_out_of_range_name_their_images(name: str) -> None:
    predictions, labels = random_case(name, COUNTS["objects"])
    labels[2]["class_labels"][1] = CLASSES
    with pytest.raises(UnusableBatchError, match="labels are out of range") as caught:
        ours(name)(predictions, labels)
    assert caught.value.image_ids == [2]


@pytest.mark.parametrize("name", FAMILIES)
def test_all_layers_are_matched_in_one_transfer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: calls.append(tensor.shape) or original(tensor))
    ours(name)(*random_case(name, COUNTS["objects"]))
    assert len(calls) == (2 if name == "deformable_detr" else 1)  # its proposals are at all positions
