"""RF-DETR (Robinson et al. 2025, arXiv:2511.09554; roboflow/rf-detr)."""

from dataclasses import replace
from typing import Any

from hf_detr_ft.model.families.family import SizeRule
from hf_detr_ft.model.families.lw_detr import LW_DETR, layer_factors, layers_behind_the_maps


def size_step(config: Any) -> int:
    """Pixels of a patch times windows a side."""
    backbone = config.backbone_config
    return int(backbone.patch_size * backbone.num_windows)


def fixed_parameters(config: Any) -> tuple[str, ...]:
    """Prefixes of the names of a token for masked patches, and of the layers that no feature map comes from."""
    return ("model.backbone.backbone.embeddings.mask_token", *layers_behind_the_maps(config))


def rate_factors(config: Any) -> dict[str, float]:
    """Factors on the rates of the backbone's layers up to the last that a map comes from, and of the decoder."""
    backbone = config.backbone_config
    layers = 1 + backbone.stage_names.index(backbone.out_features[-1])
    return {**layer_factors(layers, 0.8), r"^model\.decoder\.": 0.7}


RF_DETR = replace(
    LW_DETR,
    model_type="rf_detr",
    name="RF-DETR",
    architecture="RfDetrForObjectDetection",
    processor="RfDetrImageProcessor",
    size=SizeRule(square=True, step=size_step, cells=lambda config: (config.backbone_config.patch_size,), edge=560),
    top=None,
    fixed_parameters=fixed_parameters,
    rate_factors=rate_factors,
    undecayed=("model.backbone.backbone.embeddings.",),
    # The backbone's rate is 1.5e-4, sunk by 0.7 twice.
    values=lambda settings: {"training.backbone_learning_rate": 7.35e-5, "training.ema_decay": 0.993},
)
"""LW-DETR on a DINOv2 with windows."""
