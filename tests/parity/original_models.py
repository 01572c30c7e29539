"""Whole models: random weights in the original's format, run by the original, and by ours once converted."""

import tempfile
import zlib
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import DetrConfig, DetrForObjectDetection, DetrForSegmentation, DetrImageProcessor

from hf_detr_ft.model import detector
from hf_detr_ft.model.original.from_original import convert_original
from hf_detr_ft.model.original.tensor_names import Architecture, tensor_names
from tests.parity.cases import fingerprint
from tests.parity.originals import Load

ARGUMENTS = {
    **{"hidden_dim": 128, "nheads": 8, "enc_layers": 2, "dec_layers": 2, "dim_feedforward": 64, "num_queries": 10},
    **{"dropout": 0.0, "pre_norm": False, "position_embedding": "sine", "aux_loss": True, "eos_coef": 0.1},
    **{"set_cost_class": 1.0, "set_cost_bbox": 5.0, "set_cost_giou": 2.0, "bbox_loss_coef": 5.0, "giou_loss_coef": 2.0},
    **{"mask_loss_coef": 1.0, "dice_loss_coef": 1.0, "lr_backbone": 1e-5, "frozen_weights": None, "device": "cpu"},
    "dataset_file": "voc",
}
"""The original's, for a small transformer; it gives data of that name 20 classes."""
Answers = dict[str, torch.Tensor]
CLASSES = 20
SIZES = ((96, 128), (128, 64))
"""Heights and widths of two images, padded to 128 x 128."""
SHOWN = (
    *("class_embed.weight", "bbox_embed.layers.2.weight", "query_embed.weight", "input_proj.weight"),
    *("transformer.encoder.layers.0.self_attn.in_proj_weight", "transformer.decoder.layers.1.norm3.weight"),
    *("transformer.decoder.layers.1.multihead_attn.in_proj_weight", "backbone.0.body.layer2.0.conv1.weight"),
    *("backbone.0.body.layer4.0.conv2.weight", "bbox_attention.q_linear.weight", "mask_head.lay3.weight"),
)
"""Tensors whose gradients are kept among the answers; the comparison beside the original is over all of them."""


KINDS = {
    "logits": ("logits",),
    "boxes": ("boxes",),
    "masks": ("masks",),
    "losses and their parts": ("loss", "class_error", "cardinality_error"),
    "gradients": ("d ",),
    "scores of detections": ("scores",),
    "boxes of detections": ("detections", "labels"),
}
"""Columns of the table, and beginnings of the names of answers."""
MODEL_ANSWERS = Path(__file__).with_name("model_answers.json")


@dataclass(frozen=True)
class Model:
    """One of the original's models."""

    backbone: str
    dilation: bool = False
    masks: bool = False

    @property
    def architecture(self) -> Architecture:
        """Its parts."""
        layers = (ARGUMENTS["enc_layers"], ARGUMENTS["dec_layers"])
        return Architecture(self.backbone, *layers, masks=self.masks)  # type: ignore[arg-type]

    @property
    def arguments(self) -> Namespace:
        """The original's, as its checkpoints hold them."""
        return Namespace(backbone=self.backbone, dilation=self.dilation, masks=self.masks, **ARGUMENTS)


MODELS = {
    "R50": Model("resnet50"),
    "R50-DC5": Model("resnet50", dilation=True),
    "R101": Model("resnet101"),
    "R50 panoptic": Model("resnet50", masks=True),
}


