"""Transformers' own losses, called with our predictions."""

from typing import Any

import torch
from transformers.loss.loss_utils import LOSS_MAPPING

from hf_detr_ft.model.predictions import DenoisingPredictions, LayerPredictions, Predictions
from tests.parity.cases import FAMILIES

NAMES = {
    "detr": "ForObjectDetection",
    "table-transformer": "ForObjectDetection",
    "yolos": "ForObjectDetection",
    "conditional_detr": "ConditionalDetrForObjectDetection",
    "dab-detr": "DabDetrForObjectDetection",
    "deformable_detr": "DeformableDetrForObjectDetection",
    "rt_detr": "RTDetrForObjectDetection",
    "rt_detr_v2": "RTDetrV2ForObjectDetection",
    "d_fine": "DFineForObjectDetection",
    "deimv2": "Deimv2ForObjectDetection",
    "lw_detr": "LwDetrForObjectDetection",
    "rf_detr": "RfDetrForObjectDetection",
}


def stock_criterion(
    name: str, predictions: Predictions, labels: list[dict[str, torch.Tensor]], config: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and parts of Transformers, with what its model of the family hands to it; all layers count."""
    config.auxiliary_loss = True
    layers, encoder = predictions.layers, predictions.encoder
    loss = LOSS_MAPPING[NAMES[name]]
    if FAMILIES[name].denoises:
        loss, parts, _ = loss(
            **rt_detr_arguments(predictions), labels=labels, device=layers.logits.device, config=config
        )
        return loss, parts
    arguments = [layers.logits[-1], labels, layers.logits.device, layers.boxes_cxcywh_rel[-1], config]
    arguments += [layers.logits, layers.boxes_cxcywh_rel]
    if encoder is not None and name != "deformable_detr":
        arguments += [encoder.logits[0], encoder.boxes_cxcywh_rel[0]]
    loss, parts, _ = loss(*arguments)
    return loss, parts


def rt_detr_arguments(predictions: Predictions) -> dict[str, Any]:
    """What RT-DETR's and D-FINE's models hand to their losses: denoising queries first, layers second."""
    assert predictions.encoder is not None
    queries, denoising = with_initial(predictions), predictions.denoising
    meta = None
    if denoising is not None:
        noised = with_initial(denoising)
        queries = {name: torch.cat([noised[name], value], dim=2) for name, value in queries.items()}
        positions = [(row >= 0).nonzero()[:, 0] for row in denoising.targets]
        split = [denoising.targets.shape[1], predictions.layers.logits.shape[2]]
        meta = {"dn_positive_idx": positions, "dn_num_group": denoising.groups, "dn_num_split": split}
    by_image = {name: value.transpose(0, 1) for name, value in queries.items()}
    return {
        "logits": by_image["outputs_class"][:, -1],
        "pred_boxes": by_image["outputs_coord"][:, -1],
        **by_image,
        "enc_topk_logits": predictions.encoder.logits[0],
        "enc_topk_bboxes": predictions.encoder.boxes_cxcywh_rel[0],
        "denoising_meta_values": meta,
    }


def with_initial(predictions: Predictions | DenoisingPredictions) -> dict[str, torch.Tensor]:
    """Tensors of the decoder's layers, to whose logits and boxes D-FINE's initial ones come first."""
    layers, initial = predictions.layers, predictions.initial
    both: list[LayerPredictions] = [layers] if initial is None else [initial, layers]
    tensors = {
        "outputs_class": torch.cat([some.logits for some in both]),
        "outputs_coord": torch.cat([some.boxes_cxcywh_rel for some in both]),
    }
    if layers.corners is not None and layers.reference_boxes is not None:
        tensors |= {"predicted_corners": layers.corners, "initial_reference_points": layers.reference_boxes}
    return tensors
