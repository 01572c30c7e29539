"""RT-DETRv2 (Lv et al. 2024, arXiv:2407.17140; lyuwenyu/RT-DETR, rtdetrv2_pytorch)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hf_detr_ft.model.families.rt_detr import RT_DETR, resnet_of

BACKBONE_RATES = {18: 1e-4, 34: 5e-5, 50: 1e-5, 101: 1e-6}
"""Learning rates by layers of the ResNet (rtdetrv2_pytorch/configs/rtdetrv2)."""


def values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rate of the backbone by its depth, and average of the weights."""
    rate = BACKBONE_RATES.get(resnet_of(settings), 1e-5)
    return {"training.backbone_learning_rate": rate, "training.ema_decay": 0.9999}


RT_DETR_V2 = replace(
    RT_DETR,
    model_type="rt_detr_v2",
    name="RT-DETRv2",
    architecture="RTDetrV2ForObjectDetection",
    values=values,
)
"""RT-DETR with another sampling in its decoder's attention; all but the backbone is trained in the same way."""
