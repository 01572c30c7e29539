"""ImageNet weights of a timm backbone, from a file or from the Hub."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.model.checkpoint import resolve_source, why_unreadable
from hf_detr_ft.model.families.family import backbone_of


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


def load_backbone_weights(model: PreTrainedModel, weights: str) -> None:
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
    backbone_of(model).load_state_dict(tensors)
