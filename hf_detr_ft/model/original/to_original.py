"""A folder of Transformers' DETR as a file of facebookresearch/detr, or of its detectron2 wrapper."""

from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from hf_detr_ft.errors import CheckpointError, RecipeError
from hf_detr_ft.model.checkpoint import Checkpoint, read_config
from hf_detr_ft.model.load import load_tensors
from hf_detr_ft.model.original.coco_names import COCO_IDS, THINGS
from hf_detr_ft.model.original.from_original import ARGUMENTS
from hf_detr_ft.model.original.original_file import CLASS_NAMES, CONSTANTS, wrapped, write_original
from hf_detr_ft.model.original.tensor_names import BLOCKS, CLASS_HEAD, Architecture, tensor_names

Form = Literal["original", "detectron2"]
NEVER = -1e4
"""Bias of a row that no class has: its probability is 0 in every precision."""
ROWS = 91
"""Rows of the class head, "no object" aside, that the original's main.py wants with its default, COCO."""
MOST_ROWS = 100_000


def write_as_original(source: str, path: Path, form: Form, num_classes: int | None = None) -> list[str]:
    """Writes a model as the original does.

    Args:
        source: a folder or Hub id of a DETR on a ResNet of timm.
        path: of the file.
        form: the original's, or that of its detectron2 wrapper.
        num_classes: rows of the class head without "no object", as the original's `num_classes`; None: 91, or as many
            as there are category ids. Where the model does not say its data set's ids, rows are its labels.

    Returns:
        What was taken to be so, a line each.

    Raises:
        CheckpointError: it cannot be loaded, or the original has no such model.
        RecipeError: `num_classes` does not fit.
    """
    checkpoint = Checkpoint(source)
    checkpoint.check_exists()
    config: Any = read_config(checkpoint)
    architecture = _architecture(checkpoint, config)
    tensors, has_class_head = _load(checkpoint, config, architecture)
    content: dict[str, Any] = {"args": _arguments(config, architecture)}
    notes = ["no class head, as in the source"]
    if has_class_head:
        rows, names = _rows(config, form, num_classes)
        notes = [f"class head: {len(rows)} rows and no object"]
        content |= {} if names is None else {CLASS_NAMES: names}
        tensors = {
            name: _spread(value, rows) if name.endswith(CLASS_HEAD) else value for name, value in tensors.items()
        }
    if form == "detectron2":
        constants = getattr(config, "detectron2_constants", None) or {}
        tensors = wrapped(tensors) | {name: torch.tensor(constants[name]) for name in CONSTANTS if name in constants}
    write_original(path, tensors, content)
    return notes


def _load(checkpoint: Checkpoint, config: Any, architecture: Architecture) -> tuple[dict[str, torch.Tensor], bool]:
    """All tensors by the original's names, and whether there is a class head among them.

    Raises:
        CheckpointError: they cannot be loaded, or some are missing.
    """
    name = "DetrForSegmentation" if architecture.masks else "DetrForObjectDetection"
    model, report = load_tensors(checkpoint, config, getattr(transformers, name))
    missing = [text for tensor, text in report.problems.items() if "class_labels_classifier" not in tensor]
    if missing:
        raise CheckpointError(f"{checkpoint}: expected all weights of {name}: {missing[0]}. Copy them again.")
    state, has_class_head = model.state_dict(), not report.problems
    return {
        theirs: torch.cat([state[part] for part in ours])
        for theirs, ours in tensor_names(architecture)
        if has_class_head or not theirs.endswith(CLASS_HEAD)
    }, has_class_head


def _architecture(checkpoint: Checkpoint, config: Any) -> Architecture:
    """The architecture of a model that the original has, too.

    Raises:
        CheckpointError: it has no such model.
    """
    backbone = getattr(config.backbone_config, "backbone", None) or config.backbone_config.model_type
    heads = (config.encoder_attention_heads, config.decoder_attention_heads)
    widths = (config.encoder_ffn_dim, config.decoder_ffn_dim)
    found = None
    if config.model_type != "detr":
        found = f"a model of the family {config.model_type}"
    elif backbone.partition(".")[0] not in BLOCKS:
        found = f"the backbone '{backbone}', where it has {', '.join(BLOCKS)}"
    elif heads[0] != heads[1] or widths[0] != widths[1] or config.activation_function != "relu":
        found = f"{heads} heads, feed-forward layers of {widths} and the activation {config.activation_function}"
    if found is not None:
        raise CheckpointError(
            f"{checkpoint}: expected a DETR as facebookresearch/detr builds it, found {found}. Only such models can be "
            "written for it."
        )
    return Architecture(
        backbone.partition(".")[0],
        config.encoder_layers,
        config.decoder_layers,
        config.position_embedding_type == "learned",
        "DetrForSegmentation" in (config.architectures or []),
    )


def _rows(config: Any, form: Form, num_classes: int | None) -> tuple[list[int | None], dict[int, str] | None]:
    """Label of each row of the original's class head, None where it has none, and class names by row.

    Names are given only where the rows are other ones than the labels, so that the way back finds the labels.
    """
    names = [config.id2label[label] for label in range(config.num_labels)]
    category_ids = getattr(config, "category_ids", None)
    if form == "detectron2":
        coco = names == list(THINGS)
        return (list(COCO_IDS), None) if coco else (list(range(len(names))), None)
    if category_ids is None:
        rows, ids = num_classes or len(names), list(range(len(names)))
    else:
        ids = [int(category_id) for category_id in category_ids]
        rows = num_classes or max(ROWS, max(ids) + 1)
    if max(ids) >= rows or rows > MOST_ROWS:
        raise RecipeError(
            f"--num-classes: expected more than the highest category id, {max(ids)}, and at most {MOST_ROWS}, found "
            f"{rows}. The original's class head has a row for every id: number the categories anew in the data."
        )
    labels: list[int | None] = [None] * rows
    for label, category_id in enumerate(ids):
        labels[category_id] = label
    return labels, dict(zip(ids, names, strict=True)) if category_ids is not None else None


def _spread(tensor: torch.Tensor, rows: list[int | None]) -> torch.Tensor:
    """Rows of a class head's weight or bias in another order, with rows that nothing is ever found as between them."""
    never = torch.full_like(tensor[0], NEVER if tensor.dim() == 1 else 0.0)
    return torch.stack([*(never if label is None else tensor[label] for label in rows), tensor[-1]])


def _arguments(config: Any, architecture: Architecture) -> dict[str, Any]:
    """The original's arguments that build the model."""
    return {
        "backbone": architecture.backbone,
        "dilation": bool(config.dilation),
        "position_embedding": "learned" if architecture.learned_positions else "sine",
        "enc_layers": config.encoder_layers,
        "dec_layers": config.decoder_layers,
        "dim_feedforward": config.encoder_ffn_dim,
        "hidden_dim": config.d_model,
        "nheads": config.encoder_attention_heads,
        "num_queries": config.num_queries,
        "pre_norm": False,
        "masks": architecture.masks,
        "aux_loss": True,
        **{theirs: getattr(config, name) for name, (theirs, _) in ARGUMENTS.items()},
    }
