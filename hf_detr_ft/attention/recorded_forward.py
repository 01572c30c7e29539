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

from hf_detr_ft.attention.caught_layers import Projected, Sampled, catch_layer, catch_places
from hf_detr_ft.model.families import family_of
from hf_detr_ft.model.families.family import outputs_of


@dataclass(frozen=True, eq=False)
class RecordedForward:
    """One image's way through a model: its outputs, and the parts of which the attention of any row is computed.

    Attributes:
        logits: `[Q, C]`, with softmax scores "no object" last.
        pred_boxes: `[Q, 4]`, cxcywh in [0, 1] of the image without its padding.
        size: (h, w) of the feature map without the padding's part. It covers the image evenly, as DETR's position
            embedding says it. Of pixels where the decoder samples points of several maps.
        padded: the same with the padding.
        decoder: the cross-attention of each decoder layer, from queries to places, or the points that it samples.
        encoder: the self-attention of the last encoder layer, from places to places; None without encoder layers, and
            where these sample points.
    """

    logits: torch.Tensor
    pred_boxes: torch.Tensor
    size: tuple[int, int]
    padded: tuple[int, int]
    decoder: list[Projected | Sampled]
    encoder: Projected | None

    @property
    def samples(self) -> bool:
        """True where the decoder samples points."""
        return isinstance(self.decoder[-1], Sampled)

    def cross_attention(self, queries: np.ndarray) -> np.ndarray:
        """Maps of K queries in L decoder layers with M heads: `[L, K, M, h, w]` float32, each sums to 1.

        Args:
            queries: `[K]` int64, their numbers.
        """
        maps = torch.stack([layer.weights(queries) for layer in self.decoder if isinstance(layer, Projected)])
        return maps.unflatten(-1, self.size).cpu().numpy()

    def sampled_points(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of K queries in L decoder layers, S of each of M heads, and their weights.

        Args:
            queries: `[K]` int64, their numbers.

        Returns:
            `[L, K, M, S, 2]` float32, x and y in [0, 1] of the image without its padding, where they lie in it, and
            `[L, K, M, S]`; those of a head sum to 1.
        """
        layers = [layer for layer in self.decoder if isinstance(layer, Sampled)]
        points = torch.stack([layer.points_xy_rel[queries] for layer in layers])
        scale = torch.tensor([whole / part for whole, part in zip(self.padded, self.size, strict=True)]).flip(0)
        return (points * scale).numpy(), torch.stack([layer.weights[queries] for layer in layers]).numpy()

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
    config, inner = model.config, getattr(model, "detr", model).model
    with ExitStack() as stack:
        layers = inner.decoder.layers
        heads = config.decoder_attention_heads if hasattr(config, "decoder_attention_heads") else 0
        cross = [catch_layer(layer, heads, stack) for layer in layers]
        has_map = hasattr(inner, "input_projection")
        maps = stack.enter_context(outputs_of(inner.input_projection)) if has_map else []
        last = inner.encoder.layers[-1:] if has_map else ()
        own = [catch_places(layer.self_attn, config.encoder_attention_heads, stack) for layer in last]
        masks = {"pixel_mask": pixel_mask[None].to(model.device)} if family_of(model).pixel_mask else {}
        outputs = model(
            pixel_values=pixel_values[None].to(model.device, model.dtype, memory_format=torch.channels_last), **masks
        )
    sides = maps[0].shape[-2:] if maps else pixel_mask.shape
    # As Transformers' backbone does it.
    mask = F.interpolate(pixel_mask[None, None].float(), size=sides)[0, 0].bool().to(model.device)
    places = mask.flatten()
    encoder = [layer(places) for layer in own]
    return RecordedForward(
        logits=outputs.logits[0],
        pred_boxes=outputs.pred_boxes[0],
        size=(int(mask[:, 0].sum()), int(mask[0].sum())),
        padded=(mask.shape[0], mask.shape[1]),
        decoder=[layer(places) for layer in cross],
        encoder=encoder[0] if encoder else None,
    )
