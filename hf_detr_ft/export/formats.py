"""The formats that a detector can be exported to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.export.onnx_file import open_onnx, write_onnx
from hf_detr_ft.export.openvino_file import open_openvino, write_openvino
from hf_detr_ft.export.torch_files import open_program, open_torchscript, write_program, write_torchscript

ROUNDED = ("fp32", "fp16", "int8", "int8-dynamic")


@dataclass(frozen=True)
class Format:
    """One format: how its files are written and run."""

    name: str
    suffix: str
    write: Callable[..., None]
    """Writes a network, to a path, with its description and the training images for calibration."""
    open: Callable[[Path], Callable[..., Sequence[np.ndarray]]]
    """A file's network as a function of `pixel_values` and, where the network has it, `pixel_mask`."""
    runtime: str
    """Package that runs it."""
    precisions: tuple[str, ...] = ("fp32",)
    needs: tuple[str, ...] = ()
    """Packages of the extra `export`."""


_ONNX = ("onnx", "onnxruntime")
_FORMATS = (
    Format("onnx", ".onnx", write_onnx, open_onnx, "onnxruntime", ROUNDED, _ONNX),
    Format("openvino", ".xml", write_openvino, open_openvino, "openvino", ROUNDED, (*_ONNX, "openvino")),
    Format("torchscript", ".torchscript", write_torchscript, open_torchscript, "torch"),
    Format("exported-program", ".pt2", write_program, open_program, "torch"),
)
FORMATS = {each.name: each for each in _FORMATS}


def require_format(name: str, precision: str) -> Format:
    """The format, where it has the precision and its packages are there.

    Raises:
        RecipeError: it has not, or they are not.
    """
    chosen = FORMATS[name]
    if precision not in chosen.precisions:
        raise RecipeError(
            f"--precision: {name} is written in {', '.join(chosen.precisions)}, found {precision}. Use --format onnx "
            "or openvino for it."
        )
    missing = [package for package in chosen.needs if find_spec(package) is None]
    if missing:
        raise RecipeError(f"--format {name}: needs {', '.join(missing)}. Run pip install 'hf_detr_ft[export]'.")
    return chosen
