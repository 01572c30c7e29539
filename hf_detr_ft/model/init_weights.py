"""Initial weights of a model, or of its class heads, that start without a checkpoint."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import DetrForObjectDetection

from hf_detr_ft.model.families.family import backbone_of, map_encoder_of

PROBE_CELL = 28
"""Pixels between the random colours of the images that measure a backbone's features."""


@torch.no_grad()
def initialise_like_detr(model: DetrForObjectDetection) -> None:
    """Gives everything but the backbone the initial weights of facebookresearch/detr, in place.

    Transformers draws every matrix from N(0, 0.02²), the queries included. DETR draws the queries from N(0, 1)
    (`nn.Embedding`), the transformer by Glorot (`Transformer._reset_parameters`, with query, key and value as one
    matrix of 3d rows) and the heads as torch does. With queries that small all of them begin as the same box, and
    training from nothing takes many times as long.
    """
    nn.init.normal_(model.model.query_position_embeddings.weight)
    reset_transformer(model)
    model.model.input_projection.reset_parameters()
    for layer in (model.class_labels_classifier, *model.bbox_predictor.layers):
        layer.reset_parameters()


@torch.no_grad()
def scale_projection(model: DetrForObjectDetection) -> None:
    """Shrinks the projection of the backbone's features, in place, until these have the size of what is added to them.

    Position embeddings have a deviation of 0.7. The features of a ResNet-50 come out of the projection smaller than
    that, those of tf_efficientnet_lite0 four times as large, and attention would at first not see where anything is.
    """
    training = model.training
    model.eval()
    projected = model.model.input_projection(backbone_of(model)(_probe_images())[-1])
    model.train(training)
    model.model.input_projection.weight.div_(max(1.0, float(projected.std())))


def _probe_images() -> torch.Tensor:
    """Images `[4, 3, 224, 224]` of smooth random colours."""
    side = 8 * PROBE_CELL
    noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, (side, side), mode="bilinear")


@torch.no_grad()
def balance_mask_head(model: Any) -> None:
    """Lets all that a new mask head adds up have one size at first, in place.

    A query's attention, the only part that tells it from other queries, sums to 1 over all heads and places: beside
    features of size 1 it begins a thousand times too small to be seen, and learns for as long to be. So its weights in
    the first convolution are multiplied by the number of heads and places. Features are shrunk to a deviation of 1
    where theirs is larger: those of tf_efficientnet_lite0 have one of 10.
    """
    training = model.training
    model.eval()
    images = _probe_images()
    *finer, coarse = (each for each, _ in map_encoder_of(model)(images, torch.ones_like(images[:, 0])))
    model.train(training)
    head, width = model.mask_head, model.config.d_model
    projected = model.detr.model.input_projection(coarse)
    for stage, each in zip(head.fpn_stages, reversed(finer), strict=True):
        stage.fpn_adapter.weight.div_(max(1.0, float(stage.fpn_adapter(each).std())))
    head.conv1.conv.weight[:, :width].div_(max(1.0, float(projected.std())))
    attention = head.conv1.conv.weight[:, width:]
    attention.mul_(attention.shape[1] * coarse.shape[-2] * coarse.shape[-1])


@torch.no_grad()
def reset_transformer(model: Any) -> None:
    """Draws matrices of encoder and decoder by Glorot, and those of attention as `reset_attention` does, in place."""
    parts = (model.model.encoder, model.model.decoder)
    for parameter in (*parts[0].parameters(), *parts[1].parameters()):
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for part in parts:
        reset_attention(part)


@torch.no_grad()
def reset_linear(layer: nn.Linear, prior: float | None = None) -> None:
    """Initial weights of torch, with a bias that gives the prior as the sigmoid's result."""
    layer.reset_parameters()
    if prior is not None:
        nn.init.constant_(layer.bias, -torch.log(torch.tensor((1 - prior) / prior)).item())


def reset_modules(model: nn.Module, backbone: nn.Module) -> list[nn.Module]:
    """Gives layers beside the backbone the initial weights of torch, in place, and returns them."""
    inside = set(backbone.modules())
    kinds = (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.Embedding)
    found: list[Any] = [module for module in model.modules() if isinstance(module, kinds) and module not in inside]
    for module in found:
        module.reset_parameters()
    return found


@torch.no_grad()
def reset_attention(part: nn.Module) -> None:
    """Gives attention layers inside a part the initial weights of `torch.nn.MultiheadAttention`, in place.

    Its query, key and value are one matrix of 3d rows, and its biases begin at zero.
    """
    for module in part.modules():
        attention: Any = module
        if hasattr(module, "k_proj"):
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                bound = (6 / (4 * projection.in_features)) ** 0.5
                nn.init.uniform_(projection.weight, -bound, bound)
                nn.init.zeros_(projection.bias)
        for name in ("o_proj", "out_proj", "output_proj"):
            if hasattr(module, name):
                nn.init.zeros_(getattr(module, name).bias)


def zero_linear(layer: nn.Linear) -> None:
    """Lets a layer begin with nothing but zeros."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
