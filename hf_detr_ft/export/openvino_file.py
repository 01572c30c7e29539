"""OpenVINO's files, made of ONNX files, run by OpenVINO."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hf_detr_ft.export.network import OUTPUTS, Network
from hf_detr_ft.export.onnx_file import Images, write_onnx
from hf_detr_ft.onnx import Description

SECTION = "hf_detr_ft"
"""Section of the metadata (`rt_info`)."""


def write_openvino(network: Network, path: Path, description: Description, images: Images) -> None:
    """Writes an .xml file, and the weights beside it as .bin."""
    import openvino

    fp16 = description.precision == "fp16"
    with TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "model.onnx"
        whole = Description(**{**vars(description), "precision": "fp32"}) if fp16 else description
        write_onnx(network, onnx_file, whole, images)
        model = openvino.convert_model(str(onnx_file))
        for name, text in description.to_strings().items():
            model.set_rt_info(text, [SECTION, name])
        openvino.save_model(model, str(path), compress_to_fp16=fp16)


def open_openvino(path: Path) -> Callable[..., Sequence[np.ndarray]]:
    """The network in a file, which computes in fp32 what is not int8; OpenVINO would take bf16 where it can."""
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = {name for entry in compiled.inputs for name in entry.names}

    def run(pixel_values: np.ndarray, pixel_mask: np.ndarray | None = None) -> Sequence[np.ndarray]:
        given = {"pixel_values": pixel_values, "pixel_mask": pixel_mask}
        outputs = compiled({name: value for name, value in given.items() if name in names})
        return [np.array(outputs[name]) for name in OUTPUTS]

    return run
