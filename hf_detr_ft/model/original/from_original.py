"""A model of facebookresearch/detr as a folder of Transformers' DETR."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import DetrConfig, DetrForObjectDetection, DetrForSegmentation, DetrImageProcessor, PreTrainedModel

from hf_detr_ft.errors import CheckpointError, first_line
from hf_detr_ft.formatting import join_limited, printable
from hf_detr_ft.model.checkpoint import with_backbone_config
from hf_detr_ft.model.original.coco_names import COCO_IDS, NO_CLASS, coco_names
from hf_detr_ft.model.original.original_file import OriginalFile, read_original
from hf_detr_ft.model.original.tensor_names import (
    BLOCKS,
    CLASS_HEAD,
    Architecture,
    Names,
    find_architecture,
    tensor_names,
)

ARGUMENTS = {
    **dict.fromkeys(("attention_dropout", "activation_dropout", "dropout"), ("dropout", 0.1)),
    "eos_coefficient": ("eos_coef", 0.1),
    "class_cost": ("set_cost_class", 1.0),
    "bbox_cost": ("set_cost_bbox", 5.0),
    "giou_cost": ("set_cost_giou", 2.0),
    "bbox_loss_coefficient": ("bbox_loss_coef", 5.0),
    "giou_loss_coefficient": ("giou_loss_coef", 2.0),
    "mask_loss_coefficient": ("mask_loss_coef", 1.0),
    "dice_loss_coefficient": ("dice_loss_coef", 1.0),
}
"""Fields of the config, the original's arguments and their defaults."""
HEADS = 8
"""Attention heads where no argument says how many, as in all models that the original published."""
NO_MODEL = "Give the .pth of a DETR as facebookresearch/detr builds it."


