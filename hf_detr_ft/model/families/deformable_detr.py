"""Deformable DETR (Zhu et al. 2020, arXiv:2010.04159; fundamentalvision/Deformable-DETR), also in two stages."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hf_detr_ft.model.criteria.family_criteria import deformable_criterion
from hf_detr_ft.model.families.family import PRIOR, Family, compute_in_fp32, logit
from hf_detr_ft.model.init_weights import reset_attention, reset_linear, reset_modules, zero_linear
from hf_detr_ft.model.predictions import LayerPredictions, Predictions, at_least_fp32


def predict(model: Any, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None, _: list[dict]) -> Predictions:
    """Predictions of every decoder layer and, in two stages, of every place of the encoder.

    Transformers computes the encoder's, and has no loss of them.
    """
    outputs = model.model(pixel_values, pixel_mask=pixel_mask)
    states = outputs.intermediate_hidden_states.transpose(0, 1)
    references = [outputs.init_reference_points, *outputs.intermediate_reference_points.transpose(0, 1)[:-1]]
    logits, boxes = [], []
    for layer in range(len(states)) if model.auxiliary_losses else [len(states) - 1]:
        logits.append(model.class_embed[layer](states[layer]))
        offset, reference = model.bbox_embed[layer](states[layer]), logit(references[layer])
        known = reference.shape[-1]  # 2: a point, 4: a box
        boxes.append(torch.cat([offset[..., :known] + reference, offset[..., known:]], dim=-1).sigmoid())
    layers, encoder = LayerPredictions(torch.stack(logits), torch.stack(boxes)), None
    if outputs.enc_outputs_class is not None:
        encoder = LayerPredictions(outputs.enc_outputs_class[None], outputs.enc_outputs_coord_logits.sigmoid()[None])
    return Predictions(layers, encoder=encoder)


def prepare(model: Any) -> None:
    """Lets heads compute in fp32, also where training is in bf16."""
    decoder = model.model.decoder
    for heads in (model.class_embed, model.bbox_embed, decoder.class_embed, decoder.bbox_embed):
        for head in heads if heads is not None else ():
            compute_in_fp32(head)
    model.model.encoder.register_forward_hook(_states_in_fp32)  # proposals are made in their dtype


def _states_in_fp32(*call: Any) -> Any:
    output = call[-1]
    output.last_hidden_state = at_least_fp32(output.last_hidden_state)
    return output


def reset_heads(model: Any) -> None:
    """Class heads of all layers, in two stages of the encoder's places, too, with the prior of the original.

    Transformers starts them from a probability of 0.5. With box refinement each layer has a head of its own, where
    Transformers gives new ones to all layers together.
    """
    seen: set[int] = set()
    for head in model.class_embed:
        if model.config.with_box_refine and id(head.weight) in seen:
            head.weight, head.bias = (nn.Parameter(torch.empty_like(part)) for part in (head.weight, head.bias))
        seen.add(id(head.weight))
        reset_linear(head, PRIOR)


@torch.no_grad()
def initialise(model: Any) -> None:
    """Gives everything but the backbone the initial weights of the original, in place."""
    inner = model.model
    for module in reset_modules(model, inner.backbone):
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    for module in inner.modules():
        if hasattr(module, "sampling_offsets"):
            model._init_weights(module)
    reset_attention(inner.decoder)
    for projection in inner.input_proj:
        nn.init.xavier_uniform_(projection[0].weight)
        nn.init.zeros_(projection[0].bias)
    nn.init.normal_(inner.level_embed)
    if not model.config.two_stage:
        nn.init.xavier_uniform_(inner.reference_points.weight)
        nn.init.zeros_(inner.reference_points.bias)
    for head in model.bbox_embed:
        for linear in head.layers[:-1]:
            linear.reset_parameters()
        zero_linear(head.layers[-1])
    if not model.config.two_stage:
        nn.init.constant_(model.bbox_embed[0].layers[-1].bias[2:], -2.0)  # boxes begin small
    reset_heads(model)


def backbone_settings(strides: Sequence[int], channels: Sequence[int], given: Mapping[str, Any]) -> dict[str, Any]:
    """Number of maps that the original reads: those of the backbone and one that is half as large."""
    return {"num_feature_levels": len(strides) + 1}


DEFORMABLE_DETR = Family(
    model_type="deformable_detr",
    name="Deformable DETR",
    architecture="DeformableDetrForObjectDetection",
    processor="DeformableDetrImageProcessor",
    predict=predict,
    criterion=deformable_criterion,
    class_heads=("class_embed.", "model.decoder.class_embed."),
    reset_heads=reset_heads,
    initialise=initialise,
    backbone_settings=backbone_settings,
    scores="sigmoid",
    top=100,
    queries=("model.query_position_embeddings.weight",),
    prepare=prepare,
    strides=(8, 16, 32),
    rate_factors=lambda config: {"reference_points|sampling_offsets": 0.1},
    values=lambda settings: {"training.learning_rate": 2e-4, "training.backbone_learning_rate": 2e-5},
)
