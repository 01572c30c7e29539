"""Encoder layers without their question to the device, and how often a step of ours waits for it at all."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hf_detr_ft.model.detector import detector_class
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.model.speed.encoder_checks import skip_finite_checks
from tests.families import tiny_model
from tests.fixtures import trainable_tiny_detr

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique")
"""Operators whose result the host needs before it goes on."""


class Waits(TorchDispatchMode):
    """Notes what makes the host wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name, is_copy = func.name(), func.name().startswith("aten::copy_")
        if any(word in name for word in WAITS):
            self.noted.append(name)
        result = func(*args, **kwargs)
        if is_copy or name.startswith("aten::_to_copy"):
            source = args[1] if is_copy else args[0]
            asked = kwargs.get("non_blocking") or (is_copy and args[2:] == (True,))
            if source.device != result.device and not asked:
                self.noted.append(f"{source.device.type} to {result.device.type}")
        return result


def batch_on(device: str) -> dict[str, Any]:
    """Two images, one of them without objects, and the counts of a step."""
    labels = [
        {
            "class_labels": torch.zeros(count, dtype=torch.int64, device=device),
            "boxes": torch.full((count, 4), 0.5, device=device),
            "image_id": torch.zeros(1, dtype=torch.int64, device=device),
        }
        for count in (2, 0)
    ]
    return {
        "pixel_values": torch.ones(2, 3, 64, 64, device=device),
        "pixel_mask": torch.ones(2, 64, 64, dtype=torch.int64, device=device),
        "labels": labels,
        "num_items_in_batch": torch.tensor([2.0, 2.0, 2.0]).to(device, non_blocking=True),
    }


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors "on a GPU" that have shapes and no values; the matcher is given costs of nothing."""
    monkeypatch.setattr(FakeTensor, "numpy", lambda tensor: np.zeros(tuple(tensor.shape), np.float32))
    with FakeTensorMode():
        yield


@pytest.mark.parametrize("stock", [False, True])
def test_a_forward_pass_waits_for_the_device_once_for_the_matcher(fake_gpu: None, stock: bool):
    with torch.device("cuda"):
        model = trainable_tiny_detr(encoder_layers=2).train()
    if not stock:
        skip_finite_checks(model)
    batch = batch_on("cuda")
    with Waits() as waits:
        if stock:
            with pytest.raises(Exception, match="_local_scalar_dense"):
                model(**batch)
            assert waits.noted == ["aten::_local_scalar_dense"], "without the mend the first encoder layer asks"
        else:
            model(**batch)
            assert waits.noted == ["cuda to cpu"], "all layers are matched in one transfer"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_else_changes(family: str, training: bool):
    kind = FAMILIES[family]
    torch.manual_seed(0)
    stock = detector_class(kind)(tiny_model(family, dropout=0.3).config).train(training)
    ours = deepcopy(stock)
    skip_finite_checks(ours)
    results = []
    for model in (stock, ours):
        torch.manual_seed(1)
        outputs = model(**{**batch_on("cpu"), "num_items_in_batch": None})
        outputs.loss.backward()
        results.append((outputs.logits, [p.grad for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    before = [layer.training for layer in stock.modules()]
    assert [layer.training for layer in ours.modules()] == before
    for layer in (layer for layer in ours.modules() if type(layer).__name__.endswith("EncoderLayer")):
        layer.self_attn.register_forward_hook(run_out)
        with pytest.raises(torch.OutOfMemoryError):
            ours(pixel_values=torch.ones(1, 3, 64, 64))
    assert [layer.training for layer in ours.modules()] == before, "a step that fails may be tried again"


def run_out(*_: Any) -> None:
    """What the allocator raises."""
    raise torch.OutOfMemoryError
