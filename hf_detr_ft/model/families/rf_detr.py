"""RF-DETR (Robinson et al. 2025, arXiv:2511.09554; roboflow/rf-detr)."""

from dataclasses import replace
from typing import Any

from hf_detr_ft.model.families.family import SizeRule
from hf_detr_ft.model.families.lw_detr import LW_DETR


def size_step(config: Any) -> int:
    """Pixels of a patch times windows a side."""
    backbone = config.backbone_config
    return int(backbone.patch_size * backbone.num_windows)


RF_DETR = replace(
    LW_DETR,
    model_type="rf_detr",
    name="RF-DETR",
    architecture="RfDetrForObjectDetection",
    processor="RfDetrImageProcessor",
    size=SizeRule(square=True, step=size_step, edge=560),
    top=None,
    fixed_parameters=("model.backbone.backbone.embeddings.mask_token",),
)
"""LW-DETR on a DINOv2 with windows, which has a token for masked patches that no detector uses."""