def random_tensors(model: Model, seed: int = 0, classes: int = CLASSES) -> dict[str, torch.Tensor]:
    """Weights by the original's names, the same on every machine, of a size that leaves outputs of a few units."""
    settings = {"encoder_layers": ARGUMENTS["enc_layers"], "decoder_layers": ARGUMENTS["dec_layers"]}
    settings |= {f"{part}_ffn_dim": ARGUMENTS["dim_feedforward"] for part in ("encoder", "decoder")}
    backbone = {"model_type": "timm_backbone", "backbone": model.backbone, "out_indices": [1, 2, 3, 4]}
    backbone |= {"features_only": True, "use_pretrained_backbone": False}
    queries, width = ARGUMENTS["num_queries"], ARGUMENTS["hidden_dim"]
    config: Any = DetrConfig(
        backbone_config=backbone, num_labels=classes, num_queries=queries, d_model=width, **settings
    )
    with torch.device("meta"):
        shapes = (DetrForSegmentation if model.masks else DetrForObjectDetection)(config).state_dict()
    numbers = np.random.RandomState(seed).standard_normal(999_983).astype(np.float32)  # a prime, so that none repeat
    tensors = {}
    for name, ours in tensor_names(model.architecture):
        shape = (sum(shapes[each].shape[0] for each in ours), *shapes[ours[0]].shape[1:])
        count, place = int(np.prod(shape)), zlib.crc32(name.encode())  # so that no two can be confused
        drawn = np.take(numbers, np.arange(place, place + count), mode="wrap").reshape(shape)
        tensors[name] = torch.from_numpy(_sized(name, drawn))
    return tensors


def _sized(name: str, drawn: np.ndarray) -> np.ndarray:
    """Random numbers with the size that a tensor of this name has."""
    if name.endswith("running_var"):
        return 1 + 0.2 * np.abs(drawn)
    if drawn.ndim == 1:
        is_scale = name.endswith("weight")
        in_block = ".bn3." in name or ".bn2." in name
        return (0.4 if in_block and is_scale else float(is_scale)) + 0.1 * drawn
    return drawn if "query_embed" in name else drawn * np.float32(1.2 / np.sqrt(np.prod(drawn.shape[1:])))


