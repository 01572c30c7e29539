"""Conditional DETR (Meng et al. 2021, arXiv:2108.06152; Atten4Vis/ConditionalDETR)."""

from typing import Any

import torch

from hf_detr_ft.model.criteria.family_criteria import deformable_criterion
from hf_detr_ft.model.families.family import PRIOR, Family, decoder_states, logit
from hf_detr_ft.model.init_weights import (
    reset_linear,
    reset_modules,
    reset_transformer,
    scale_projection,
    zero_linear,
)
from hf_detr_ft.model.predictions import LayerPredictions, Predictions


def predict(model: Any, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None, _: list[dict]) -> Predictions:
    """Predictions of every decoder layer, or of the last one where the model has no auxiliary losses.

    As in DETR the states of earlier layers are normalised beside the decoder.
    """
    outputs = model.model(pixel_values, pixel_mask=pixel_mask, output_hidden_states=model.auxiliary_losses)
    states = decoder_states(model, outputs)
    with torch.autocast(states.device.type, enabled=False):
        states = states.to(model.class_labels_classifier.weight.dtype)
        logits, offsets = model.class_labels_classifier(states), model.bbox_predictor(states)
        centres = logit(outputs.reference_points.transpose(0, 1).to(states.dtype))
        boxes = torch.cat([offsets[..., :2] + centres, offsets[..., 2:]], dim=-1).sigmoid()
    return Predictions(LayerPredictions(logits, boxes), encoder_last_hidden_state=outputs.encoder_last_hidden_state)


def reset_heads(model: Any) -> None:
    """The class head with the prior of the original; Transformers starts it from a probability of 0.5."""
    reset_linear(model.class_labels_classifier, PRIOR)


@torch.no_grad()
def initialise(model: Any) -> None:
    """Gives everything but the backbone the initial weights of the original, in place."""
    reset_modules(model, model.model.backbone)
    reset_transformer(model)
    zero_linear(model.bbox_predictor.layers[-1])
    reset_heads(model)


CONDITIONAL_DETR = Family(
    model_type="conditional_detr",
    name="Conditional DETR",
    architecture="ConditionalDetrForObjectDetection",
    processor="ConditionalDetrImageProcessor",
    predict=predict,
    criterion=deformable_criterion,
    class_heads=("class_labels_classifier.",),
    reset_heads=reset_heads,
    initialise=initialise,
    fit_to_backbone=scale_projection,
    scores="sigmoid",
    top=100,
    queries=("model.query_position_embeddings.weight",),
    auxiliary_loss_changes_network=True,
)
"""Rates, weight decay and clipping of its training are those of DETR."""
