"""DAB-DETR (Liu et al. 2022, arXiv:2201.12329; IDEA-Research/DAB-DETR)."""

from typing import Any

import torch

from hf_detr_ft.model.criteria.family_criteria import deformable_criterion
from hf_detr_ft.model.families.family import PRIOR, Family, compute_in_fp32, logit
from hf_detr_ft.model.init_weights import (
    reset_linear,
    reset_modules,
    reset_transformer,
    scale_projection,
    zero_linear,
)
from hf_detr_ft.model.predictions import LayerPredictions, Predictions


def predict(model: Any, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None, _: list[dict]) -> Predictions:
    """Predictions of every decoder layer, each of which refines the boxes of the one before."""
    outputs = model.model(pixel_values, pixel_mask=pixel_mask, return_dict=True)
    states, boxes = outputs.intermediate_hidden_states, outputs.reference_points
    if not model.auxiliary_losses:
        states, boxes = states[-1:], boxes[-1:]
    refined = (model.bbox_predictor(states) + logit(boxes)).sigmoid()
    return Predictions(LayerPredictions(model.class_embed(states), refined))


def prepare(model: Any) -> None:
    """Lets heads compute in fp32, also where training is in bf16."""
    for head in (model.class_embed, model.bbox_predictor, model.model.decoder.bbox_embed):
        compute_in_fp32(head)


def reset_heads(model: Any) -> None:
    """The class head, of all layers together, with the prior of the original."""
    reset_linear(model.class_embed, PRIOR)


@torch.no_grad()
def initialise(model: Any) -> None:
    """Gives everything but the backbone the initial weights of the original, in place."""
    inner = model.model
    reset_modules(model, inner.backbone)
    reset_transformer(model)
    if model.config.random_refpoints_xy:
        centres = inner.query_refpoint_embeddings.weight[:, :2]
        centres.copy_(logit(torch.rand_like(centres)))
    for layer in model.bbox_predictor.layers[:-1]:
        layer.reset_parameters()  # in the original the decoder gets this head once its own weights are drawn
    zero_linear(model.bbox_predictor.layers[-1])
    reset_heads(model)


DAB_DETR = Family(
    model_type="dab-detr",
    name="DAB-DETR",
    architecture="DabDetrForObjectDetection",
    processor="ConditionalDetrImageProcessor",
    predict=predict,
    criterion=deformable_criterion,
    class_heads=("class_embed.",),
    reset_heads=reset_heads,
    initialise=initialise,
    fit_to_backbone=scale_projection,
    scores="sigmoid",
    top=100,
    queries=("model.query_refpoint_embeddings.weight",),
    prepare=prepare,
)
"""Rates, weight decay and clipping of its training are those of DETR."""
