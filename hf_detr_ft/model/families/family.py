"""The facts that make one family of detectors differ from another; everything else is the same for all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MethodType
from typing import Any, Literal

import torch
import transformers
from torch import nn
from transformers import TimmBackbone

from hf_detr_ft.model.predictions import Criterion, Predictions, at_least_fp32

PRIOR = 0.01
"""Probability of every class that a new head with sigmoid scores starts from (Lin et al. 2017, arXiv:1708.02002)."""


def no_settings(strides: Sequence[int], channels: Sequence[int], given: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing in a config that depends on the backbone."""
    return {}


def unchanged(model: Any) -> None:
    """A model that is used as Transformers makes it."""


@dataclass(frozen=True)
class SizeRule:
    """Image sizes that a family takes."""

    square: bool = False
    """True where every image becomes a square; else images keep their shape, and batches are padded."""
    step: Callable[[Any], int] = lambda config: 1
    """Pixels that a square's side is a multiple of, by the model's config."""
    cells: Callable[[Any], Sequence[float]] = lambda config: ()
    """Pixels between the places of each map that queries are taken from, by the model's config; none where they are
    learned."""
    edge: int = 800
    """Side of the square, or the short side, in pixels, where neither recipe nor checkpoint says one."""

    def side(self, config: Any, least: int) -> int:
        """Side in pixels of the smallest square of at least `least` that a model with this config takes."""
        step = self.step(config)
        return -(-least // step) * step


@dataclass(frozen=True, eq=False)
class Family:
    """One family of detectors, as Transformers has it, trained as its authors trained it.

    Adding one takes a file in this folder and a line in its `__init__.py`.
    """

    model_type: str
    """Name in a checkpoint's config and in `model.family`, such as rt_detr."""
    name: str
    """Name for people, such as RT-DETR."""
    architecture: str
    """Name of the class in Transformers, which saved models carry."""
    processor: str
    """Name of the class of processors in Transformers, for a model that starts without one."""
    predict: Callable[[Any, torch.Tensor, torch.Tensor | None, list[dict]], Predictions]
    """Forward pass of a model over `pixel_values` `[B, 3, H, W]`, `pixel_mask` `[B, H, W]` and labels to the
    predictions of all layers, through the same network as Transformers' own forward pass."""
    criterion: Criterion
    """Loss of the predictions."""
    class_heads: tuple[str, ...]
    """Prefixes of the names of the tensors that are made anew for other classes."""
    reset_heads: Callable[[Any], None]
    """Gives these tensors the initial weights of the original."""
    initialise: Callable[[Any], None]
    """Gives everything but the backbone the initial weights of the original."""
    fit_to_backbone: Callable[[Any], None] = unchanged
    """Called once the backbone of a new model has its weights."""
    backbone_settings: Callable[[Sequence[int], Sequence[int], Mapping[str, Any]], dict[str, Any]] = no_settings
    """Fields of a new model's config, by the strides and channels of the backbone's feature maps and the fields that
    the recipe gives, which go over them."""
    scores: Literal["softmax", "sigmoid"] = "softmax"
    """Kind of scores: with softmax the last class is "no object", and a query has one class; with sigmoid it may have
    several."""
    top: int | None = None
    """Detections of an image where scores are sigmoids, if no more are asked for; None: as many as queries."""
    queries: tuple[str, ...] = ()
    """Names of the learned queries, `[Q, D]` each, or `[G * Q, D]` in G groups; those that a model has not are left
    out."""
    proposes_places: bool = False
    """True where each query begins at a place that the encoder proposes."""
    prepare: Callable[[Any], None] = unchanged
    """Called once for each new model of ours, before its weights are loaded."""
    unused_without_boxes: tuple[str, ...] = ()
    """Prefixes of the names of parameters that a batch without boxes leaves out."""
    fixed_parameters: Callable[[Any], tuple[str, ...]] = lambda config: ()
    """Prefixes of the names of parameters that are constants, or that nothing uses, by the model's config."""
    needs_all_layers: bool = False
    """True where parameters of the layers before the last are trained by these layers' losses alone."""
    auxiliary_loss_changes_network: bool = False
    """True where Transformers' `auxiliary_loss` normalises the states that one decoder layer hands on to the next."""
    pixel_mask: bool = True
    """True where the model looks at the mask of the padding."""
    size: SizeRule = field(default_factory=SizeRule)
    timm_backbone: bool = True
    """True where a new model can be built on a timm backbone."""
    backbone_prefix: str = "model.backbone."
    """Prefix of the names of the parameters that have the backbone's learning rate."""
    strides: tuple[int, ...] = (32,)
    """Strides of the backbone's feature maps that a new model reads, in pixels; one: `model.backbone_stride`."""
    frozen_stages: Callable[[Any], int | None] = lambda config: None
    """Stages of Transformers' own backbones, or of timm's, that are not trained by default, by the model's config;
    None: those up to a stride of 4."""
    rate_factors: Callable[[Any], Mapping[str, float]] = lambda config: {}
    """Factors on the learning rates of some parameters by a regular expression that is found in their names, by the
    model's config; the first counts."""
    undecayed: tuple[str, ...] = ()
    """Prefixes of the names of parameters that are not decayed, though they are no vectors."""
    values: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda settings: {}
    """Values of the original's training by a recipe's field, such as training.learning_rate, where they are not
    DETR's: by the settings in a checkpoint's config.json, which are none where a model is new."""

    masks: bool = False
    """True where a mask head is trained, which gives each detection a mask, and nothing else is."""

    @property
    def stock_class(self) -> Any:
        """The class in Transformers."""
        return getattr(transformers, self.architecture)

    @property
    def config_class(self) -> Any:
        """The class of its configs in Transformers."""
        return self.stock_class.config_class

    def most_detections(self, queries: int, classes: int, wanted: int = 0) -> int:
        """Detections of an image, good and bad together, from so many queries, where so many are wanted."""
        top = queries if self.top is None else max(self.top, wanted)
        return queries if self.scores == "softmax" else min(top, queries * classes)

    def parameters_without_boxes(self, model: nn.Module) -> list[nn.Parameter]:
        """Trained parameters that a batch without boxes leaves out."""
        if not self.unused_without_boxes:
            return []
        return [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name.startswith(self.unused_without_boxes)
        ]


def map_encoder_of(model: Any) -> nn.Module:
    """The module around the backbone, from images and masks to feature maps with their masks."""
    backbone = getattr(model, "detr", model).model.backbone
    encoder: nn.Module = getattr(backbone, "conv_encoder", backbone)
    return encoder


def backbone_of(model: Any) -> nn.Module:
    """The network that makes feature maps of an image, without what the detector adds to it."""
    encoder: Any = map_encoder_of(model)
    backbone = encoder.model if hasattr(encoder, "model") else encoder.backbone
    inner: nn.Module = backbone._backbone if isinstance(backbone, TimmBackbone) else backbone
    return inner


def decoder_states(model: Any, outputs: Any) -> torch.Tensor:
    """States `[L, B, Q, D]` behind every decoder layer, or behind the last one where the model has no auxiliary losses.

    Those of earlier layers are normalised here, beside the decoder.

    Args:
        model: whose states of all layers `outputs` has where it needs them.
        outputs: of Transformers' model without heads.
    """
    if not model.auxiliary_losses:
        return outputs.last_hidden_state[None]
    # The first hidden state is the decoder's input, the last one is `last_hidden_state`, normalised already.
    before_last = [model.model.decoder.layernorm(state) for state in outputs.decoder_hidden_states[1:-1]]
    return torch.stack([*before_last, outputs.last_hidden_state])


def logit(values: torch.Tensor) -> torch.Tensor:
    """Inverse of the sigmoid, with limits as in Transformers."""
    values = values.clamp(0, 1)
    return torch.log(values.clamp(min=1e-5) / (1 - values).clamp(min=1e-5))


def compute_in_fp32(module: nn.Module) -> None:
    """Lets a module compute in fp32 from now on, also under autocast; it stays the same module."""
    module.forward = MethodType(_forward_in_fp32, module)


def _forward_in_fp32(self: nn.Module, *inputs: torch.Tensor) -> Any:
    with torch.autocast(inputs[0].device.type, enabled=False):
        return type(self).forward(self, *(at_least_fp32(each) for each in inputs))


def maps_in_fp32(output: Any) -> Any:
    """Feature maps with their masks, as a backbone of Transformers returns several or one of them, in fp32."""
    if isinstance(output, list):
        return [maps_in_fp32(pair) for pair in output]
    feature_map, mask = output
    return at_least_fp32(feature_map), mask


@contextmanager
def outputs_of(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collects what a module returns while the context is open; its hook goes when it closes, whatever goes wrong."""
    outputs: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda *call: outputs.append(call[-1]))
    try:
        yield outputs
    finally:
        hook.remove()