def random_batch(dtype: torch.dtype | None = None) -> tuple[torch.Tensor, torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Images `[2, 3, 128, 128]`, their mask (1 on the image), and labels."""
    draw = np.random.RandomState(1)
    dtype = dtype or torch.get_default_dtype()
    pixels, mask = torch.zeros(2, 3, 128, 128, dtype=dtype), torch.zeros(2, 128, 128, dtype=torch.long)
    labels = []
    for image, ((height, width), count) in enumerate(zip(SIZES, (3, 1), strict=True)):
        pixels[image, :, :height, :width] = torch.from_numpy(draw.standard_normal((3, height, width))).to(dtype)
        mask[image, :height, :width] = 1
        boxes = np.concatenate([draw.uniform(0.2, 0.8, (count, 2)), draw.uniform(0.05, 0.5, (count, 2))], axis=1)
        classes = torch.from_numpy(draw.randint(0, CLASSES, count))
        labels.append({"class_labels": classes, "boxes": torch.from_numpy(boxes).to(dtype)})
    return pixels, mask, labels


@contextmanager
def in_fp64() -> Iterator[None]:
    """Lets the original, which asks for fp32 by name here and there, compute in fp64."""
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(torch, "float32", torch.float64):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def run_original(load: Load, model: Model, tensors: Mapping[str, torch.Tensor], fp64: bool = False) -> Answers:
    """Answers of the original."""
    with in_fp64() if fp64 else nullcontext():
        return _run_original(load, model, tensors)


def _run_original(load: Load, model: Model, tensors: Mapping[str, torch.Tensor]) -> Answers:
    load("models.backbone").is_main_process = lambda: False  # type: ignore[attr-defined]  # else it downloads weights
    network, criterion, postprocessors = load("models.detr").build(model.arguments)
    network.load_state_dict(tensors)
    pixels, mask, labels = random_batch()
    outputs = network(load("util.misc").NestedTensor(pixels, mask == 0))
    answers = {"logits": outputs["pred_logits"], "boxes": outputs["pred_boxes"]}
    parts = {}
    if model.masks:
        answers["masks"] = outputs["pred_masks"]
        loss = _weigh(outputs["pred_masks"])
    else:
        parts = criterion(outputs, [{"labels": label["class_labels"], "boxes": label["boxes"]} for label in labels])
        loss = sum(parts[name] * weight for name, weight in criterion.weight_dict.items())
    loss.backward()
    found = postprocessors["bbox"](outputs, torch.tensor([(200, 300), (400, 200)]))
    answers |= {name: torch.stack([image[name] for image in found]) for name in ("scores", "labels")}
    answers["detections"] = torch.stack([image["boxes"] for image in found])
    gradients = {f"d {name}": each.grad for name, each in network.named_parameters() if each.grad is not None}
    return {name: value.detach() for name, value in {**answers, "loss": loss, **parts, **gradients}.items()}


def run_converted(model: Model, tensors: Mapping[str, torch.Tensor], fp64: bool = False) -> Answers:
    """Answers of ours, from a file as the original writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth"
        torch.save({"model": dict(tensors), "args": model.arguments, "epoch": 0}, path)
        network: Any = convert_original(path).model
    dtype = torch.float64 if fp64 else torch.float32
    pixels, mask, labels = random_batch(dtype)
    parts = {}
    if model.masks:
        outputs = network.to(dtype).train()(pixels, pixel_mask=mask)
        answers = {"masks": outputs.pred_masks}
        loss = _weigh(outputs.pred_masks)
    else:
        with torch.device("meta"):  # draws no weights
            stock, network = network, detector.DetrForObjectDetection(network.config)
        network.load_state_dict(stock.state_dict(), assign=True)
        network.requires_grad_()
        outputs = network.to(dtype).train()(pixels, mask, labels)
        answers, parts, loss = {}, outputs.loss_dict, outputs.loss
    loss.backward()
    answers |= {"logits": outputs.logits, "boxes": outputs.pred_boxes}
    found = DetrImageProcessor().post_process_object_detection(outputs, 0.0, [(200, 300), (400, 200)])
    answers |= {name: torch.stack([image[name] for image in found]) for name in ("scores", "labels")}
    answers["detections"] = torch.stack([image["boxes"] for image in found])
    own = dict(network.named_parameters())
    gradients = {
        f"d {name}": torch.cat([own[each].grad for each in ours])
        for name, ours in tensor_names(model.architecture)
        if ours[0] in own and own[ours[0]].grad is not None
    }
    return {name: value.detach() for name, value in {**answers, "loss": loss, **parts, **gradients}.items()}


def _weigh(masks: torch.Tensor) -> torch.Tensor:
    """Random weights times all masks, summed, whose gradient reaches every tensor that masks depend on."""
    weights = np.random.RandomState(2).standard_normal(masks.shape)
    return (masks * torch.from_numpy(weights).to(masks.dtype)).sum() / masks.numel() ** 0.5


def shown(answers: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
    """Answers as they are kept: losses, boxes and some logits as they are, random sums of what is large."""
    kept = {}
    for name, value in answers.items():
        if name.startswith("d "):
            if name.removeprefix("d ").removeprefix("detr.") in SHOWN:
                kept[name] = fingerprint(value)
        elif name == "masks":
            kept[name] = fingerprint(value / value.numel() ** 0.5)
        else:
            some = value.flatten()[:: max(1, value.numel() // 100)]
            kept[name] = [float(f"{number:.8g}") for number in some.tolist()]
    return kept


def model_differences(mine: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The largest difference of each kind: relative for losses above 1 and for detections, which are in pixels.

    Those of gradients are relative to the largest entry of a tensor, or to a hundredth of the largest of all where it
    has less: what is zero but for rounding is nobody's direction.
    """
    largest = max((float(value.abs().max()) for name, value in theirs.items() if name.startswith("d ")), default=1.0)
    found = {}
    for kind, beginnings in KINDS.items():
        for name in (name for name in theirs if name.startswith(beginnings)):
            if name not in mine and theirs[name].abs().max() == 0:
                continue
            size = float(theirs[name].abs().max())
            unit = max(size, 1e-2 * largest) if kind == "gradients" else max(size, 1.0)
            unit = 1.0 if kind in ("logits", "boxes", "masks") else unit
            difference = float((mine[name].double() - theirs[name].double()).abs().max()) / unit
            found[kind] = max(found.get(kind, 0.0), difference)
    return found
