"""Cross-attention of decoder layers, caught as they run: of each kind that DETRs have.

Some attend to every place of the feature map (`Projected`), some sample a few points of several maps (`Sampled`).
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

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
class Sampled:
    """Points that a layer of deformable attention reads (Zhu et al. 2020, arXiv:2010.04159).

    Attributes:
        points_xy_rel: `[Q, M, S, 2]` float32, of Q queries and M heads, S on all maps together; in [0, 1] of the padded
            image, where they lie in it.
        weights: `[Q, M, S]` float32; those of a head sum to 1.
    """

    points_xy_rel: torch.Tensor
    weights: torch.Tensor


def catch_rows(attention: nn.Module, heads: int, stack: ExitStack) -> Callable[[torch.Tensor], Projected]:
    """Catches queries and keys of an attention whose projections are q_proj and k_proj; see `catch_layer`."""
    queries, keys = (stack.enter_context(outputs_of(getattr(attention, name))) for name in ("q_proj", "k_proj"))
    return lambda places: _project(queries[0], keys[0], places, heads)


def catch_places(attention: nn.Module, heads: int, stack: ExitStack) -> Callable[[torch.Tensor], Projected]:
    """Catches an encoder's self-attention, whose rows are places, too; see `catch_layer`."""
    caught = catch_rows(attention, heads, stack)

    def among(places: torch.Tensor) -> Projected:
        every = caught(places)
        return Projected(every.queries[:, places], every.keys)

    return among


def catch_layer(layer: Any, heads: int, stack: ExitStack) -> Callable[[torch.Tensor], Projected | Sampled]:
    """Catches what a decoder layer reads in its next forward pass, with hooks that go when the stack closes.

    Args:
        layer: of the decoder.
        heads: of its cross-attention.
        stack: open while the model runs.

    Returns:
        Gives it, once the model has run, by which places of the feature map, `[N]` bool, are the image.
    """
    attention = layer.encoder_attn if hasattr(layer, "encoder_attn") else layer.cross_attn
    if hasattr(attention, "sampling_offsets"):
        return _catch_samples(attention, stack)
    if hasattr(attention, "cross_attn"):  # DAB-DETR: around an attention without projections
        given = _arguments_of(attention.cross_attn, stack)
        return lambda places: _project(given["hidden_states"], given["key_states"], places, heads)
    if hasattr(attention, "q_content_proj"):
        return _catch_content_and_place(attention, heads, stack)
    return catch_rows(attention, heads, stack)


def _arguments_of(module: nn.Module, stack: ExitStack) -> dict[str, Any]:
    """The named arguments of a module's next call, once it took place."""
    given: dict[str, Any] = {}
    hook = module.register_forward_pre_hook(lambda _module, _args, named: given.update(named), with_kwargs=True)
    stack.callback(hook.remove)
    return given


def _catch_content_and_place(attention: Any, heads: int, stack: ExitStack) -> Callable[[torch.Tensor], Projected]:
    """Catches Conditional DETR's: in each head the content's part stands beside the place's.

    In the first layer places are added to the content, too.
    """
    names = ("q_content_proj", "q_pos_proj", "q_pos_sine_proj", "k_content_proj", "k_pos_proj")
    caught = {n: stack.enter_context(outputs_of(getattr(attention, n))) for n in names if getattr(attention, n)}

    def project(places: torch.Tensor) -> Projected:
        content, key, key_place = (caught[name][0] for name in ("q_content_proj", "k_content_proj", "k_pos_proj"))
        if caught.get("q_pos_proj"):
            content, key = content + caught["q_pos_proj"][0], key + key_place
        first = _project(content, key, places, heads)
        second = _project(caught["q_pos_sine_proj"][0], key_place, places, heads)
        return Projected(torch.cat([first.queries, second.queries], -1), torch.cat([first.keys, second.keys], -1))

    return project


def _catch_samples(attention: Any, stack: ExitStack) -> Callable[[torch.Tensor], Sampled]:
    """Catches points around a query's reference: one point, or a box, in whose size they are given then."""
    given = _arguments_of(attention, stack)
    offsets, products = (
        stack.enter_context(outputs_of(getattr(attention, name))) for name in ("sampling_offsets", "attention_weights")
    )

    def locate(_: torch.Tensor) -> Sampled:
        shapes = torch.tensor(given["spatial_shapes_list"])
        counts = torch.tensor(_points_of_maps(attention, len(shapes)))
        level = torch.arange(len(counts)).repeat_interleave(counts)
        moved = offsets[0][0].float().cpu().unflatten(-1, (attention.n_heads, len(level), 2))
        reference = given["reference_points"][0].float().cpu().expand(-1, len(counts), -1)[:, None, level]
        if reference.shape[-1] == 2:
            moved = moved / shapes.flip(-1)[level]
        else:
            moved = moved / counts[level, None] * reference[..., 2:] * getattr(attention, "offset_scale", 0.5)
        weights = products[0][0].float().cpu().unflatten(-1, (attention.n_heads, len(level))).softmax(-1)
        return Sampled(reference[..., :2] + moved, weights)

    return locate


def _points_of_maps(attention: Any, maps: int) -> list[int]:
    """Numbers of points that a head reads in each map."""
    for name in ("num_points_list", "n_points_list"):
        if hasattr(attention, name):
            return list(getattr(attention, name))
    return [attention.n_points] * maps


def _project(queries: torch.Tensor, keys: torch.Tensor, places: torch.Tensor, heads: int) -> Projected:
    """Rows `[1, R, M * d]` and `[1, N, M * d]` by head, in fp32; padding has no weight, so its keys are left out."""
    by_head = [rows.float().unflatten(-1, (heads, -1)).transpose(0, 1) for rows in (queries[0], keys[0, places])]
    return Projected(*by_head)
