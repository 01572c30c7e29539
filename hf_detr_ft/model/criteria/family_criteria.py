"""The criterion of each family that scores classes by sigmoids; `docs/parity.md` compares them with the originals.

Values come from the model's config where it has the original's; where Transformers has another one, or none, the
original's stands here.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PretrainedConfig

from hf_detr_ft.model.criteria.class_losses import (
    ClassLoss,
    focal_loss,
    iou_aware_loss,
    matchability_loss,
    varifocal_loss,
)
from hf_detr_ft.model.criteria.distributions import Bins
from hf_detr_ft.model.criteria.sigmoid_criterion import Losses, SigmoidWeights, sigmoid_criterion
from hf_detr_ft.model.predictions import Predictions


def deformable_criterion(
    predictions: Predictions, labels: Sequence[dict], config: PretrainedConfig, num_items: torch.Tensor | None
) -> tuple[torch.Tensor, Losses]:
    """Focal loss: Conditional DETR, Deformable DETR and DAB-DETR.

    Class cost and class weight are 2 in all three; Transformers has 1 for Deformable's cost, and weighs the loss with 1
    whatever a config says.
    """
    weights = SigmoidWeights(
        bbox_cost=config.bbox_cost,
        giou_cost=config.giou_cost,
        class_loss=focal_loss(config.focal_alpha),
        loss_weights={
            "loss_ce": 2.0,
            "loss_bbox": config.bbox_loss_coefficient,
            "loss_giou": config.giou_loss_coefficient,
        },
        agnostic_encoder=True,
    )
    return sigmoid_criterion(predictions, labels, weights, num_items)


def rt_detr_criterion(
    predictions: Predictions, labels: Sequence[dict], config: PretrainedConfig, num_items: torch.Tensor | None
) -> tuple[torch.Tensor, Losses]:
    """Varifocal loss: RT-DETR and RT-DETRv2."""
    loss = varifocal_loss(config.focal_loss_alpha, config.focal_loss_gamma)
    weights = _rt_detr_weights(config, loss, {"loss_vfl": config.weight_loss_vfl})
    return sigmoid_criterion(predictions, labels, weights, num_items)


def d_fine_criterion(
    predictions: Predictions, labels: Sequence[dict], config: PretrainedConfig, num_items: torch.Tensor | None
) -> tuple[torch.Tensor, Losses]:
    """Varifocal loss and the losses of distributions: D-FINE."""
    loss = varifocal_loss(config.focal_loss_alpha, config.focal_loss_gamma)
    weights = _with_distributions(_rt_detr_weights(config, loss, {"loss_vfl": config.weight_loss_vfl}), config)
    return sigmoid_criterion(predictions, labels, weights, num_items)


def deimv2_criterion(
    predictions: Predictions, labels: Sequence[dict], config: PretrainedConfig, num_items: torch.Tensor | None
) -> tuple[torch.Tensor, Losses]:
    """Matchability-aware loss: DEIMv2.

    Its gamma is 1.5, and Transformers' config has D-FINE's 2 where none is stated. The smallest models, whose config
    has `use_dense_one_to_one` False, have no losses of distributions; the others have all of D-FINE's.
    """
    loss = matchability_loss(config.mal_alpha, gamma=1.5)
    weights = _rt_detr_weights(config, loss, {"loss_mal": config.weight_loss_mal})
    if config.use_dense_one_to_one:
        weights = _with_distributions(weights, config)
    return sigmoid_criterion(predictions, labels, weights, num_items)


def lw_detr_criterion(
    predictions: Predictions, labels: Sequence[dict], config: PretrainedConfig, num_items: torch.Tensor | None
) -> tuple[torch.Tensor, Losses]:
    """IoU-aware cross entropy over groups of queries: LW-DETR and RF-DETR."""
    weights = SigmoidWeights(
        class_cost=config.class_cost,
        bbox_cost=config.bbox_cost,
        giou_cost=config.giou_cost,
        class_loss=iou_aware_loss(config.focal_alpha),
        loss_weights={
            "loss_ce": config.class_loss_coefficient,
            "loss_bbox": config.bbox_loss_coefficient,
            "loss_giou": config.giou_loss_coefficient,
        },
    )
    return sigmoid_criterion(predictions, labels, weights, num_items)


def _rt_detr_weights(config: PretrainedConfig, class_loss: ClassLoss, class_weight: dict[str, float]) -> SigmoidWeights:
    """Weights of RT-DETR and its heirs."""
    return SigmoidWeights(
        class_cost=config.matcher_class_cost,
        bbox_cost=config.matcher_bbox_cost,
        giou_cost=config.matcher_giou_cost,
        class_loss=class_loss,
        loss_weights={
            **class_weight,
            "loss_bbox": config.weight_loss_bbox,
            "loss_giou": config.weight_loss_giou,
        },
    )


def _with_distributions(weights: SigmoidWeights, config: PretrainedConfig) -> SigmoidWeights:
    of_sides = {"loss_fgl": config.weight_loss_fgl, "loss_ddf": config.weight_loss_ddf}
    return replace(
        weights,
        loss_weights={**weights.loss_weights, **of_sides},
        bins=Bins(config.max_num_bins, config.reg_scale, config.up),
    )