@dataclass
class Converted:
    """A model of the original in Transformers' classes.

    Attributes:
        model: in fp32; its class head is that of the file, or new where the file has none.
        processor: for the images that it takes.
        has_class_head: the file has a class head.
        notes: what was taken to be so, or left out, a line each.
    """

    model: PreTrainedModel
    processor: Any
    has_class_head: bool
    notes: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Writes config, weights and processor; a class head that the file has not is left out there, too."""
        weights = self.model.state_dict()
        if not self.has_class_head:
            weights = {name: value for name, value in weights.items() if "class_labels_classifier" not in name}
        self.model.save_pretrained(folder, state_dict=weights)
        self.processor.save_pretrained(folder)


def convert_original(
    path: Path, *, masks: bool = True, dilation: bool | None = None, names: Mapping[int, str] | None = None
) -> Converted:
    """Reads a `.pth` of facebookresearch/detr, of its detectron2 wrapper, or one with another class head.

    Args:
        path: of the file.
        masks: keep the mask head of a panoptic model (`DetrForSegmentation`).
        dilation: the last stage of the backbone is dilated (DC5), which no tensor shows; None: as the file's arguments
            say, or else its name.
        names: of the classes by row of the class head, which is the category id; None: COCO's where the head has as
            many rows.

    Raises:
        CheckpointError: the file cannot be read, or is of another model.
    """
    file, notes = read_original(path), list[str]()
    architecture, others = find_architecture(file.tensors)
    if others:
        raise CheckpointError(f"{path}: expected one of the backbones {', '.join(BLOCKS)}, found {others}. {NO_MODEL}")
    prefix = "detr." if architecture.masks else ""
    has_class_head = any(prefix + name in file.tensors for name in CLASS_HEAD)
    _require_tensors(file, tensor_names(architecture), has_class_head)
    inside = {name.removeprefix("detr."): tensor for name, tensor in file.tensors.items()}
    config = _config(file, architecture, inside, _is_dilated(file, dilation, notes))
    if has_class_head:
        chosen = _name_classes(file, config, [len(inside[name]) for name in CLASS_HEAD], names, notes)
        inside |= {name: inside[name][chosen] for name in CLASS_HEAD}
    else:
        notes.append("class head: none; it can be fine-tuned from; pipeline() wants one")
    if architecture.masks and not masks:
        architecture, prefix = replace(architecture, masks=False), ""
        notes.append("mask head: left out")
    model = _build(file, config, architecture.masks)
    for theirs, ours in tensor_names(architecture):
        name = theirs.removeprefix(prefix)
        if name in inside:
            _fill(file, model.state_dict(), theirs, ours, inside[name])
    return Converted(model, _processor(file), has_class_head, notes)


def _require_tensors(file: OriginalFile, table: Names, has_class_head: bool) -> None:
    """Refuses a file that lacks tensors, or has some that a DETR has not."""
    expected = [name for name, _ in table if has_class_head or not name.endswith(CLASS_HEAD)]
    missing = [name for name in expected if name not in file.tensors]
    unexpected = [name for name in file.tensors if name not in expected]
    if any(name.endswith("transformer.encoder.norm.weight") for name in unexpected):
        raise CheckpointError(
            f"{file.path}: 'transformer.encoder.norm.weight': expected layers that norm after attention, found a model "
            "that was trained with --pre_norm, which Transformers' DETR has not. Table Transformer has: give its "
            "checkpoint of the Hub."
        )
    if missing or unexpected:
        found = [f"{len(missing)} missing, such as {join_limited(missing, 3)}"] if missing else []
        found += [f"{len(unexpected)} others, such as {join_limited(unexpected, 3)}"] if unexpected else []
        raise CheckpointError(
            f"{file.path}: expected {len(expected)} tensors of a DETR, found {printable('; '.join(found))}. {NO_MODEL}"
        )


def _is_dilated(file: OriginalFile, asked: bool | None, notes: list[str]) -> bool:
    """True of a DC5 model, as far as can be told."""
    if asked is not None:
        return asked
    dilated: bool = file.argument("dilation", "dc5" in Path(file.path).name.lower())
    if file.arguments is None:
        said = "its name says dc5" if dilated else "its name does not say dc5, and it holds no arguments"
        notes.append(f"dilation: {str(dilated).lower()}, since {said}")
    return dilated


def _config(file: OriginalFile, architecture: Architecture, tensors: Mapping[str, torch.Tensor], dilated: bool) -> Any:
    """A config as the shapes of the detector's tensors and the training's arguments say."""
    queries, heads = tensors["query_embed.weight"], file.argument("nheads", HEADS)
    layers = {"encoder": architecture.encoder_layers, "decoder": architecture.decoder_layers}
    if queries.dim() != 2 or heads < 1 or queries.shape[1] % heads or not all(layers.values()):
        raise CheckpointError(
            f"{file.path}: 'query_embed.weight': expected a table of queries whose width the {heads} heads divide, "
            f"and layers, found the shape {tuple(queries.shape)} and {layers['encoder']} + {layers['decoder']} "
            f"layers. {NO_MODEL}"
        )
    values = {name: file.argument(theirs, default) for name, (theirs, default) in ARGUMENTS.items()}
    settings: dict[str, Any] = {
        "num_queries": queries.shape[0],
        "d_model": queries.shape[1],
        "position_embedding_type": "learned" if architecture.learned_positions else "sine",
        "dilation": dilated,
        "backbone": architecture.backbone,
        "use_timm_backbone": True,
        **{name: int(value) if float(value).is_integer() else value for name, value in values.items()},
        **{f"{part}_layers": count for part, count in layers.items()},
        **{f"{part}_attention_heads": heads for part in layers},
        **{f"{part}_ffn_dim": len(tensors[f"transformer.{part}.layers.0.linear1.bias"]) for part in layers},
    }
    if file.constants:
        settings["detectron2_constants"] = {name: value.tolist() for name, value in file.constants.items()}
    try:
        return DetrConfig(**with_backbone_config(settings))
    except Exception as error:  # of its strict fields
        raise CheckpointError(
            f"{file.path}: args: expected values that transformers.DetrConfig takes, found others: "
            f"{printable(first_line(error))}. Remove 'args' from the file."
        ) from error


def _build(file: OriginalFile, config: Any, masks: bool) -> PreTrainedModel:
    """A model with random weights."""
    try:
        return (DetrForSegmentation if masks else DetrForObjectDetection)(config)
    except Exception as error:  # a mask head wants a width that is a multiple of 8, …
        raise CheckpointError(
            f"{file.path}: expected shapes that make a DETR, found others: {printable(first_line(error))}. {NO_MODEL}"
        ) from error


def _name_classes(
    file: OriginalFile, config: Any, lengths: list[int], names: Mapping[int, str] | None, notes: list[str]
) -> list[int]:
    """Gives the config its class names, and returns the rows of the class head that are kept, "no object" last."""
    rows = lengths[0] - 1
    if lengths != [rows + 1] * 2 or rows < 1:
        raise CheckpointError(
            f"{file.path}: 'class_embed': expected a weight and a bias of two rows or more, found {lengths}. {NO_MODEL}"
        )
    labels = list(range(rows))
    if file.class_names is not None and names is None:
        labels, names = sorted(file.class_names), file.class_names
        config.category_ids = labels
    elif names is None:
        names = coco_names(rows)
        if file.is_detectron2 and rows == len(COCO_IDS):
            config.category_ids = COCO_IDS
        if names is not None:
            notes.append(f"class names: COCO's, since the class head has {rows} rows; --categories-from gives others")
    highest = max(names or [0])
    if highest >= rows:
        raise CheckpointError(
            f"{file.path}: 'class_embed.weight': expected a row for each category id up to {highest} and one for no "
            f"object, found {rows + 1} rows. Give categories whose ids begin at 0, as they were in its training."
        )
    unnamed = (lambda label: f"LABEL_{label}") if names is None else (lambda label: NO_CLASS)
    config.id2label = {place: (names or {}).get(label, unnamed(label)) for place, label in enumerate(labels)}
    config.label2id = {name: place for place, name in config.id2label.items()}
    return [*labels, rows]


def _fill(
    file: OriginalFile, places: Mapping[str, torch.Tensor], theirs: str, ours: Sequence[str], tensor: torch.Tensor
) -> None:
    """Puts a tensor where it belongs in a model, in equal parts where it is several there."""
    wanted = [sum(len(places[name]) for name in ours), *places[ours[0]].shape[1:]]
    if list(tensor.shape) != wanted:
        raise CheckpointError(
            f"{file.path}: '{theirs}': expected the shape {tuple(wanted)}, found {tuple(tensor.shape)}. {NO_MODEL}"
        )
    for name, part in zip(ours, tensor.chunk(len(ours)), strict=True):
        places[name].copy_(part)


def _processor(file: OriginalFile) -> Any:
    """The processor of images, with the wrapper's mean and deviation where the file has them.

    Raises:
        CheckpointError: they are of images whose channels are blue, green, red.
    """
    names = {"pixel_mean": "image_mean", "pixel_std": "image_std"}
    given: dict[str, Any] = {own: file.constants[name] for name, own in names.items() if name in file.constants}
    given = {own: [round(value / 255, 6) for value in values.flatten().tolist()] for own, values in given.items()}
    mean = given.get("image_mean", [0.485, 0.456, 0.406])
    if mean[0] < mean[-1]:
        raise CheckpointError(
            f"{file.path}: 'pixel_mean': expected that of images in red, green, blue, as the wrapper's own, "
            f"found {mean}, divided by 255, which is of blue, green, red. Train it with INPUT.FORMAT RGB."
        )
    return DetrImageProcessor(**given)
