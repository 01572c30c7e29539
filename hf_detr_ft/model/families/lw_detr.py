"""LW-DETR (Chen et al. 2024, arXiv:2406.03459; Atten4Vis/LW-DETR)."""

from collections.abc import Mapping
from typing import Any

import torch

from hf_detr_ft.model.criteria.family_criteria import lw_detr_criterion
from hf_detr_ft.model.families.family import PRIOR, Family, SizeRule, compute_in_fp32, maps_in_fp32, unchanged
from hf_detr_ft.model.init_weights import reset_linear
from hf_detr_ft.model.predictions import LayerPredictions, Predictions


def predict(model: Any, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None, _: list[dict]) -> Predictions:
    """Predictions of every decoder layer and of the encoder, in training for all groups of queries."""
    outputs = model.model(pixel_values, pixel_mask=pixel_mask)
    states = outputs.intermediate_hidden_states
    states = states if model.auxiliary_losses else states[-1:]
    boxes = refine(outputs.intermediate_reference_points[-1], model.bbox_embed(states))
    parts = outputs.enc_outputs_class.split(model.config.num_queries, dim=1)
    logits = [head(part) for head, part in zip(model.model.enc_out_class_embed, parts, strict=False)]
    return Predictions(
        LayerPredictions(model.class_embed(states), boxes),
        encoder=LayerPredictions(torch.cat(logits, dim=1)[None], outputs.enc_outputs_coord_logits[None]),
        groups=len(parts),
    )


def refine(boxes_cxcywh_rel: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Boxes `[..., 4]` moved by offsets in units of their sizes, and scaled by the exponential of the others."""
    centre, size = boxes_cxcywh_rel[..., :2], boxes_cxcywh_rel[..., 2:]
    return torch.cat([offsets[..., :2] * size + centre, offsets[..., 2:].exp() * size], dim=-1)


def prepare(model: Any) -> None:
    """Lets heads and boxes be computed in fp32, also where training is in bf16."""
    inner = model.model
    for head in (model.class_embed, model.bbox_embed, *inner.enc_out_class_embed, *inner.enc_out_bbox_embed):
        compute_in_fp32(head)
    # Proposals are made in the dtype of these maps.
    inner.backbone.register_forward_hook(lambda *call: maps_in_fp32(call[-1]))


def reset_heads(model: Any) -> None:
    """Class heads of the decoder and of every group of the encoder, with the prior of the original."""
    for head in (model.class_embed, *model.model.enc_out_class_embed):
        reset_linear(head, PRIOR)


def size_step(config: Any) -> int:
    """Pixels of a patch times windows a side."""
    backbone = config.backbone_config
    return int(backbone.patch_size * round(backbone.num_windows**0.5))


def cells(config: Any) -> list[float]:
    """Pixels of a patch, by which each map of the projector is larger than the backbone's."""
    return [config.backbone_config.patch_size / scale for scale in config.projector_scale_factors]


def layers_behind_the_maps(config: Any) -> tuple[str, ...]:
    """Prefixes of the names of the backbone's layers that no feature map comes from."""
    backbone = config.backbone_config
    last = backbone.stage_names.index(backbone.out_features[-1])
    return tuple(f"model.backbone.backbone.encoder.layer.{i}." for i in range(last, backbone.num_hidden_layers))


def decays_of(hidden_size: int, scales: int) -> tuple[float, float]:
    """Factors by which rates sink from layer to layer of the backbone, and from heads to decoder to backbone.

    By the width of the vision transformer and the number of scales of its projector, which tell tiny and small, medium,
    large and xlarge apart (scripts/lwdetr_*_coco_train.sh).
    """
    if hidden_size < 384:
        return 0.8, 0.7
    if hidden_size < 768:
        return 0.7, 0.5 if scales > 1 else 0.7
    return 0.75, 0.5


def layer_factors(layers: int, decay: float) -> dict[str, float]:
    """Factors on the backbone's rate, the less the nearer its layers are to the image."""
    prefix = r"^model\.backbone\.backbone\."
    of_layers = {rf"{prefix}encoder\.layer\.{i}\.": decay ** (layers - i) for i in range(layers)}
    return {rf"{prefix}embeddings\.": decay ** (layers + 1), **of_layers}


def rate_factors(config: Any) -> dict[str, float]:
    """Factors on the rates of the backbone's layers and of the decoder."""
    backbone = config.backbone_config
    by_layer, by_part = decays_of(backbone.hidden_size, len(config.projector_scale_factors))
    return {**layer_factors(backbone.num_hidden_layers, by_layer), r"^model\.decoder\.": by_part}


def values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Rate of the backbone, which has sunk twice, weight decay, and average of the weights."""
    width = (settings.get("backbone_config") or {}).get("hidden_size", 192)
    _, by_part = decays_of(width, len(settings.get("projector_scale_factors") or (1,)))
    own = {"training.backbone_learning_rate": round(1.5e-4 * by_part**2, 9), "training.ema_decay": 0.9997}
    return {**own, "training.weight_decay": 1e-3} if width >= 768 else own


LW_DETR = Family(
    model_type="lw_detr",
    name="LW-DETR",
    architecture="LwDetrForObjectDetection",
    processor="DeformableDetrImageProcessor",
    predict=predict,
    criterion=lw_detr_criterion,
    class_heads=("class_embed.", "model.enc_out_class_embed."),
    reset_heads=reset_heads,
    initialise=unchanged,
    scores="sigmoid",
    top=100,
    queries=("model.reference_point_embed.weight", "model.query_feat.weight"),
    proposes_places=True,
    prepare=prepare,
    timm_backbone=False,
    fixed_parameters=layers_behind_the_maps,
    backbone_prefix="model.backbone.backbone.",
    size=SizeRule(square=True, step=size_step, cells=cells, edge=640),
    strides=(16, 16),
    frozen_stages=lambda config: 0,
    rate_factors=rate_factors,
    undecayed=("model.backbone.backbone.embeddings.position_embeddings",),
    values=values,
)
"""The rate beside its backbone's, weight decay and clipping are those of DETR; its vision transformer is its own."""
