"""Parts that RT-DETR, RT-DETRv2 and D-FINE share."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import MethodType
from typing import Any

import torch
from torch import nn

from hf_detr_ft.model.families.family import PRIOR, SizeRule, compute_in_fp32, logit, outputs_of
from hf_detr_ft.model.init_weights import reset_attention, reset_linear, reset_modules, zero_linear
from hf_detr_ft.model.predictions import DenoisingPredictions, LayerPredictions, Predictions, at_least_fp32

STRIDES = (8, 16, 32)
CLASS_HEADS = ("model.decoder.class_embed.", "class_embed.", "model.enc_score_head.", "model.denoising_class_embed.")
"""Prefixes of what is made for the classes; `class_embed` is another name of the decoder's in some of them."""
DENOISING = ("model.denoising_class_embed.",)
SQUARES = SizeRule(
    square=True, step=lambda config: max(config.feat_strides), cells=lambda config: config.feat_strides, edge=640
)


def predict(model: Any, pixel_values: torch.Tensor, _: torch.Tensor | None, labels: list[dict]) -> Predictions:
    """Predictions of every decoder layer, of the encoder and, in training, of denoising queries.

    In the original each layer's boxes also have gradients by the boxes of the layer before ("look forward twice" of
    DINO, arXiv:2203.03605); Transformers takes those as constants. The values are the same.
    """
    with ExitStack() as stack:
        offsets = [stack.enter_context(outputs_of(head)) for head in model.model.decoder.bbox_embed]
        outputs = model.model(pixel_values, labels=labels)
    logits, boxes = outputs.intermediate_logits.transpose(0, 1), outputs.intermediate_reference_points.transpose(0, 1)
    twice = [boxes[0]]
    for layer in range(1, len(boxes)):
        twice.append((offsets[layer][0] + logit(boxes[layer - 1])).sigmoid())
    return split_queries(model, outputs, LayerPredictions(logits, torch.stack(twice)), labels)


def split_queries(
    model: Any,
    outputs: Any,
    layers: LayerPredictions,
    labels: Sequence[dict],
    initial: LayerPredictions | None = None,
) -> Predictions:
    """Predictions of a model's queries beside those of its denoising queries, which come first, where there are any.

    Args:
        model: that made them.
        outputs: of Transformers' model without heads.
        layers: of all queries.
        labels: of the images.
        initial: see `Predictions.initial`, of all queries.
    """
    encoder = LayerPredictions(outputs.enc_topk_logits[None], outputs.enc_topk_bboxes[None])
    meta = outputs.denoising_meta_values if model.training else None
    if meta is None:
        return Predictions(layers, encoder=encoder, initial=initial)
    groups, (noised, _) = meta["dn_num_group"], meta["dn_num_split"]
    targets = torch.full((len(labels), noised), -1, device=layers.logits.device)
    for image, positive in enumerate(meta["dn_positive_idx"]):
        objects = len(labels[image]["class_labels"])
        targets[image, positive] = torch.arange(objects, device=targets.device).repeat(groups)
    first, rest = slice(None, noised), slice(noised, None)
    denoising = DenoisingPredictions(_some(layers, first), targets, groups, _some(initial, first))
    return Predictions(_some(layers, rest), encoder=encoder, initial=_some(initial, rest), denoising=denoising)


def _some(layers: Any, queries: slice) -> Any:
    """Predictions for some of the queries."""
    if layers is None:
        return None
    tensors: Any = (layers.logits, layers.boxes_cxcywh_rel, layers.corners, layers.reference_boxes)
    chosen: list[Any] = [None if tensor is None else tensor[:, :, queries] for tensor in tensors]
    return LayerPredictions(*chosen)


