"""RT-DETRv2 (Lv et al. 2024, arXiv:2407.17140; lyuwenyu/RT-DETR, rtdetrv2_pytorch)."""

from dataclasses import replace

from hf_detr_ft.model.families.rt_detr import RT_DETR

RT_DETR_V2 = replace(RT_DETR, model_type="rt_detr_v2", name="RT-DETRv2", architecture="RTDetrV2ForObjectDetection")
"""RT-DETR with another sampling in its decoder's attention; trained in the same way."""
