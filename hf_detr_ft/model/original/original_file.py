"""Files of facebookresearch/detr, opened without running anything in them, and written."""

import io
import pickle
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from hf_detr_ft.atomic import write_bytes
from hf_detr_ft.errors import CheckpointError, first_line
from hf_detr_ft.formatting import printable
from hf_detr_ft.model.original.tensor_names import detectron2_name, without_wrapper

HARMLESS: list[Any] = [
    Namespace,
    *((PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
]
"""Types beside tensors and plain containers that the original's files hold: its arguments, and in those that were
trained through submitit the folder."""
CLASS_NAMES = "class_names"
"""Entry of files written here: names by category id."""
STEM = {
    "backbone.0.body.conv1.weight": False,
    "detr.backbone.0.body.conv1.weight": False,
    "detr.backbone.0.backbone.stem.conv1.weight": True,
    "detr.detr.backbone.0.backbone.stem.conv1.weight": True,
}
"""A tensor that one of these names, and whether the names are those of the detectron2 wrapper."""
CONSTANTS = ("pixel_mean", "pixel_std", "criterion.empty_weight")
"""Tensors of the wrapper that are no weights."""
OTHERS = {
    "roi_heads.": "a detectron2 R-CNN",
    "proposal_generator.": "a detectron2 R-CNN",
    "backbone.bottom_up.": "a model of detectron2 other than DETR",
    "sampling_offsets": "a Deformable DETR",
    "sa_qcontent_proj": "a Conditional DETR or DAB-DETR",
    "class_labels_classifier": "a DETR of Transformers, which this program writes, too; give the folder around it",
    "model.decoder.layers": "a model of Transformers; give the folder around it",
    "fc.weight": "a classifier; model.backbone_weights takes one",
    "param_groups": "an optimizer",
}
"""Models of others by a part of a tensor's name."""


@dataclass
class OriginalFile:
    """A file of the original.

    Attributes:
        path: as the user gave it.
        tensors: by the original's names, also where the file is of the detectron2 wrapper.
        is_detectron2: the file is of the wrapper.
        constants: tensors of the wrapper that are no weights.
        arguments: of the training; None where the file has none.
        class_names: by category id; None in files that this program did not write.
    """

    path: str
    tensors: dict[str, torch.Tensor]
    is_detectron2: bool = False
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    arguments: dict[str, Any] | None = None
    class_names: dict[int, str] | None = None

    def argument(self, name: str, default: Any) -> Any:
        """An argument of the training, or the default where there is none.

        Raises:
            CheckpointError: it is of another type than the default.
        """
        value = (self.arguments or {}).get(name, default)
        kinds = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(default, bool)):
            raise CheckpointError(
                f"{self.path}: args.{name}: expected a {type(default).__name__} such as {default!r}, found "
                f"{printable(repr(value)[:60])}. The file was edited; take it from where it came from once more."
            )
        return value


def read_original(path: Path) -> OriginalFile:
    """Opens a file of torch.save that holds a DETR, as tensors, plain containers and `HARMLESS` types alone.

    Raises:
        CheckpointError: it cannot be read, would run code, or is of another model.
    """
    content = _load(path)
    model = content.get("model", content) if isinstance(content, dict) else None
    named = isinstance(model, dict) and all(isinstance(name, str) for name in model)
    if not isinstance(model, dict) or not named or not model:
        keys = list(content)[:6] if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(
            f"{path}: expected tensors by their names, alone or under 'model', found {printable(keys)}. Give a .pth "
            "that facebookresearch/detr or its detectron2 wrapper wrote."
        )
    stems = [name for name in STEM if name in model]
    other = next((kind for part, kind in OTHERS.items() if any(part in name for name in model)), None)
    if not stems or other is not None:
        found = f"those of {other}" if other is not None else "others"
        raise CheckpointError(
            f"{path}: expected tensors of facebookresearch/detr, such as '{next(iter(STEM))}', found {found}: "
            f"{len(model)} entries, '{printable(next(iter(model)))}' first. Give the .pth of a DETR."
        )
    return _sort(path, model, STEM[stems[0]], content)


def _sort(path: Path, model: dict[str, Any], is_detectron2: bool, content: dict[str, Any]) -> OriginalFile:
    """Puts the entries of a file where they belong."""
    for name, value in model.items():
        _check_tensor(path, name, value)
    constants = {name: model[name] for name in CONSTANTS if name in model} if is_detectron2 else {}
    tensors = {
        without_wrapper(name) if is_detectron2 else name: tensor
        for name, tensor in model.items()
        if name not in constants and not name.endswith("num_batches_tracked")
    }
    arguments = content.get("args") if model is not content else None
    arguments = vars(arguments) if isinstance(arguments, Namespace) else arguments
    names = content.get(CLASS_NAMES) if model is not content else None
    if names is not None and not _are_names(names):
        raise CheckpointError(
            f"{path}: {CLASS_NAMES}: expected names by category id, found {printable(repr(names)[:60])}. Remove the "
            "entry, or convert the model once more."
        )
    return OriginalFile(
        str(path), tensors, is_detectron2, constants, arguments if isinstance(arguments, dict) else None, names
    )


def _are_names(names: Any) -> bool:
    return isinstance(names, dict) and all(
        isinstance(key, int) and key >= 0 and isinstance(value, str) for key, value in names.items()
    )


def _check_tensor(path: Path, name: str, value: Any) -> None:
    """Refuses what is no plain tensor of numbers, and one that says to be larger than what lies in the file."""
    found = None
    if not isinstance(value, torch.Tensor):
        found = f"a {type(value).__name__}"
    elif value.layout != torch.strided or value.device.type != "cpu":
        found = f"a tensor of layout {value.layout} on {value.device}"
    elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
        found = f"a shape of {tuple(value.shape)} over {value.untyped_storage().nbytes()} bytes"
    elif value.dim() == 0 and not name.endswith("num_batches_tracked"):
        found = "a single number"
    elif not value.is_floating_point() and not name.endswith("num_batches_tracked"):
        found = f"a tensor of {value.dtype}"
    if found is not None:
        raise CheckpointError(
            f"{path}: '{printable(name)}': expected a tensor of floating-point numbers, found {found}. Give a .pth "
            "that facebookresearch/detr or its detectron2 wrapper wrote."
        )


def _load(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a .pth file, found no file. Check the path.")
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # pickle's, zip's, torch's and the system's errors alike: it cannot be opened
        name = re.search(r"(?:GLOBAL|global|class|function) ([\w.<>]+\.[\w.<>]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and name is not None:
            raise CheckpointError(
                f"{path}: expected tensors and plain values alone, found '{printable(name[1])}', which could run code "
                "when opened, so it was not. Where you trust its author, open it with torch.load there, and save its "
                "'model' alone."
            ) from error
        # torch's own words about pickles are how to open them all the same
        reason = "it is no pickle of its" if isinstance(error, pickle.UnpicklingError) else first_line(error)
        raise CheckpointError(
            f"{path}: expected a file that torch.save wrote, but it cannot be read: {printable(reason)}. It is cut "
            "off, damaged or of another kind; copy or download it again."
        ) from error


def write_original(path: Path, tensors: Mapping[str, torch.Tensor], content: Mapping[str, Any]) -> None:
    """Writes a file that `torch.load` opens with `weights_only`, and the original's `main.py --resume`, too.

    Args:
        path: of the file.
        tensors: under the names that they are to have.
        content: what lies beside them: plain containers alone.
    """
    stream = io.BytesIO()
    torch.save({"model": dict(tensors), **content}, stream)
    write_bytes(path, stream.getvalue())


def wrapped(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under the names of the detectron2 wrapper."""
    return {detectron2_name(name): tensor for name, tensor in tensors.items()}
