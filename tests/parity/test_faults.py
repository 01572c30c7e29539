"""Faults of Transformers' losses that ours do not have: one test a fault, one case a family; `docs/parity.md`.

`python -m tests.parity.fault_table` prints the same measures of Transformers' own losses beside ours.
"""

import pytest
import torch

from hf_detr_ft.model.loss import count_items
from tests.parity import faults
from tests.parity.cases import COUNTS, FAMILIES, QUERIES, UNLIKE, losses_and_gradients, ours, random_case, take_images

FINE_GRAINED = [name for name, family in FAMILIES.items() if family.bins]
GROUPED = [name for name, family in FAMILIES.items() if family.groups > 1]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in FINE_GRAINED])
def test_micro_batches_add_up_to_the_whole_batch(name: str) -> None:
    predictions, labels = random_case(name, COUNTS["objects"])
    whole = losses_and_gradients(ours(name), predictions, labels)
    items = count_items(labels, QUERIES)
    cuts = [slice(0, 1), slice(1, 2), slice(2, 4)]
    pieces = [losses_and_gradients(ours(name, items), take_images(predictions, cut), labels[cut]) for cut in cuts]
    for key, value in whole.items():
        if key.startswith("d "):
            torch.testing.assert_close(torch.cat([piece[key] for piece in pieces], dim=1), value, rtol=1e-4, atol=1e-7)
        else:
            torch.testing.assert_close(sum(piece[key] for piece in pieces), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FINE_GRAINED)
def test_micro_batches_nearly_add_up_where_matches_are_united(name: str) -> None:
    """The union of a step's micro-batches is not known beforehand; class losses and noised boxes do not need it."""
    predictions, labels = random_case(name, COUNTS["objects"], seed=UNLIKE)
    _, whole = ours(name)(predictions, labels)
    run = ours(name, count_items(labels, QUERIES))
    halves = [run(take_images(predictions, cut), labels[cut])[1] for cut in (slice(0, 2), slice(2, 4))]
    for key, value in whole.items():
        is_exact = key.startswith(("loss_vfl", "loss_mal")) or ("_dn" in key and "ddf" not in key)
        torch.testing.assert_close(halves[0][key] + halves[1][key], value, rtol=1e-5 if is_exact else 0.2, atol=1e-6)


@pytest.mark.parametrize("name", ["deformable_detr"])
def test_the_encoders_proposals_are_taught(name: str) -> None:
    assert faults.taught_proposals(ours(name), name) > 0.1


@pytest.mark.parametrize("name", FAMILIES)
def test_without_objects_every_output_has_a_finite_gradient(name: str) -> None:
    assert faults.outputs_without_gradient(ours(name), name) == 0


@pytest.mark.parametrize("name", GROUPED)
def test_perfect_evaluation_has_no_box_loss(name: str) -> None:
    assert faults.box_loss_of_perfect_evaluation(ours(name), name) < 1e-6


@pytest.mark.parametrize("name", FAMILIES)
def test_sure_scores_in_half_precision_have_a_finite_loss(name: str) -> None:
    assert faults.is_finite_when_sure(ours(name), name)


@pytest.mark.parametrize("name", FINE_GRAINED)
def test_every_layer_is_taught(name: str) -> None:
    assert faults.untaught_layers(ours(name), name) == 0
