"""A decoder that starts as a reader of a trained encoder."""

import math

import torch
from torch import nn
from transformers import PreTrainedModel

SHARPNESS = 1.8
"""Scale of the first cross-attention: a query looks at what is within an eighth of the image around its point."""
DECODER = ("model.decoder.", "model.query_position_embeddings.")
"""Prefixes of the tensors that are made new, whatever their shapes were."""


@torch.no_grad()
def init_queries_from_encoder(model: PreTrainedModel) -> None:
    """Starts the decoder anew, in place, so that each query first says what the encoder says around a point of its own.

    It goes with an encoder that `encoder_loss` has taught. Feature map positions go through the same heads as queries
    there, so a query that passes a position on is a prediction as good as the position's own. What is left to learn is
    to choose among positions and not to say the same thing twice. Three things make it so: the query's position
    embedding is that of its point (Sobol's sequence spreads the points evenly); cross-attention compares positions
    alone, by their highest frequencies; and its values go through unchanged, with the other parts of a layer near zero
    beside them.
    """
    config, decoder = model.config, model.model.decoder
    points = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(config.num_queries)
    model.model.query_position_embeddings.weight.copy_(_embed_points(points, config.d_model))
    per_head = config.d_model // config.decoder_attention_heads
    rows = torch.arange(config.d_model)
    inside = rows % per_head
    # Of each head, half of the channels look at y, half at x; embeddings begin with the highest frequencies.
    columns = torch.where(inside < per_head // 2, inside, config.d_model // 2 + inside - per_head // 2)
    compare = torch.zeros(config.d_model, config.d_model)
    compare[rows, columns] = SHARPNESS
    for layer in decoder.layers:
        for module in layer.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        layer.self_attn.o_proj.weight.mul_(0.1)
        layer.mlp.fc2.weight.mul_(0.1)
        attention = layer.encoder_attn
        for projection, start in (
            (attention.q_proj, compare),
            (attention.k_proj, compare),
            (attention.v_proj, torch.eye(config.d_model)),
            (attention.o_proj, torch.eye(config.d_model)),
        ):
            projection.weight.copy_(start + 0.02 * torch.randn_like(start))
    decoder.layernorm.reset_parameters()


def _embed_points(points: torch.Tensor, channels: int) -> torch.Tensor:
    """DETR's sine position embeddings `[N, channels]` of points `[N, 2]`, x and y in [0, 1]."""
    half = channels // 2
    periods = 10_000 ** (torch.arange(0, half, 2) / half)
    angles = 2 * math.pi * points.flip(1)[..., None] / periods  # y comes first
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
