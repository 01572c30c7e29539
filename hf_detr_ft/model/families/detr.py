"""DETR (Carion et al. 2020, arXiv:2005.12872; facebookresearch/detr)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from hf_detr_ft.model.families.family import Family, decoder_states
from hf_detr_ft.model.hungarian_matching import CriterionWeights
from hf_detr_ft.model.init_weights import initialise_like_detr, scale_projection
from hf_detr_ft.model.loss import set_criterion
from hf_detr_ft.model.predictions import LayerPredictions, Predictions


def predict(model: Any, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None, _: list[dict]) -> Predictions:
    """Predictions of every decoder layer, or of the last one where the model has no auxiliary losses.

    `config.auxiliary_loss` stays False. When it is True, Transformers' decoder passes the *normalised* state of each
    layer on to the next, and normalises the last one twice; DETR hands on the state as it is. With the trained norms of
    a checkpoint that is another network, in inference too. So the states are collected here and normalised beside the
    decoder, as DETR does, and the saved model stays the one that was trained.
    """
    outputs = model.model(pixel_values, pixel_mask=pixel_mask, output_hidden_states=model.auxiliary_losses)
    layers = LayerPredictions(*predict_from(model, decoder_states(model, outputs)))
    return Predictions(layers, encoder_last_hidden_state=outputs.encoder_last_hidden_state)


def predict_from(model: Any, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `[..., C+1]` and boxes `[..., 4]` of decoder or encoder states, in fp32.

    bf16 tells some 256 positions apart along a side: balloon's true boxes, rounded to it, come to AP 0.94.
    """
    with torch.autocast(states.device.type, enabled=False):
        states = states.to(model.class_labels_classifier.weight.dtype)
        return model.class_labels_classifier(states), model.bbox_predictor(states).sigmoid()


def criterion(
    predictions: Predictions, labels: Sequence[dict], config: Any, num_items: torch.Tensor | None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """DETR's loss; see `set_criterion`."""
    layers = predictions.layers
    weights = CriterionWeights.from_config(config)
    return set_criterion(layers.logits, layers.boxes_cxcywh_rel, labels, weights, num_items)


def prepare(model: Any) -> None:
    """Lets masks of the padding become what is added to scores before the layers begin."""
    parts = ((model.model.encoder, "attention_mask"), (model.model.decoder, "encoder_attention_mask"))
    for part, name in parts:
        part.register_forward_pre_hook(partial(_add_to_scores, name), with_kwargs=True)


def _add_to_scores(name: str, module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Turns the mask `[B, N]` of feature map positions into what is added to scores, `[B, 1, 1, N]`, before they begin.

    Transformers would make it `[B, 1, N, N]`, which attention turns into scores once a layer, and would first ask the
    device whether anything is padded, so that host and device wait for each other twice a step.
    """
    mask = kwargs.get(name)
    if mask is not None and mask.dim() == 2 and module.config._attn_implementation in ("sdpa", "eager"):
        dtype = next(module.parameters()).dtype
        added = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        added.masked_fill_(~mask.bool(), torch.finfo(dtype).min)
        kwargs = {**kwargs, name: added[:, None, None]}
    return args, kwargs


def reset_heads(model: Any) -> None:
    """The class head as torch draws it, which is DETR's way."""
    model.class_labels_classifier.reset_parameters()


DETR = Family(
    model_type="detr",
    name="DETR",
    architecture="DetrForObjectDetection",
    processor="DetrImageProcessor",
    predict=predict,
    criterion=criterion,
    class_heads=("class_labels_classifier.",),
    reset_heads=reset_heads,
    initialise=initialise_like_detr,
    fit_to_backbone=scale_projection,
    queries=("model.query_position_embeddings.weight",),
    prepare=prepare,
    auxiliary_loss_changes_network=True,
)
