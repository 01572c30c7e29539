"""Ten steps: the original's main.py as it is, and ours by `recipes/original.yaml`, without augmentation and dropout."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.original.original_file import read_original
from hf_detr_ft.model.original.tensor_names import tensor_names
from hf_detr_ft.runs.train import train
from tests.fixtures import as_flags, draw_split
from tests.parity.original_augment import RECIPE
from tests.parity.original_models import ARGUMENTS, Model, random_tensors

STEPS = 10
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EDGES = (64, 96)
"""Short side, and most of the long side, of images."""
PHOTO_SIZES = ((128, 160), (80, 64), (128, 128))
"""Heights and widths: halves and wholes, where torchvision and Pillow give the same pixels."""
CATEGORIES = [{"id": number, "name": f"class {number}"} for number in range(91)]
"""As many as the original's head has rows for COCO."""
DROPOUTS = ("dropout", "attention_dropout", "activation_dropout")
TESTED = Model("resnet18")
"""The one that the tests train."""
STEP_ANSWERS = Path(__file__).with_name("step_answers.json")
Tensors = dict[str, torch.Tensor]


def write_photos(root: Path) -> None:
    """Two images for each step, and one for validation, in COCO's folders."""
    (root / "annotations").mkdir()
    for split, count in (("train", 2 * STEPS), ("val", 1)):
        sizes = [PHOTO_SIZES[number % len(PHOTO_SIZES)] for number in range(count)]
        coco = draw_split(root / f"{split}2017", sizes, seed=count, categories=CATEGORIES[3:6])
        coco["categories"] = CATEGORIES
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(coco))


def write_start(path: Path, model: Model) -> Tensors:
    """Random weights, in a file as the original writes it."""
    tensors = random_tensors(model, classes=len(CATEGORIES))
    names = {category["id"]: category["name"] for category in CATEGORIES}
    torch.save({"model": tensors, "args": vars(model.arguments), "class_names": names}, path)
    return tensors


def original_arguments(model: Model) -> list[str]:
    """Those of main.py that make a model."""
    names = ("hidden_dim", "nheads", "enc_layers", "dec_layers", "dim_feedforward", "num_queries", "dropout")
    return [*as_flags({"backbone": model.backbone, **{name: ARGUMENTS[name] for name in names}})]


def run_original(checkout: Path, folder: Path, settings: Mapping[str, Any], *arguments: str) -> dict[str, Any]:
    """What the last evaluation of the original's main.py gave."""
    output = folder / "stats.json"
    script = Path(__file__).with_name("original_main.py")
    command = [sys.executable, str(script), str(checkout), json.dumps(settings), str(output), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{done.stdout[-2000:]}{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(output.read_text())
    return result


def train_original(checkout: Path, folder: Path, model: Model, fp64: bool) -> dict[str, torch.Tensor]:
    """Weights after an epoch of the original from `folder / "start.pth"`."""
    output = folder / "original"
    output.mkdir()
    paths = {"coco_path": folder, "resume": folder / "start.pth", "output_dir": output, "epochs": 1}
    arguments = [*original_arguments(model), *as_flags(paths)]
    run_original(checkout, folder, {"edges": EDGES, "sequential": True, "fp64": fp64}, *arguments)
    return read_original(output / "checkpoint.pth").tensors


def exact_inputs(_: Any, args: tuple, inputs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """Levels of 8 bits and quarters of a pixel, which fp32 had rounded, in fp64."""
    mean, deviation = (torch.tensor(value, dtype=torch.float64)[:, None, None] for value in (MEAN, DEVIATION))
    levels = ((inputs["pixel_values"].double() * deviation + mean) * 255).round() / 255
    pixels = (levels - mean) / deviation * inputs["pixel_mask"][:, None]
    labels = []
    for target in inputs["labels"]:
        quarters = target["size"].flip(0).repeat(2) * 4
        labels.append({**target, "boxes": (target["boxes"].double() * quarters).round() / quarters})
    return args, {**inputs, "pixel_values": pixels, "labels": labels}


def train_ours(folder: Path, model: Model, fp64: bool) -> Tensors:
    """Weights after an epoch of ours from `folder / "start.pth"`, by the original's names."""
    built: list[Detector] = []

    def build(*args: Any) -> Detector:
        built.append(build_model(*args))
        if fp64:
            built[0].double().register_forward_pre_hook(exact_inputs, with_kwargs=True)
        return built[0]

    settings = {
        "data.root": folder,
        "augment.preset": "none",
        "model.checkpoint": folder / "start.pth",
        "model.backbone": "null",
        "model.backbone_weights": "null",
        "model.config": json.dumps(dict.fromkeys(DROPOUTS, 0.0)),
        "model.shortest_edge": EDGES[0],
        "model.longest_edge": EDGES[1],
        "training.num_train_epochs": 1,
        "training.train_sampling_strategy": "sequential",
        "training.eval_strategy": "no",
        "training.save_strategy": "no",
        "training.output_dir": folder / "ours",
        "training.use_cpu": "true",
        "training.disable_tqdm": "true",
        "report.enabled": "false",
    }
    assert train(RECIPE, as_flags(settings), build) == 0
    state = built[0].state_dict()
    return {theirs: torch.cat([state[name] for name in own]) for theirs, own in tensor_names(model.architecture)}


def moves(after: Tensors, before: Tensors) -> Tensors:
    """How far each tensor was moved that the original trains."""
    trained = re.compile(r"backbone\..*layer[234].*(conv\d|downsample\.0)\.|(?!backbone)")
    return {name: after[name].double() - start.double() for name, start in before.items() if trained.match(name)}


def shown(moved: Tensors) -> dict[str, list[float]]:
    """Moves as they are kept: the norm of each tensor's, and some of its entries."""
    some = {name: value.flatten()[:: max(1, value.numel() // 6)][:6] for name, value in moved.items()}
    return {name: [value.norm().item(), *some[name].tolist()] for name, value in moved.items()}
