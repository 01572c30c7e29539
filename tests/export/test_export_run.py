import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from transformers import pipeline

import hf_detr_ft
from hf_detr_ft.cli import main
from hf_detr_ft.errors import CheckpointError, RecipeError
from hf_detr_ft.export.formats import FORMATS, require_format
from hf_detr_ft.export.measure import check_shapes
from hf_detr_ft.export.network import Network, describe
from hf_detr_ft.export.onnx_file import round_file, write_onnx
from hf_detr_ft.inference.detect import load_detector, prepare
from hf_detr_ft.inference.image_detector import Detector
from hf_detr_ft.onnx import Description, OnnxDetector, pad
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.training.evaluate_model import evaluate_model
from tests.families import write_checkpoint
from tests.fixtures import as_flags, plain_image, write_coco_folder, write_run_with_spread_weights

RELATIVE = 1e-4
"""Distance of a box's side that is allowed, of the image's side."""
WITHOUT_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "transformers", "datasets", "scipy", "pycocotools", "yaml"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
from hf_detr_ft.onnx import OnnxDetector

found = OnnxDetector(sys.argv[1], threads=1)(sys.argv[2], threshold=0.1)
print([found["boxes"].tolist(), found["scores"].tolist(), found["names"]])
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run with an ONNX file, written by the command, and the flags of its data."""
    root = tmp_path_factory.mktemp("exported")
    run = write_run_with_spread_weights(root / "run")
    flags = as_flags({"data.root": write_coco_folder(root / "data"), "training.use_cpu": "true"})
    assert main(["export", str(run), *flags]) == 0
    return run, flags


def test_the_command_writes_a_file_and_what_was_measured(exported: tuple[Path, list[str]]):
    run, _ = exported
    (measured,) = RunFolder(run).read_exports()
    assert (measured["files"], measured["format"], measured["precision"]) == (["model.onnx"], "onnx", "fp32")
    assert measured["ap"] == pytest.approx(measured["ap_pytorch"], abs=1e-4)
    assert measured["box_difference_rel"] < RELATIVE and measured["images_per_second"] > 0
    description = OnnxDetector(run / "export" / "model.onnx").description
    assert description.names == ["mug", "cone"] and description.category_ids == [3, 7] and description.pixel_mask
    nodes = onnx.load(str(run / "export" / "model.onnx")).graph.node
    backbone = [node for node in nodes if node.op_type == "Conv" and "backbone" in node.name]
    assert len(backbone) > 5 and all(len(node.input) == 3 for node in backbone), "norms are in weights and biases"


@pytest.mark.parametrize("size", [(90, 150), (150, 90), (96, 128), (40, 40), (300, 500)])
def test_the_file_gives_the_boxes_of_the_model_without_torch_s_preprocessing(
    exported: tuple[Path, list[str]], size: tuple[int, int]
):
    run, _ = exported
    image = plain_image(*size, seed=1)
    ours = OnnxDetector(run / "export" / "model.onnx", threads=1)(image, threshold=0.1)
    theirs = Detector.from_pretrained(run, device="cpu")(image, threshold=0.1)
    assert len(theirs["boxes"]) and ours["names"] == theirs["names"]
    assert np.abs(ours["boxes"] - theirs["boxes"]).max() < RELATIVE * max(size)


def test_a_padded_batch_of_four_gives_what_torch_gives_and_what_each_image_gives_alone(
    exported: tuple[Path, list[str]],
):
    run, _ = exported
    model, processor = load_detector(str(run))
    detector = OnnxDetector(run / "export" / "model.onnx", threads=1)
    images = [plain_image(height, width, 2) for height, width in ((90, 150), (150, 90), (96, 96), (70, 100))]
    pixel_values, pixel_mask = pad([detector.description.prepare(image) for image in images])
    assert not pixel_mask.all()
    with torch.inference_mode():
        wanted = model(pixel_values=torch.from_numpy(pixel_values), pixel_mask=torch.from_numpy(pixel_mask))
    logits, boxes = detector.run(pixel_values, pixel_mask)
    assert np.abs(logits - wanted.logits.numpy()).max() < 1e-3
    assert np.abs(boxes - wanted.pred_boxes.numpy()).max() < 1e-4
    for place in range(4):
        alone = detector.run(pixel_values[place : place + 1], pixel_mask[place : place + 1])[1]
        assert np.abs(boxes[place] - alone[0]).max() < 1e-4
    ones = [prepare(image, processor).shape for image in images]
    assert [tuple(shape) for shape in ones] == [detector.description.prepare(image).shape for image in images]


def test_batches_of_one_shape_are_those_images_alone(exported: tuple[Path, list[str]]):
    detector = OnnxDetector(exported[0] / "export" / "model.onnx", threads=1)
    images = [plain_image(96, 128, seed) for seed in range(3)] + [plain_image(128, 96, 3)]
    for one, of_four in zip(detector(images, 0.1), detector(images, 0.1, batch_size=4), strict=True):
        assert np.abs(one["boxes"] - of_four["boxes"]).max() < RELATIVE


def test_the_code_on_the_page_runs(
    exported: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "balloon").symlink_to(exported[0])
    plain_image(90, 150, 0).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("threshold=0.7", "threshold=0.1"), "export.md", "exec"), {})
    assert "cone" in capsys.readouterr().out


def test_the_runner_needs_neither_torch_nor_transformers(exported: tuple[Path, list[str]], tmp_path: Path):
    path = tmp_path / "photo.png"
    plain_image(90, 150, 1).save(path)
    file = exported[0] / "export" / "model.onnx"
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(file), str(path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    boxes, scores, names = json.loads(run.stdout.replace("'", '"'))
    ours = OnnxDetector(file, threads=1)(str(path), threshold=0.1)
    assert np.abs(np.array(boxes) - ours["boxes"]).max() < 1e-3 and len(scores) == len(names) == len(boxes)


def test_int8_is_calibrated_and_rounds_rectifiers_with_their_convolutions(
    exported: tuple[Path, list[str]], tmp_path: Path
):
    run, flags = exported
    assert main(["export", str(run), "--precision", "int8", "--tolerance", "1", "--output", str(tmp_path), *flags]) == 0
    (measured,) = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert measured["files"] == ["model_int8.onnx"] and 0 <= measured["ap"] <= 1 and measured["tolerance"] == 1
    graph = onnx.load(str(tmp_path / "model_int8.onnx")).graph
    maker = {name: node.op_type for node in graph.node for name in node.output}
    of_bytes = [node.op_type for node in graph.node if maker.get(node.input[0]) == "DequantizeLinear"]
    assert "Conv" in of_bytes and "Relu" not in of_bytes


@pytest.mark.parametrize(("precision", "apart"), [("fp16", 0.01), ("int8-dynamic", 0.3)])
def test_other_precisions_have_nearly_the_same_boxes(
    exported: tuple[Path, list[str]], tmp_path: Path, precision: str, apart: float
):
    detector = OnnxDetector(exported[0] / "export" / "model.onnx", threads=1)
    whole = Path(shutil.copy(exported[0] / "export" / "model.onnx", tmp_path))
    path = round_file(whole, replace(detector.description, precision=precision), lambda: iter(()))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pixel_values, pixel_mask = pad([detector.description.prepare(plain_image(96, 128, 1))])
    (boxes,) = session.run(["pred_boxes"], {"pixel_values": pixel_values, "pixel_mask": pixel_mask})
    difference = np.abs(boxes - detector.run(pixel_values, pixel_mask)[1]).max()
    assert 0 < difference < apart and path.stat().st_size < whole.stat().st_size


def test_a_file_that_loses_ap_is_refused_unless_forced(
    exported: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    from hf_detr_ft.export import export_run as module

    run, flags = exported
    measure = module.measure

    def worse(*given):
        return [replace(one, ap=ap) for one, ap in zip(measure(*given), (0.8, 0.7), strict=True)]

    monkeypatch.setattr(module, "measure", worse)
    arguments = ["export", str(run), "--format", "torchscript", "--output", str(tmp_path / "out"), *flags]
    assert main(arguments) == 1
    assert "PyTorch has 0.8000 and the file 0.7000; it is not kept" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))
    assert main([*arguments, "--force"]) == 0
    assert (tmp_path / "out" / "model.torchscript").is_file()


PARITY = pytest.mark.skipif(
    torch.__version__.startswith("2.11."), reason="torch 2.11 records an average pool for sizes of one parity"
)


@pytest.mark.parametrize(
    ("family", "kind"),
    [("rt_detr_v2", "onnx"), ("d_fine", "torchscript"), pytest.param("detr", "exported-program", marks=PARITY)],
)
def test_other_families_and_formats_keep_their_boxes_on_images_of_any_size(family: str, kind: str, tmp_path: Path):
    model, processor = load_detector(str(write_checkpoint(tmp_path / "run", family)))
    network = Network(model)
    with torch.no_grad():
        for module in model.modules():  # as training leaves them
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2)
    chosen, path = FORMATS[kind], tmp_path / f"model{FORMATS[kind].suffix}"
    chosen.write(network, path, describe(model, processor, "run", "fp32"), lambda: iter(()))
    run = chosen.open(path)
    check_shapes(run, network, "model")
    images = network.example(1, network.least * 2 + 1, network.least + 3)
    with torch.inference_mode():
        wanted = [output.numpy() for output in network(*images)]
    found = run(*(part.numpy() for part in images))
    assert [output.shape for output in found] == [output.shape for output in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.sort(ours, axis=1), np.sort(theirs, axis=1), atol=1e-3)


def test_an_operator_that_onnx_has_not_is_said_in_few_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    model, processor = load_detector(str(write_checkpoint(tmp_path / "run", "rf_detr")))
    capfd.readouterr()
    with pytest.raises(CheckpointError, match="stopped: .*upsample_bicubic2d_aa.* Use --format torchscript"):
        write_onnx(Network(model), tmp_path / "m.onnx", describe(model, processor, "run", "fp32"), lambda: iter(()))
    assert "graph" not in capfd.readouterr().out


def test_the_balloon_photos_have_the_same_boxes_and_ap_everywhere(balloon: Path, tmp_path: Path):
    run = Path(shutil.copytree(Path(hf_detr_ft.__file__).with_name("tiny_detr"), tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    names = {**config["id2label"], "4": "balloon"}
    texts = {"id2label": names, "label2id": {name: int(label) for label, name in names.items()}, "category_ids": None}
    (run / "config.json").write_text(json.dumps({**config, **texts}))
    split = {"data.root": balloon, "data.val_annotations": "annotations/custom_val.json", "data.val_images": "val2017"}
    flags = as_flags({**split, "training.use_cpu": "true", "training.bf16": "false"})
    for kind in ("onnx", "openvino"):
        assert main(["export", str(run), "--format", kind, *flags]) == 0
    ap = evaluate_model(str(run), load_recipe(None, flags)).result.metrics["map"]
    assert ap > 0
    for measured in RunFolder(run).read_exports():
        assert measured["ap"] == pytest.approx(ap, abs=1e-4) and measured["ap_pytorch"] == pytest.approx(ap, abs=1e-4)
        assert measured["box_difference_rel"] < RELATIVE and measured["images"] == 13
    photos = sorted((balloon / "val2017").iterdir())[:3]
    ours = OnnxDetector(run / "export" / "model.onnx", threads=1)(photos, threshold=0.1)
    theirs = Detector.from_pretrained(run, device="cpu")(photos, threshold=0.1)
    stock = pipeline("object-detection", str(run), dtype="float32", device="cpu")
    for photo, one, other in zip(photos, ours, theirs, strict=True):
        wanted = sorted(stock(str(photo), threshold=0.1), key=lambda entry: -entry["score"])
        cut = np.array([[*entry["box"].values()] for entry in wanted])  # to whole pixels
        near = RELATIVE * max(Image.open(photo).size)
        assert len(cut) and one["names"] == other["names"] and np.abs(one["boxes"] - other["boxes"]).max() < near
        assert np.abs(one["boxes"] - cut).max() < 1 + near


def test_a_network_whose_numbers_were_frozen_is_refused(spread_run: Path):
    network = Network(load_detector(str(spread_run))[0])

    def blind(pixel_values: np.ndarray, pixel_mask: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [
                part.numpy()
                for part in network(torch.from_numpy(pixel_values), torch.ones_like(torch.from_numpy(pixel_mask)))
            ]

    with pytest.raises(CheckpointError, match="queries differ. This family cannot be exported"):
        check_shapes(blind, network, "model.onnx")


def test_what_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(RecipeError, match="torchscript is written in fp32, found int8"):
        require_format("torchscript", "int8")
    with pytest.raises(CheckpointError, match="expected an ONNX file, found none"):
        OnnxDetector(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match="ONNX Runtime cannot open it"):
        OnnxDetector(tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="found no metadata"):
        Description.from_strings({}, "model.onnx")
