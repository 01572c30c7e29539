"""D-FINE (Peng et al. 2024, arXiv:2410.13842; Peterande/D-FINE)."""

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


D_FINE = replace(
    RT_DETR,
    model_type="d_fine",
    name="D-FINE",
    architecture="DFineForObjectDetection",
    predict=predict,
    criterion=d_fine_criterion,
    fixed_parameters=lambda config: ("model.decoder.up", "model.decoder.reg_scale"),
    values={
        "training.learning_rate": 2e-4,
        "training.backbone_learning_rate": 1e-4,
    },
)
"""Rates are those of the small model."""
