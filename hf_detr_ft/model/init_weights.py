"""Initial weights of a DETR that starts without a checkpoint."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import DetrForObjectDetection

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
    for parameter in (*model.model.encoder.parameters(), *model.model.decoder.parameters()):
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for module in (*model.model.encoder.modules(), *model.model.decoder.modules()):
        attention: Any = module
        if hasattr(module, "k_proj"):
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                bound = math.sqrt(6 / (4 * projection.in_features))
                nn.init.uniform_(projection.weight, -bound, bound)
    model.model.input_projection.reset_parameters()
    for layer in (model.class_labels_classifier, *model.bbox_predictor.layers):
        layer.reset_parameters()


@torch.no_grad()
def scale_projection(model: DetrForObjectDetection) -> None:
    """Shrinks the projection of the backbone's features, in place, until these have the size of what is added to them.

    Position embeddings have a deviation of 0.7. The features of a ResNet-50 come out of the projection smaller than
    that, those of tf_efficientnet_lite0 four times as large, and attention would at first not see where anything is.
    """
    side = 8 * PROBE_CELL
    noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = F.interpolate(noise, (side, side), mode="bilinear")
    training = model.training
    model.eval()
    backbone: Any = getattr(model.model.backbone, "conv_encoder", model.model.backbone)
    projected = model.model.input_projection(backbone.model(images)[-1])
    model.train(training)
    model.model.input_projection.weight.div_(max(1.0, float(projected.std())))
