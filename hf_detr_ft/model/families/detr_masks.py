"""DETR with a mask head (Carion et al. 2020, section 4.4; facebookresearch/detr `models/segmentation.py`).

The head is trained on a DETR that finds boxes already and stays as it is (`--masks --frozen_weights` there).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch

from hf_detr_ft.model.criteria.mask_losses import MaskWeights, mask_losses
from hf_detr_ft.model.families import detr
from hf_detr_ft.model.families.family import Family, outputs_of
from hf_detr_ft.model.hungarian_matching import CriterionWeights
from hf_detr_ft.model.loss import match_and_weigh
from hf_detr_ft.model.mask_head import mask_logits
from hf_detr_ft.model.predictions import MaskPredictions, Predictions

GROUPS = 8
"""Groups of channels that the mask head's first norm has."""
MAPS = 4
"""Feature maps that the mask head needs, the last of which the transformer reads."""


def make_ready_for_masks(config: Any) -> str | None:
    """Lets a backbone hand out three finer maps before the one that the transformer reads, which stays the last.

    Args:
        config: a DETR's, changed in place; of a backbone that hands out four maps already it stays as it is.

    Returns:
        What is in the way, as the end of a sentence; None where nothing is.
    """
    width, heads = config.d_model, config.encoder_attention_heads
    if (width + heads) % GROUPS:
        return (
            f"expected d_model and encoder_attention_heads whose sum is a multiple of {GROUPS}, for the mask head, "
            f"found {width} and {heads}. Take another DETR: its shapes are fixed once it is trained."
        )
    backbone = config.backbone_config
    indices = list(backbone.out_indices)
    if len(indices) == MAPS:
        return None
    first = indices[-1] - MAPS + 1
    if first < 0:
        return (
            f"expected a backbone with {MAPS - 1} feature maps finer than the one that the transformer reads, for the "
            f"mask head, found {indices[-1]}. Take a DETR whose model.backbone_stride is 16 or 32."
        )
    backbone.out_indices = list(range(first, indices[-1] + 1))
    return None


def predict(model: Any, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None, labels: list[dict]) -> Predictions:
    """Predictions of DETR, and a function for the masks of some queries.

    Of a training's 100 queries an image the loss asks for the few that are matched with objects.
    """
    inner = model.detr
    inner.auxiliary_losses = model.auxiliary_losses
    parts = (inner.model.backbone, inner.model.input_projection, inner.model.decoder)
    with ExitStack() as stack:
        caught: list[Any] = [stack.enter_context(outputs_of(part)) for part in parts]
        predictions = detr.predict(inner, pixel_values, pixel_mask, labels)
    device = pixel_values.device.type
    autocast = torch.is_autocast_enabled(device)
    ((*finer, (_, is_image)),), (features,), (decoded,) = caught
    states = decoded.last_hidden_state
    memory = predictions.encoder_last_hidden_state
    assert memory is not None
    memory = memory.transpose(1, 2).unflatten(2, features.shape[-2:])

    def logits(images: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, enabled=autocast):
            ignored = torch.zeros(is_image.shape, dtype=memory.dtype, device=memory.device)
            ignored.masked_fill_(~is_image, torch.finfo(memory.dtype).min)
            attention = model.bbox_attention(states, memory, attention_mask=ignored[:, None, None])
            coarse_to_fine = [each for each, _ in reversed(finer[: MAPS - 1])]
            return mask_logits(model.mask_head, features, attention[images, queries], coarse_to_fine, images)

    height, width = pixel_values.shape[-2:]
    return replace(predictions, masks=MaskPredictions(logits, (height, width)))


def criterion(
    predictions: Predictions, labels: Sequence[dict], config: Any, num_items: torch.Tensor | None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """DETR's loss with the focal and the dice loss of the last layer's masks."""
    layers, masks, weights = predictions.layers, predictions.masks, MaskWeights.from_config(config)
    assert masks is not None
    loss, parts, matched, num_boxes = match_and_weigh(
        layers.logits, layers.boxes_cxcywh_rel, labels, CriterionWeights.from_config(config), num_items
    )
    of_masks = mask_losses(masks, matched[-1], labels, num_boxes)
    loss = loss + weights.mask_loss * of_masks["loss_mask"] + weights.dice_loss * of_masks["loss_dice"]
    return loss, {**parts, **{name: value.detach() for name, value in of_masks.items()}}


def prepare(model: Any) -> None:
    """See `detr.prepare`."""
    detr.prepare(model.detr)


def reset_heads(model: Any) -> None:
    """See `detr.reset_heads`."""
    detr.reset_heads(model.detr)


def require_boxes(model: Any) -> None:
    """A mask head has no initial weights without a DETR."""
    raise AssertionError("a mask head is trained on a DETR that finds boxes")


DETR_MASKS: Family = replace(
    detr.DETR,
    name="DETR with masks",
    architecture="DetrForSegmentation",
    predict=predict,
    criterion=criterion,
    class_heads=("detr.class_labels_classifier.",),
    reset_heads=reset_heads,
    initialise=require_boxes,
    prepare=prepare,
    queries=tuple(f"detr.{name}" for name in detr.DETR.queries),
    unused_without_boxes=("mask_head.", "bbox_attention."),
    fixed_parameters=lambda config: ("detr.",),
    backbone_prefix="detr.model.backbone.",
    values=lambda settings: {"training.metric_for_best_model": "mask_map"},
    masks=True,
)
"""A DETR of boxes, whose parts are `detr.` here, with a mask head, which alone is trained."""
