"""Parameter groups: backbone and rest, each with and without weight decay."""

from torch import nn


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    backbone_learning_rate: float,
    weight_decay: float,
    backbone_prefix: str = "model.backbone.",
) -> list:
    """Groups for AdamW over what is trained; empty ones are left out.

    The backbone has its own learning rate (facebookresearch/detr `main.py`: 1e-5 beside 1e-4). Norms, biases and other
    vectors are not decayed.

    Args:
        model: a detector.
        learning_rate: rate of transformer and heads.
        backbone_learning_rate: rate of the backbone.
        weight_decay: decay of matrices and convolutions.
        backbone_prefix: prefix of the names of the backbone's parameters.

    Returns:
        Dictionaries with `name`, `params`, `lr` and `weight_decay`.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_backbone = name.removeprefix("module.").startswith(backbone_prefix)
            groups.setdefault((is_backbone, parameter.dim() > 1), []).append(parameter)
    return [
        {
            "name": f"{'backbone' if is_backbone else 'rest'}, {'decay' if decays else 'no decay'}",
            "params": parameters,
            "lr": backbone_learning_rate if is_backbone else learning_rate,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (is_backbone, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
