"""Files of torch's own: TorchScript, and programs of `torch.export`."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import Dim

from hf_detr_ft.errors import CheckpointError, first_line
from hf_detr_ft.export.network import Network, record
from hf_detr_ft.onnx import Description


@torch.no_grad()
def write_torchscript(network: Network, path: Path, description: Description, _: Any) -> None:
    """Writes a TorchScript file, its description among its extra files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that become constants, which `check_shapes` finds
        recorded = torch.jit.trace(network, record(network), check_trace=False)
        torch.jit.save(recorded, str(path), _extra_files=description.to_strings())


@torch.no_grad()
def write_program(network: Network, path: Path, description: Description, _: Any) -> None:
    """Writes a .pt2 file, its description among its extra files.

    Some of Transformers' detectors ask for a number in a way (`len` of a tensor, `int` of a size) that only torch's
    slower, strict recording goes along with.

    Raises:
        CheckpointError: `torch.export` stops.
    """
    inputs = record(network)
    shapes = tuple(dict.fromkeys(axes, Dim.DYNAMIC) for axes in network.axes())
    failures: list[Exception] = []
    for strict in (False, True):
        try:
            program = torch.export.export(network, inputs, dynamic_shapes=shapes, strict=strict)
            torch.export.save(program, str(path), extra_files=description.to_strings())
            return
        except Exception as error:  # whatever torch's recording stumbles over
            failures.append(error)
    raise CheckpointError(
        f"{path.name}: expected a {description.family} that torch.export can record for images of any size; it "
        f"stopped: {first_line(failures[-1])}. Use --format onnx, openvino or torchscript."
    ) from failures[-1]


def open_torchscript(path: Path) -> Callable[..., Sequence[np.ndarray]]:
    """The network in a file."""
    return _runner(torch.jit.load(str(path)))


def open_program(path: Path) -> Callable[..., Sequence[np.ndarray]]:
    """The network in a file."""
    return _runner(torch.export.load(str(path)).module())


def _runner(module: Any) -> Callable[..., Sequence[np.ndarray]]:
    @torch.inference_mode()
    def run(*inputs: np.ndarray) -> Sequence[np.ndarray]:
        return [output.numpy() for output in module(*map(torch.from_numpy, inputs))]

    return run
