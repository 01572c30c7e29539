"""Everything that a detector predicts in one forward pass, in the shapes that the criteria of all families read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar, cast

import torch
from transformers.utils import ModelOutput


@dataclass(frozen=True)
class LayerPredictions:
    """Predictions of L layers for the same Q queries; the last layer's are the best."""

    logits: torch.Tensor
    """`[L, B, Q, C]`; with softmax scores C is the number of classes plus "no object" in the last place."""
    boxes_cxcywh_rel: torch.Tensor
    """`[L, B, Q, 4]` in [0, 1], relative to each image without its padding."""
    corners: torch.Tensor | None = None
    """`[L, B, Q, 4 * bins]`, logits of the distances from `reference_boxes` to the left, top, right and bottom side
    (D-FINE's distributions)."""
    reference_boxes: torch.Tensor | None = None
    """`[L, B, Q, 4]`, cxcywh, without gradient: the boxes that `corners` refine."""


@dataclass(frozen=True)
class DenoisingPredictions:
    """Predictions for D queries that were made of the labels with noise, and are to find back to them.

    Each image's objects are noised in `groups` groups, half of each group's queries being far off on purpose: those
    have no target.
    """

    layers: LayerPredictions
    """L layers, D queries."""
    targets: torch.Tensor
    """`[B, D]` int64, index of the image's object that a query was made of; -1: none."""
    groups: int
    initial: LayerPredictions | None = None
    """L = 1; see `Predictions.initial`."""


@dataclass(frozen=True)
class MaskPredictions:
    """Masks of the last layer's queries, computed for those that are asked for."""

    logits: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Images `[N]` and queries `[N]` to logits `[N, h, w]` at the stride of the finest feature map."""
    size: tuple[int, int]
    """Height and width in pixels of the padded images, all of which the logits cover."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of all layers; what a family does not have is None."""

    layers: LayerPredictions
    """Decoder layers, the model's output last. In evaluation some families give the last one alone."""
    encoder: LayerPredictions | None = None
    """L = 1; the encoder's proposals: those that become queries, or in Deformable DETR one for each position."""
    initial: LayerPredictions | None = None
    """L = 1; the first decoder layer's plain boxes, which D-FINE's distributions start from."""
    denoising: DenoisingPredictions | None = None
    """Only in training, and None where a batch has no boxes."""
    groups: int = 1
    """Groups of queries, each of which is matched to all objects (LW-DETR): Q is a multiple of it."""
    encoder_last_hidden_state: torch.Tensor | None = None
    """Places of the encoder's map, `[B, N, D]`, where there is one map."""
    masks: MaskPredictions | None = None
    """None without a mask head."""


Dataclass = TypeVar("Dataclass", Predictions, DenoisingPredictions, LayerPredictions)


def at_least_fp32(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in fp32, or in fp64 where it is that."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def in_fp32(predictions: Dataclass) -> Dataclass:
    """The same predictions with floating tensors of at least fp32."""
    changed: dict[str, Any] = {}
    for entry in fields(predictions):
        value = getattr(predictions, entry.name)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            changed[entry.name] = at_least_fp32(value)
        elif is_dataclass(value):
            changed[entry.name] = in_fp32(cast(Any, value))
    return replace(predictions, **changed)


class Criterion(Protocol):
    """A family's loss.

    Args of a call:
        predictions: of these images.
        labels: per image `class_labels` `[n]` in 0..C-1 and `boxes` `[n, 4]` cxcywh in [0, 1]; `image_id` for errors.
        config: the model's config, which states costs and weights.
        num_items: `loss.count_items` of the whole batch, over all processes and accumulated micro-batches; None: these
            images are the whole batch.

    Returns:
        The weighted sum of the losses, and its unweighted parts without gradient, by the names of the family's paper.
        Both are shares of the whole batch: those of micro-batches and processes add up.

    Raises:
        UnusableBatchError: predictions or boxes are not finite, or labels are out of range.
    """

    def __call__(
        self,
        predictions: Predictions,
        labels: Sequence[dict],
        config: Any,
        num_items: torch.Tensor | None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See the class."""


@dataclass
class DetectionOutput(ModelOutput):
    """A forward pass with labels."""

    loss: torch.Tensor | None = None
    loss_dict: dict[str, torch.Tensor] | None = None
    logits: torch.Tensor | None = None
    """`[B, Q, C]` of the last layer."""
    pred_boxes: torch.Tensor | None = None
    """`[B, Q, 4]`, cxcywh in [0, 1] of the image without its padding."""
    pred_masks: torch.Tensor | None = None
    """`[B, Q, h, w]`, logits over the padded image, of a model with a mask head in evaluation mode."""
    encoder_last_hidden_state: torch.Tensor | None = None
