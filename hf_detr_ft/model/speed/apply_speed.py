"""The recipe's `speed` section, applied to a model: the one place for training, evaluating and predicting."""

from types import MethodType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_detr_ft.model.families.family import backbone_of, map_encoder_of
from hf_detr_ft.model.mask_head import project_once
from hf_detr_ft.model.speed.affine_blocks import speed_up_affine_blocks
from hf_detr_ft.model.speed.convolution import speed_up_depthwise
from hf_detr_ft.model.speed.encoder_checks import skip_finite_checks
from hf_detr_ft.model.speed.folded_norms import cache_folded_weights, fold_frozen_norms
from hf_detr_ft.model.speed.fp32_attention import use_fp32_attention
from hf_detr_ft.model.speed.sampled_maps import gather_samples
from hf_detr_ft.model.stages import backbone_stages, unused_stages
from hf_detr_ft.recipe.sections import SpeedConfig


def apply_speed(model: PreTrainedModel, speed: SpeedConfig, *, training: bool) -> None:
    """Lets a model compute the same in less time, in place. Its tensors, and what is saved, stay the same.

    Args:
        model: a DETR, Transformers' or this package's, on any device.
        speed: the recipe's `speed` section.
        training: whether the weights will change. If not, norms are folded once, and what is for gradients alone, or
            pays only over many steps, is left out.
    """
    backbone = backbone_of(model)
    if speed.fold_frozen_norms:
        fold_frozen_norms(backbone)
        if not training:
            cache_folded_weights(backbone)
    skip_unused_stages(backbone)
    if hasattr(model, "mask_head"):
        project_once(model.mask_head)
    if speed.channels_last:
        keep_channels_last(model)
    gather_samples(model)
    if training:
        skip_finite_checks(model)
        speed_up_depthwise(model)
        speed_up_affine_blocks(backbone)
    if training and speed.fp32_attention:
        use_fp32_attention(model)
    if training and speed.compile_backbone:
        # Sizes that are known to change are compiled for once; those of each batch would be compiled for anew.
        map_encoder_of(model).compile(dynamic=True)


def keep_channels_last(model: nn.Module) -> None:
    """Brings images into the order in which convolutions are several times as fast on a CPU, where maps follow them.

    RT-DETR's attention within a map returns that in the other order, which all maps of the encoder would take over.
    """
    model.register_forward_pre_hook(_to_channels_last, with_kwargs=True)
    for module in model.modules():
        if type(module).__name__.endswith("AIFILayer"):
            module.register_forward_hook(lambda *call: call[-1].contiguous(memory_format=torch.channels_last))


def _to_channels_last(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    if args:
        return (args[0].contiguous(memory_format=torch.channels_last), *args[1:]), kwargs
    images = kwargs["pixel_values"].contiguous(memory_format=torch.channels_last)
    return args, {**kwargs, "pixel_values": images}


def skip_unused_stages(backbone: nn.Module) -> list[str]:
    """Lets stages behind the feature map that DETR reads pass on what they get; timm computes them for nothing.

    Returns:
        Their names. Their weights stay, and are saved.
    """
    names = unused_stages(backbone, backbone_stages(backbone))
    for name in names:
        stage = backbone.get_submodule(name)
        stage.forward = MethodType(_pass_on, stage)
    return names


def _pass_on(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x
