"""Encoder layers that do not ask the device, in every step, whether their output is finite.

Transformers' encoder layers do so while they are trained, to clamp what is infinite, and the host waits for the GPU in
each of them before it can give it the next one's work. What is infinite there came through a layer norm as NaN, which
clamping leaves; and predictions that are not finite stop a training with the names of their images.
"""

from functools import partial
from typing import Any, cast

import torch.nn.functional as F
from torch import nn


def skip_finite_checks(model: nn.Module) -> None:
    """Lets encoder layers compute the same without that question, from now on and in place.

    They ask where they are in training mode, which otherwise decides on one dropout alone, that of the attention's
    output. So they run in evaluation mode, and the attention drops its own output. Layers without an `mlp`, as
    DAB-DETR's, have more dropouts and do not ask; they stay as they are.
    """
    for layer in model.modules():
        if type(layer).__name__.endswith("EncoderLayer") and hasattr(layer, "mlp") and hasattr(layer, "self_attn"):
            layer.register_forward_pre_hook(_begin)
            layer.register_forward_hook(_end, always_call=True)
            cast(nn.Module, layer.self_attn).register_forward_hook(partial(_drop, layer))


def _begin(layer: nn.Module, _: tuple) -> None:
    layer.training = False


def _end(layer: Any, *_: Any) -> None:
    layer.training = layer.self_attn.training


def _drop(layer: Any, attention: nn.Module, _: tuple, outputs: tuple) -> tuple:
    return (F.dropout(outputs[0], p=layer.dropout, training=attention.training), *outputs[1:])
