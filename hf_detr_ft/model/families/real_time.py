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
    inner = model.model
    for projection in inner.decoder_input_proj:
        projection.register_forward_hook(_in_fp32)
    inner.generate_anchors = MethodType(_anchors_in_fp32, inner)
    Proposals(inner, model.config.num_queries)


def _in_fp32(projection: nn.Module, _: tuple, output: torch.Tensor) -> torch.Tensor:
    """Maps in fp32 in evaluation, where Transformers takes stored anchors, in the dtype of the maps."""
    return output if projection.training else at_least_fp32(output)


def _anchors_in_fp32(self: Any, *args: Any, dtype: torch.dtype = torch.float32, **others: Any) -> Any:
    return type(self).generate_anchors(self, *args, dtype=torch.promote_types(dtype, torch.float32), **others)


class Proposals:
    """Places of the encoder that become queries: those with the best scores.

    Transformers computes boxes at every place, with gradients of states, scores and boxes, and reads 300 of 8,400 at
    640 pixels. Here boxes are computed at these alone, and elsewhere are zeros. In training only these have gradients,
    too; the others have the least score there is.

    Args:
        inner: Transformers' model without heads, which asks for states, scores and boxes of all places in turn; these
            modules answer otherwise from now on.
        count: of the queries.
    """

    def __init__(self, inner: Any, count: int) -> None:
        self.count = count
        self.modules = (inner.enc_output, inner.enc_score_head, inner.enc_bbox_head)
        self.everywhere = tuple(module.forward for module in self.modules)
        for module, forward in zip(self.modules, (self.states, self.scores, self.boxes), strict=True):
            module.forward = forward
        self._best: torch.Tensor | None = None
        """Places `[B, Q, 1]`, from the states to the boxes of a forward pass with gradients."""
        self._chosen: torch.Tensor | None = None
        """States of these places `[B, Q, D]`."""

    def states(self, memory: torch.Tensor) -> torch.Tensor:
        """States `[B, N, D]`; notes those of the best places."""
        states, scores, _ = self.everywhere
        self._best = self._chosen = None
        if not (self.modules[0].training and torch.is_grad_enabled()):
            return states(memory)
        with torch.no_grad():
            every = states(memory)
            self._best = self._choose(scores(every))
        self._chosen = states(_at(memory, self._best))
        return every

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Logits `[B, N, C]`."""
        if self._best is None or self._chosen is None:
            return self.everywhere[1](states)
        logits = self.everywhere[1](self._chosen)
        least = logits.new_full((*states.shape[:2], logits.shape[-1]), torch.finfo(logits.dtype).min)
        return least.scatter(1, self._best.expand_as(logits), logits)

    def boxes(self, states: torch.Tensor) -> torch.Tensor:
        """Offsets `[B, N, 4]` from the anchors."""
        best, chosen = self._best, self._chosen
        self._best = self._chosen = None
        if best is None or chosen is None:
            with torch.no_grad():
                best = self._choose(self.everywhere[1](states))
            chosen = _at(states, best)
        offsets = self.everywhere[2](chosen)
        return offsets.new_zeros(*states.shape[:2], 4).scatter(1, best.expand(-1, -1, 4), offsets)

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.amax(-1).topk(self.count, dim=1).indices[..., None]


def _at(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return rows.gather(1, places.expand(-1, -1, rows.shape[-1]))


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
