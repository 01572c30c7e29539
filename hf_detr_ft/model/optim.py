"""Parameter groups: backbone and rest, each with and without weight decay."""

import re
from collections.abc import Mapping

from torch import nn


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    backbone_learning_rate: float,
    weight_decay: float,
    backbone_prefix: str = "model.backbone.",
    rate_factors: Mapping[str, float] | None = None,
    undecayed: tuple[str, ...] = (),
    decay_all: bool = False,
) -> list:
    """Groups for AdamW over what is trained; empty ones are left out.

    The backbone has its own learning rate (facebookresearch/detr `main.py`: 1e-5 beside 1e-4). Norms, biases and other
    vectors are not decayed, unless all are.

    Args:
        model: a detector.
        learning_rate: rate of transformer and heads.
        backbone_learning_rate: rate of the backbone.
        weight_decay: decay of matrices and convolutions.
        backbone_prefix: prefix of the names of the backbone's parameters.
        rate_factors: factors on the rates of some parameters by regular expressions that are found in their names; the
            first counts.
        undecayed: prefixes of the names of matrices that are not decayed.
        decay_all: decay every parameter, as facebookresearch/detr does.

    Returns:
        Dictionaries with `name`, `params`, `lr` and `weight_decay`; the highest rates of each part come first.
    """
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            name = name.removeprefix("module.")
            factors = (factor for pattern, factor in (rate_factors or {}).items() if re.search(pattern, name))
            decays = decay_all or (parameter.dim() > 1 and not name.startswith(undecayed))
            key = (name.startswith(backbone_prefix), -next(factors, 1.0), decays)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "name": f"{'backbone' if is_backbone else 'rest'}, {'decay' if decays else 'no decay'}"
            + (f", rate x {-factor:.3g}" if factor != -1 else ""),
            "params": parameters,
            "lr": -factor * (backbone_learning_rate if is_backbone else learning_rate),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (is_backbone, factor, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