def prepare(model: Any) -> None:
    """Lets heads, anchors and boxes be computed in fp32, also where training is in bf16.

    bf16 tells some 256 positions apart along a side, and a box is refined from layer to layer.
    """
    decoder = model.model.decoder
    heads: list[nn.Module] = [model.model.enc_score_head, model.model.enc_bbox_head]
    heads += [*decoder.class_embed, *decoder.bbox_embed]
    heads += [getattr(decoder, name) for name in ("pre_bbox_head", "integral") if hasattr(decoder, name)]
    heads += getattr(decoder, "lqe_layers", [])
    for head in heads:
        compute_in_fp32(head)
    for projection in model.model.decoder_input_proj:
        projection.register_forward_hook(_in_fp32)  # anchors are made in the dtype of these maps
    boxes, scores = model.model.enc_bbox_head, model.model.enc_score_head
    vars(boxes).update(everywhere=boxes.forward, scores=scores, count=model.config.num_queries)
    boxes.forward = MethodType(_propose, boxes)


def _propose(self: Any, memory: torch.Tensor) -> torch.Tensor:
    """Offsets of the encoder's boxes where the decoder takes them, at the best scores; zeros elsewhere.

    Transformers computes them at every position, and reads 300 of 8,400 at 640 pixels.
    """
    with torch.no_grad():
        best = self.scores(memory).amax(-1).topk(self.count, dim=1).indices[..., None]
    offsets = self.everywhere(memory.gather(1, best.expand(-1, -1, memory.shape[-1])))
    return offsets.new_zeros(*memory.shape[:2], 4).scatter(1, best.expand(-1, -1, 4), offsets)


def _in_fp32(*call: Any) -> torch.Tensor:
    return at_least_fp32(call[-1])


def reset_heads(model: Any) -> None:
    """Class heads of decoder and encoder with the prior of the original, and new embeddings of the noised classes.

    Transformers starts them from a probability of 1 / (classes + 1), which is 0.5 for a single class.
    """
    for head in (*model.model.decoder.class_embed, model.model.enc_score_head):
        reset_linear(head, PRIOR)
    if hasattr(model.model, "denoising_class_embed"):
        model.model.denoising_class_embed.reset_parameters()


@torch.no_grad()
def initialise(model: Any) -> None:
    """Gives everything but the backbone the initial weights of the original, in place.

    Transformers draws convolutions, matrices and even the scales of batch norms from N(0, 0.01²).
    """
    reset_modules(model, model.model.backbone)
    for module in model.model.modules():
        attention: Any = module
        if hasattr(module, "sampling_offsets"):
            model._init_weights(module)
        elif hasattr(module, "gate"):
            zero_linear(attention.gate)
        elif hasattr(module, "reg_conf"):
            zero_linear(attention.reg_conf.layers[-1])
    inner, decoder = model.model, model.model.decoder
    for part in (inner.encoder, decoder):
        reset_attention(part)
    projected = [projection[0] for projection in inner.decoder_input_proj if isinstance(projection, nn.Sequential)]
    for layer in (inner.enc_output[0], *decoder.query_pos_head.layers, *projected):
        nn.init.xavier_uniform_(layer.weight)
    if hasattr(inner, "weight_embedding"):
        nn.init.xavier_uniform_(inner.weight_embedding.weight)
    boxes = [inner.enc_bbox_head, *decoder.bbox_embed]
    boxes += [decoder.pre_bbox_head] if hasattr(decoder, "pre_bbox_head") else []
    for head in boxes:
        zero_linear(head.layers[-1])
    reset_heads(model)


def backbone_settings(strides: Sequence[int], channels: Sequence[int], given: Mapping[str, Any]) -> dict[str, Any]:
    """Widths of a new model: that of the backbone's maps, and one for all that follows."""
    width = given.get("d_model", 256)
    hidden = given.get("encoder_hidden_dim", width)
    return {
        "encoder_in_channels": list(channels),
        "feat_strides": list(strides),
        "num_feature_levels": len(strides),
        "encoder_hidden_dim": hidden,
        "decoder_in_channels": [hidden] * len(strides),
    }
