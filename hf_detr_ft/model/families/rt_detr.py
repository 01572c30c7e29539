"""RT-DETR (Zhao et al. 2023, arXiv:2304.08069; lyuwenyu/RT-DETR, rtdetr_pytorch)."""

from collections.abc import Mapping
from typing import Any

from hf_detr_ft.model.criteria.family_criteria import rt_detr_criterion
from hf_detr_ft.model.families import real_time
from hf_detr_ft.model.families.family import Family


def resnet_of(settings: Mapping[str, Any]) -> int:
    """Layers of the ResNet that a checkpoint with these settings has: 18, 34, 50 or 101; 50 where there are none."""
    backbone = settings.get("backbone_config") or {}
    depths = sum(backbone.get("depths") or (3, 4, 6, 3))
    return 2 + depths * (2 if backbone.get("layer_type") == "basic" else 3)


def frozen_stages(config: Any) -> int:
    """One stage, the stem, but for ResNets of basic blocks, all of whose stages are trained."""
    return 0 if getattr(config.backbone_config, "layer_type", None) == "basic" else 1


def values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Average of the weights, and the rate of a ResNet-101; those of the others are DETR's."""
    rate = {"training.backbone_learning_rate": 1e-6} if resnet_of(settings) == 101 else {}
    return {**rate, "training.ema_decay": 0.9999}


RT_DETR = Family(
    model_type="rt_detr",
    name="RT-DETR",
    architecture="RTDetrForObjectDetection",
    processor="RTDetrImageProcessor",
    predict=real_time.predict,
    criterion=rt_detr_criterion,
    class_heads=real_time.CLASS_HEADS,
    reset_heads=real_time.reset_heads,
    initialise=real_time.initialise,
    backbone_settings=real_time.backbone_settings,
    scores="sigmoid",
    prepare=real_time.prepare,
    unused_without_boxes=real_time.DENOISING,
    needs_all_layers=True,
    pixel_mask=False,
    size=real_time.SQUARES,
    strides=real_time.STRIDES,
    frozen_stages=frozen_stages,
    values=values,
)
"""Rates, weight decay and clipping of its training are those of DETR (rtdetr_pytorch/configs/rtdetr)."""
