"""Parts of the backbone that are trained.

facebookresearch/detr (`models/backbone.py`) trains layer2, layer3 and layer4 of its ResNet and freezes the stem and
layer1. Transformers trains all of a timm backbone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.model.families import family_of
from hf_detr_ft.model.families.family import backbone_of, map_encoder_of


@dataclass(frozen=True)
class TrainableSummary:
    """Numbers of parameters that are trained and frozen."""

    stages: list[str]
    """Names of the backbone's trained stages."""
    frozen_stages: list[str]
    backbone_trained: int
    backbone_frozen: int
    rest_trained: int

    def __str__(self) -> str:
        def millions(count: int) -> str:
            return f"{count / 1e6:.2f} M"

        return (
            f"backbone: trains {', '.join(self.stages) or 'nothing'} ({millions(self.backbone_trained)} parameters), "
            f"freezes {', '.join(self.frozen_stages) or 'nothing'} ({millions(self.backbone_frozen)}); "
            f"transformer and heads: {millions(self.rest_trained)}"
        )


def backbone_stages(backbone: nn.Module) -> list[str]:
    """Names of the backbone's parts that hold parameters, in the order in which an image passes them.

    A container of stages (`blocks` of EfficientNet, `encoder.stages` of Transformers' ResNet) counts by its members.
    """
    stages: list[str] = []
    for name, child in backbone.named_children():
        if not any(True for _ in child.parameters()):
            continue
        inner = child.stages if isinstance(getattr(child, "stages", None), nn.ModuleList) else child
        assert isinstance(inner, nn.Module)
        prefix = f"{name}.stages" if inner is not child else name
        if name in ("blocks", "stages") or inner is not child:
            stages.extend(f"{prefix}.{member}" for member, _ in inner.named_children())
        else:
            stages.append(name)
    return stages


@torch.inference_mode()
def feature_stride(model: PreTrainedModel) -> int:
    """Pixels of the image per step of the feature map that the transformer reads; of the finest where it reads some."""
    backbone = map_encoder_of(model)
    training = model.training
    parameter = next(backbone.parameters())
    side = family_of(model).size.side(model.config, 256)
    backbone.eval()  # in training, norms that are not frozen would count this image
    maps = backbone(torch.zeros(1, 3, side, side).to(parameter), torch.ones(1, side, side, device=parameter.device))
    backbone.train(training)
    read = maps[-1] if len(family_of(model).strides) == 1 else maps[0]
    return side // int(read[0].shape[-1])


def default_stages(backbone: nn.Module, stages: Sequence[str], frozen_stages: int | None = None) -> list[str]:
    """The original's choice.

    Args:
        backbone: timm's or Transformers'.
        stages: its `backbone_stages`.
        frozen_stages: number of the first ones that are not trained; None for DETR's choice: up to the stage that ends
            at a stride of 4 (`layer1` of a ResNet).
    """
    if frozen_stages is not None:
        return list(stages[frozen_stages:])
    information = getattr(backbone, "feature_info", None)
    first = 0
    if information is not None:
        for entry in information.info:
            module = entry["module"]
            if entry["reduction"] <= 4 and module in stages:
                first = stages.index(module) + 1
    elif stages and stages[0] == "embedder":  # Transformers' own ResNet
        first = 2
    return list(stages[first:])


def unused_stages(backbone: nn.Module, stages: Sequence[str]) -> list[str]:
    """Stages behind the feature map that DETR reads; they get no gradient."""
    information = getattr(backbone, "feature_info", None)
    last = information.get_dicts()[-1]["module"] if information is not None else None
    return list(stages[stages.index(last) + 1 :]) if last in stages else []


def train_stages(model: PreTrainedModel, trainable_stages: Sequence[str] | None) -> TrainableSummary:
    """Sets `requires_grad` of the backbone by stage; everything else is trained.

    Args:
        model: changed in place.
        trainable_stages: as `backbone_stages` names them; None for DETR's choice; `["all"]`; `[]` for none.

    Raises:
        RecipeError: a name is not a stage of this backbone.
    """
    backbone = backbone_of(model)
    stages = backbone_stages(backbone)
    if trainable_stages is None:
        chosen = default_stages(backbone, stages, family_of(model).frozen_stages(model.config))
    elif list(trainable_stages) == ["all"]:
        chosen = stages
    else:
        unknown = [name for name in trainable_stages if name not in stages]
        if unknown:
            raise RecipeError(
                f"model.trainable_stages: expected names among {stages}, ['all'] or [], found {unknown}. "
                "These are the stages of this backbone."
            )
        chosen = list(trainable_stages)
    unused = unused_stages(backbone, stages)
    chosen = [name for name in chosen if name not in unused]
    fixed = family_of(model).fixed_parameters(model.config)
    model.requires_grad_(True)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(any(name.startswith(f"{stage}.") for stage in chosen))
    for name, parameter in model.named_parameters():
        if name.startswith(fixed):
            parameter.requires_grad_(False)
    return summarise_trainable(model)


def summarise_trainable(model: PreTrainedModel) -> TrainableSummary:
    """Trained and frozen parts of a model, as `requires_grad` says it."""
    backbone = backbone_of(model)
    named = list(backbone.named_parameters())
    trained = {name for name, parameter in named if parameter.requires_grad}
    stages = backbone_stages(backbone)
    trained_stages = [stage for stage in stages if any(name.startswith(f"{stage}.") for name in trained)]
    in_backbone = {id(parameter) for _, parameter in named}
    rest = (p for p in model.parameters() if p.requires_grad and id(p) not in in_backbone)
    return TrainableSummary(
        stages=trained_stages,
        frozen_stages=[stage for stage in stages if stage not in trained_stages],
        backbone_trained=sum(parameter.numel() for name, parameter in named if name in trained),
        backbone_frozen=sum(parameter.numel() for name, parameter in named if name not in trained),
        rest_trained=sum(parameter.numel() for parameter in rest),
    )
