"""ONNX files, run by ONNX Runtime, in fp32, fp16 and int8.

A network is recorded by running it (torch's TorchScript exporter): for Transformers' detectors that takes a second
where `torch.export` takes ten to a hundred, and gives graphs for images of any size where that one stops at RT-DETR's
and D-FINE's sizes. What a recording leaves out, numbers that became constants, is found by `check_shapes`.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from hf_detr_ft.errors import CheckpointError, first_line
from hf_detr_ft.export.network import OUTPUTS, Network, record
from hf_detr_ft.onnx import Description, OnnxDetector, pad

OPSET = 17
"""Version of ONNX's operators; `grid_sample` needs 16."""

Images = Callable[[], Iterator[np.ndarray]]
"""Gives prepared images `[3, h, w]` of the training split."""


@torch.no_grad()
def write_onnx(network: Network, path: Path, description: Description, images: Images) -> None:
    """Writes an ONNX file with the precision of its description."""
    import onnx

    inputs = record(network)
    with warnings.catch_warnings(), TemporaryDirectory() as folder, _native_output_dropped():
        warnings.simplefilter("ignore")  # of numbers that become constants, and of the exporter's age
        whole = Path(folder) / "whole.onnx"
        try:
            torch.onnx.export(
                network,
                inputs,
                str(whole),
                dynamo=False,
                input_names=list(network.inputs),
                output_names=list(OUTPUTS),
                dynamic_axes=dict(zip(network.inputs, network.axes(), strict=True)),
                opset_version=OPSET,
                # Else torch 2.15 folds D-FINE's batch norms into wrong weights; ONNX Runtime folds them itself.
                training=torch.onnx.TrainingMode.PRESERVE,
            )
        except Exception as error:  # of an operator that ONNX has not, or of the exporter's own
            raise CheckpointError(
                f"{path.name}: expected a {description.family} whose operators ONNX has; torch's exporter stopped: "
                f"{first_line(error)}. Use --format torchscript."
            ) from error
        rounded = round_file(whole, description, images)
        model = onnx.load(str(rounded))
    onnx.helper.set_model_props(model, description.to_strings())
    onnx.save(model, str(path))


def open_onnx(path: Path) -> Callable[..., Sequence[np.ndarray]]:
    """The network in a file."""
    return OnnxDetector(path).run


def round_file(path: Path, description: Description, images: Images) -> Path:
    """An ONNX file in the precision of its description, beside the one in fp32.

    Args:
        path: of the file in fp32.
        description: says the precision.
        images: calibrate int8.
    """
    if description.precision == "fp32":
        return path
    if description.precision == "fp16":
        return _to_fp16(path)
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folded, rounded = path.with_name("folded.onnx"), path.with_name("rounded.onnx")
    quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
    if description.precision == "int8-dynamic":
        quantize_dynamic(str(folded), str(rounded), op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
        return rounded
    quantize_static(
        str(folded),
        str(rounded),
        _Reader(images(), description.pixel_mask),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Relu", "Clip"],
        nodes_to_quantize=_convolutions(onnx.load(str(folded))),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return rounded


def _to_fp16(path: Path) -> Path:
    """Weights and sums in fp16; images, boxes and scores come and go in fp32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    rounded = path.with_name("rounded.onnx")
    onnx.save(convert_float_to_float16(onnx.load(str(path)), keep_io_types=True), str(rounded))
    return rounded


def _convolutions(model: Any) -> list[str]:
    """Names of the convolutions, and of the rectifiers behind them.

    A transformer whose boxes and scores are rounded to 8 bits finds nothing any more. A convolution without its
    rectifier is rounded over all that the rectifier cuts off: what is left of the steps loses 4 AP in a mobile network.
    """
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    convolved = {name for node in convolutions for name in node.output}
    rectifiers = [node for node in model.graph.node if node.op_type in ("Relu", "Clip") and node.input[0] in convolved]
    return [node.name for node in (*convolutions, *rectifiers)]


@contextmanager
def _native_output_dropped() -> Iterator[None]:
    """Keeps what torch's C++ prints from the terminal: where the exporter stops, thousands of lines of a graph."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


class _Reader:
    """Images one by one, as ONNX Runtime's calibration asks for them."""

    def __init__(self, images: Iterator[np.ndarray], with_mask: bool) -> None:
        self._batches = (pad([image]) for image in images)
        self._with_mask = with_mask

    def get_next(self) -> dict[str, Any] | None:
        """Inputs of the next image; None behind the last one."""
        batch = next(self._batches, None)
        if batch is None:
            return None
        return dict(zip(("pixel_values", "pixel_mask")[: 1 + self._with_mask], batch, strict=False))
