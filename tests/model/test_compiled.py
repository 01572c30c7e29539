"""A compiled backbone: the same results, and no end of compiling."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from packaging.version import Version

from hf_detr_ft.model.build import build_model
from hf_detr_ft.recipe.sections import ModelConfig, SpeedConfig

SETTINGS: dict[str, Any] = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 5, "dropout": 0.0}

ODD = (100, 131)
"""Height and width that pooling cuts; torch 2.11 compiles once more for it, torch 2.15 does not."""


def build(compiled: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    config = ModelConfig(checkpoint=None, backbone="test_resnet.r160_in1k", config=SETTINGS)
    return build_model(config, ["a"], [1], SpeedConfig(compile_backbone=compiled))


def batch(images: int, height: int, width: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(height * width)
    mask = torch.ones(images, height, width, dtype=torch.int64)
    mask[0, :, width - 32 :] = 0
    target = {"class_labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.3]])}
    pixel_values = torch.randn(images, 3, height, width, generator=generator)
    return {"pixel_values": pixel_values, "pixel_mask": mask, "labels": [target] * images}


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [parameter for parameter in model.parameters() if parameter.requires_grad]))


def test_a_compiled_backbone_gives_the_same_for_all_shapes_and_is_compiled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, example_inputs: list[torch.Tensor]) -> Callable:
        """A backend that runs the graphs as they are, without a C++ compiler."""
        graphs.append(graph)
        return graph.forward

    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compile_module(self, backend=keep, **how))
    ours, plain = build(compiled=True), build(compiled=False)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    for images, height, width in [(4, 96, 128), (4, 128, 96), (4, 64, 160), (3, 128, 128), (2, 96, 96), (4, *ODD)]:
        found, wanted = (model(**batch(images, height, width)) for model in (ours, plain))
        torch.testing.assert_close(found.loss, wanted.loss, rtol=1e-5, atol=0)
        for one, other in zip(gradients(ours, found.loss), gradients(plain, wanted.loss), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
        if (height, width) != ODD:
            assert len(graphs) == 1
    assert len(graphs) == 1 or Version(torch.__version__) < Version("2.15")
