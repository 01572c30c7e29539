"""Random predictions and labels, the same on every machine."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import CONFIG_MAPPING, AutoConfig

from hf_detr_ft.model.criteria import family_criteria
from hf_detr_ft.model.hungarian_matching import CriterionWeights
from hf_detr_ft.model.loss import set_criterion
from hf_detr_ft.model.predictions import Criterion, DenoisingPredictions, LayerPredictions, Predictions

CLASSES, LAYERS, QUERIES, BINS = 4, 3, 8, 8
COUNTS = {"objects": [2, 0, 3, 1], "no objects": [0, 0]}
"""Objects of each image, by case."""
UNLIKE = 1
"""A seed whose images differ in how many matches an object has in the union of D-FINE's layers."""
UNEVEN = [0, 0, 3, 1]
"""Objects of four images, of which the first two have none."""


def softmax_criterion(predictions: Predictions, labels: list, config: Any, num_items: torch.Tensor | None) -> Any:
    """DETR's, which Table Transformer and YOLOS have, too."""
    layers, weights = predictions.layers, CriterionWeights.from_config(config)
    return set_criterion(layers.logits, layers.boxes_cxcywh_rel, labels, weights, num_items)


@dataclass(frozen=True)
class Family:
    """What a family predicts, and its criterion."""

    criterion: Criterion
    softmax: bool = False
    layers: int = LAYERS
    groups: int = 1
    encoder_queries: int = 0
    denoises: bool = False
    bins: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Entries of the config."""


_FOCAL = family_criteria.deformable_criterion
_RT_DETR = Family(family_criteria.rt_detr_criterion, encoder_queries=QUERIES, denoises=True)
_D_FINE = replace(_RT_DETR, criterion=family_criteria.d_fine_criterion, bins=BINS, settings={"max_num_bins": BINS})
_LW_DETR = Family(family_criteria.lw_detr_criterion, groups=3, encoder_queries=QUERIES, settings={"group_detr": 3})

FAMILIES = {
    "detr": Family(softmax_criterion, softmax=True),
    "table-transformer": Family(softmax_criterion, softmax=True),
    "yolos": Family(softmax_criterion, softmax=True, layers=1),
    "conditional_detr": Family(_FOCAL),
    "dab-detr": Family(_FOCAL),
    "deformable_detr": Family(_FOCAL, encoder_queries=30),
    "rt_detr": _RT_DETR,
    "rt_detr_v2": _RT_DETR,
    "d_fine": _D_FINE,
    "deimv2": replace(_D_FINE, criterion=family_criteria.deimv2_criterion),
    "lw_detr": _LW_DETR,
    "rf_detr": _LW_DETR,
}
"""By `model_type` of Transformers."""
FAMILIES = {name: family for name, family in FAMILIES.items() if name in CONFIG_MAPPING}


def config_of(name: str) -> Any:
    """Transformers' config of the family, as small as its cases."""
    return AutoConfig.for_model(name, num_labels=CLASSES, decoder_layers=LAYERS, **FAMILIES[name].settings)


def random_case(name: str, counts: list[int], seed: int = 0) -> tuple[Predictions, list[dict[str, torch.Tensor]]]:
    """Predictions, whose tensors ask for gradients, and labels for images with so many objects."""
    family, draw = FAMILIES[name], np.random.RandomState(seed)
    labels = [
        {
            "class_labels": torch.from_numpy(draw.randint(0, CLASSES, count)),
            "boxes": _boxes(draw, count),
            "image_id": torch.tensor([image]),
        }
        for image, count in enumerate(counts)
    ]
    batch, queries = len(counts), QUERIES * family.groups
    classes = CLASSES + family.softmax

    def layers(number: int, width: int, bins: int = 0) -> LayerPredictions:
        return _layers(draw, (number, batch, width), classes, bins)

    predictions = Predictions(layers(family.layers, queries, family.bins), groups=family.groups)
    if family.encoder_queries:
        predictions = replace(predictions, encoder=layers(1, family.encoder_queries * family.groups))
    if family.bins:
        predictions = replace(predictions, initial=layers(1, queries))
    if family.denoises and any(counts):
        targets = _denoising_targets(counts, groups=2)
        noised = layers(family.layers, targets.shape[1], family.bins)
        initial = layers(1, targets.shape[1]) if family.bins else None
        predictions = replace(predictions, denoising=DenoisingPredictions(noised, targets, 2, initial))
    return predictions, labels


