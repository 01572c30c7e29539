"""D-FINE (Peng et al. 2024, arXiv:2410.13842; Peterande/D-FINE)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from hf_detr_ft.model.criteria.family_criteria import d_fine_criterion
from hf_detr_ft.model.families.real_time import split_queries
from hf_detr_ft.model.families.rt_detr import RT_DETR
from hf_detr_ft.model.predictions import LayerPredictions, Predictions


def predict(model: Any, pixel_values: torch.Tensor, _: torch.Tensor | None, labels: list[dict]) -> Predictions:
    """Predictions of every decoder layer with its distributions, of the first one's plain boxes, and of the encoder.

    In training Transformers' model gives logits and boxes of one layer more than distributions, the plain boxes being
    the first of them; its loss then takes each layer's boxes with the distributions of the layer behind it.
    """
    outputs = model.model(pixel_values, labels=labels)
    logits, boxes, corners, reference = (
        tensor.transpose(0, 1)
        for tensor in (
            outputs.intermediate_logits,
            outputs.intermediate_reference_points,
            outputs.intermediate_predicted_corners,
            outputs.initial_reference_points,
        )
    )
    extra = len(logits) - len(corners)
    layers = LayerPredictions(logits[extra:], boxes[extra:], corners, reference)
    initial = LayerPredictions(logits[:1], boxes[:1]) if extra else None
    return split_queries(model, outputs, layers, labels, initial)


RATES = {
    (512, 1024): (8e-4, 4e-4, 1e-4),
    (256, 512, 1024): (2e-4, 1e-4, 1e-4),
    (384, 768, 1536): (2e-4, 2e-5, 1e-4),
    (512, 1024, 2048): (2.5e-4, 1.25e-5, 1.25e-4),
}
"""Learning rates of all but the backbone and of the backbone, and weight decay, of N, S, M and L by the widths of the
backbone's maps (configs/dfine)."""
EXTRA_LARGE = (2.5e-4, 2.5e-6, 1.25e-4)
"""Those of X, whose encoder is 384 wide on the maps of L."""


def values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rates and weight decay by the model's size, those of S where no size is like it; average of the weights."""
    widths = tuple(settings.get("encoder_in_channels") or ())
    found = RATES.get(widths, RATES[256, 512, 1024])
    if found == RATES[512, 1024, 2048] and settings.get("encoder_hidden_dim") == 384:
        found = EXTRA_LARGE
    names = ("learning_rate", "backbone_learning_rate", "weight_decay")
    rates = {f"training.{name}": value for name, value in zip(names, found, strict=True)}
    return {**rates, "training.ema_decay": 0.9999}


def frozen_stages(config: Any) -> int:
    """One stage, the stem, in L and X and on timm's backbones; all are trained in N, S and M."""
    own = config.backbone_config.model_type == "hgnet_v2"
    return 0 if own and tuple(config.encoder_in_channels) != (512, 1024, 2048) else 1


D_FINE = replace(
    RT_DETR,
    model_type="d_fine",
    name="D-FINE",
    architecture="DFineForObjectDetection",
    predict=predict,
    criterion=d_fine_criterion,
    fixed_parameters=lambda config: ("model.decoder.up", "model.decoder.reg_scale"),
    frozen_stages=frozen_stages,
    values=values,
)
