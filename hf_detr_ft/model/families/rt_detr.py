"""RT-DETR (Zhao et al. 2023, arXiv:2304.08069; lyuwenyu/RT-DETR, rtdetr_pytorch)."""

from hf_detr_ft.model.criteria.family_criteria import rt_detr_criterion
from hf_detr_ft.model.families import real_time
from hf_detr_ft.model.families.family import Family

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
    frozen_stages=1,
)
"""Rates, weight decay and clipping of its training are those of DETR; ResNet-50 without its stem is trained."""
