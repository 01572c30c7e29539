"""Attention weights of a DETR, computed for the rows that are asked for.

Transformers gives attention weights in "eager" mode only, and then every row of every layer: for the 50 x 84 places
of a large image at stride 16, 8 heads and 6 encoder layers that is 3.4 GB. Here the model runs as it always does, in
"sdpa" mode, which keeps no weights, and only the queries and keys of the layers in question are caught as they leave
their projections: 35 MB for that image. The weights of a row are the softmax of its products with the keys. So the
mode is never switched (with Transformers' own ResNet there is no way back from "eager"), and the logits are bit for
bit those of any other forward.
"""

from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from hf_detr_ft.model.families.family import outputs_of


@dataclass(frozen=True, eq=False)
class Projected:
    """Queries and keys that the weights of an attention layer come from.

    Attributes:
        queries: `[M, R, d]` float32, of M heads and R rows.
        keys: `[M, h * w, d]` float32, of the places of the map.
    """

    queries: torch.Tensor
    keys: torch.Tensor

    def weights(self, rows: np.ndarray) -> torch.Tensor:
        """Weights `[K, M, h * w]` of K rows; those of a head sum to 1."""
        queries = self.queries[:, torch.from_numpy(rows).to(self.queries.device)]
        products = queries @ self.keys.transpose(1, 2) * self.keys.shape[-1] ** -0.5
        return products.softmax(-1).transpose(0, 1)


@dataclass(frozen=True, eq=False)
class RecordedForward:
    """One image's way through a model: its outputs, and the parts of which the attention of any row is computed.

    Attributes:
        logits: `[Q, C+1]`, "no object" last.
        pred_boxes: `[Q, 4]`, cxcywh in [0, 1] of the image without its padding.
        size: (h, w) of the feature map without the padding's part. It covers the image evenly, as DETR's position
            embedding says it.
        decoder: the cross-attention of each decoder layer, from queries to places.
        encoder: the self-attention of the last encoder layer, from places to places; None without encoder layers.
    """

    logits: torch.Tensor
    pred_boxes: torch.Tensor
    size: tuple[int, int]
    decoder: list[Projected]
    encoder: Projected | None

    def cross_attention(self, queries: np.ndarray) -> np.ndarray:
        """Maps of K queries in L decoder layers with M heads: `[L, K, M, h, w]` float32, each sums to 1.

        Args:
            queries: `[K]` int64, their numbers.
        """
        maps = torch.stack([layer.weights(queries) for layer in self.decoder])
        return maps.unflatten(-1, self.size).cpu().numpy()

    def self_attention(self, points_xy_rel: np.ndarray) -> np.ndarray:
        """Maps of the places that P points lie in, in the last encoder layer: `[P, M, h, w]` float32, each sums to 1.

        Args:
            points_xy_rel: `[P, 2]` in [0, 1] of the image without its padding; what lies outside goes to the border.

        Raises:
            ValueError: the model has no encoder layers.
        """
        if self.encoder is None:
            raise ValueError("a DETR with encoder_layers 0 has no self-attention of places")
        height, width = self.size
        cells = np.floor(np.asarray(points_xy_rel, dtype=np.float64).reshape(-1, 2) * (width, height)).astype(np.int64)
        columns, rows = np.clip(cells, 0, (width - 1, height - 1)).T
        return self.encoder.weights(rows * width + columns).unflatten(-1, self.size).cpu().numpy()


@torch.inference_mode()
def record_attention(
    model: PreTrainedModel, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None
) -> RecordedForward:
    """Runs one image through a model.

    Args:
        model: used in evaluation mode, where it is; left as it was otherwise.
        pixel_values: `[3, H, W]`, normalised.
        pixel_mask: `[H, W]`, 1 on the image, at the top left, and 0 on the padding; without one all is image.
    """
    model.eval()
    if pixel_mask is None:
        pixel_mask = torch.ones(pixel_values.shape[-2:], dtype=torch.int64)
    cross = [layer.encoder_attn for layer in model.model.decoder.layers]
    last = [layer.self_attn for layer in model.model.encoder.layers[-1:]]
    with ExitStack() as stack:
        maps = stack.enter_context(outputs_of(model.model.input_projection))
        queries = [stack.enter_context(outputs_of(attention.q_proj)) for attention in cross + last]
        keys = [stack.enter_context(outputs_of(attention.k_proj)) for attention in cross + last]
        outputs = model(
            pixel_values=pixel_values[None].to(model.device, model.dtype, memory_format=torch.channels_last),
            pixel_mask=pixel_mask[None].to(model.device),
        )
    # As Transformers' backbone does it.
    mask = F.interpolate(pixel_mask[None, None].float(), size=maps[0].shape[-2:])[0, 0].bool().to(model.device)
    # Padding has no weight, so the softmax over the image's places alone is the masked one.
    places = mask.flatten()
    in_decoder = zip(queries[: len(cross)], keys[: len(cross)], strict=True)
    in_encoder = zip(queries[len(cross) :], keys[len(cross) :], strict=True)
    heads, encoder_heads = model.config.decoder_attention_heads, model.config.encoder_attention_heads
    encoder = [
        Projected(_by_head(q[0][0, places], encoder_heads), _by_head(k[0][0, places], encoder_heads))
        for q, k in in_encoder
    ]
    return RecordedForward(
        logits=outputs.logits[0],
        pred_boxes=outputs.pred_boxes[0],
        size=(int(mask[:, 0].sum()), int(mask[0].sum())),
        decoder=[Projected(_by_head(q[0][0], heads), _by_head(k[0][0, places], heads)) for q, k in in_decoder],
        encoder=encoder[0] if encoder else None,
    )


def _by_head(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows `[R, M * d]` as `[M, R, d]`, in fp32."""
    return rows.float().unflatten(-1, (heads, -1)).transpose(0, 1)