def _boxes(draw: np.random.RandomState, *shape: int) -> torch.Tensor:
    centres, sizes = draw.uniform(0.2, 0.8, (*shape, 2)), draw.uniform(0.05, 0.5, (*shape, 2))
    return torch.from_numpy(np.concatenate([centres, sizes], axis=-1)).float()


def _layers(draw: np.random.RandomState, shape: tuple[int, ...], classes: int, bins: int) -> LayerPredictions:
    logits = torch.from_numpy(2 * draw.standard_normal((*shape, classes))).float()
    boxes = _boxes(draw, *shape)
    if not bins:
        return LayerPredictions(logits.requires_grad_(), boxes.requires_grad_())
    boxes[:, :, 0, 2] *= -0.1  # D-FINE can predict such a width
    corners = torch.from_numpy(2 * draw.standard_normal((*shape, 4 * (bins + 1)))).float()
    references = _boxes(draw, *shape[1:]).expand(*shape, 4)
    return LayerPredictions(logits.requires_grad_(), boxes.requires_grad_(), corners.requires_grad_(), references)


def _denoising_targets(counts: list[int], groups: int) -> torch.Tensor:
    """As Transformers lays them out: in each group first the near ones of all objects, then the far ones."""
    most = max(counts)
    near = torch.tensor([[index if index < count else -1 for index in range(most)] for count in counts])
    return torch.cat([near, torch.full_like(near, -1)], dim=1).repeat(1, groups)


def take_images(value: Any, images: slice) -> Any:
    """Predictions for some of the images, with tensors of their own that ask for gradients where those did."""
    changed = {}
    for entry in fields(value):
        tensor = getattr(value, entry.name)
        if is_dataclass(tensor):
            changed[entry.name] = take_images(tensor, images)
        elif isinstance(tensor, torch.Tensor):
            taken = tensor.detach()[images] if entry.name == "targets" else tensor.detach()[:, images]
            changed[entry.name] = taken.clone().requires_grad_(tensor.requires_grad)
    return replace(value, **changed)


def leaves(predictions: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that ask for gradients, with their names."""
    for entry in fields(predictions):
        value = getattr(predictions, entry.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{entry.name}.")
        elif isinstance(value, torch.Tensor) and value.requires_grad:
            yield prefix + entry.name, value


Run = Callable[[Predictions, list[dict[str, torch.Tensor]]], tuple[torch.Tensor, dict[str, torch.Tensor]]]


def ours(name: str, num_items: torch.Tensor | None = None) -> Run:
    """Our criterion of a family; `num_items` is that of the whole batch."""
    config = config_of(name)
    return lambda predictions, labels: FAMILIES[name].criterion(predictions, labels, config, num_items)


def losses_and_gradients(run: Run, predictions: Predictions, labels: list) -> dict[str, torch.Tensor]:
    """The loss, its parts and its gradients by name, without graph; a gradient that is not there is zero."""
    loss, parts = run(predictions, labels)
    named = dict(leaves(predictions))
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    result = {"loss": loss.detach(), **{name: value.detach() for name, value in parts.items()}}
    for (name, tensor), gradient in zip(named.items(), gradients, strict=True):
        result[f"d {name}"] = torch.zeros_like(tensor) if gradient is None else gradient
    return result


def fingerprint(gradient: torch.Tensor) -> list[float]:
    """Four random sums of a tensor's entries, instead of all of them."""
    weights = np.random.RandomState(0).standard_normal((4, gradient.numel()))
    return [float(value) for value in weights @ gradient.double().flatten().numpy()]
