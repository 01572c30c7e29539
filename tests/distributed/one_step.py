"""One training step and two evaluations with the real trainer, in as many processes as Accelerate started."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from transformers import TrainerCallback

from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.recipe.sections import DataConfig
from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments
from hf_detr_ft.training.trainer import DetrTrainer
from hf_detr_ft.training.weight_average import save_trained
from tests.fixtures import tiny_detr_with_masks, tiny_processor, trainable_tiny_detr, write_coco_folder

DIVISIONS = ((2, 1), (1, 2))
"""Images per process and micro-batch, and micro-batches per step: four images on two processes."""


class KeepGradients(TrainerCallback):
    """Copies the gradients of the step, before the optimizer uses them."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, *args: object, **kwargs: object) -> None:
        """After accumulation and reduction; nothing is clipped."""
        self.gradients = {
            name: parameter.grad.clone()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }


def build(
    folder: Path,
    batch: int,
    accumulation: int,
    unreadable: bool = False,
    masks: bool = False,
    edges: Sequence[int] = (),
) -> DetrTrainer:
    """A trainer on images of one size with 1, 4, 0 and 2 objects, so that every process has another number of them.

    Args:
        folder: of the data, and of the run.
        batch: images of a micro-batch.
        accumulation: micro-batches of a step.
        unreadable: cut off the last photo of both splits when they have been read, and go on without them.
        masks: train a mask head.
        edges: sides in pixels to draw that of each step's images from.
    """
    state = PartialState()
    if state.is_main_process:
        sizes = [(96, 128), (128, 96), (96, 96), (64, 160), (96, 128), (128, 96), (96, 112)]
        write_coco_folder(folder, [(96, 128)] * 4, sizes, train_objects=[1, 4, 0, 2])
    state.wait_for_everyone()
    splits, processor = load_splits(DataConfig(root=str(folder)), masks=masks), tiny_processor()
    transform = DetrTransform(processor, on_bad_image="skip" if unreadable else "stop")
    train, val = (transformed(rows, transform) for rows in (splits.train, splits.val))
    if unreadable and state.is_main_process:
        for split in ("train", "val"):
            photo = sorted((folder / f"{split}2017").iterdir())[-1]
            photo.write_bytes(photo.read_bytes()[:700])
    state.wait_for_everyone()
    arguments = DetrTrainingArguments(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=2,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        max_grad_norm=0.0,
        optim="sgd",  # whose step is as near as the gradients are
        ema_decay=0.5,
        eval_strategy="no",
        save_strategy="no",
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    trainer = DetrTrainer(
        tiny_detr_with_masks() if masks else trainable_tiny_detr(dropout=0.0),
        arguments,
        train_dataset=train,
        eval_dataset=val,
        truth=splits.truth,
        label_map=splits.label_map,
        processor=processor,
        batch_edges=edges,
    )
    return trainer


def run(folder: Path, name: str, batch: int, accumulation: int, **given: Any) -> None:
    """Trains one step, evaluates twice, and writes from the first process what came out.

    `folder`/`name`.safetensors holds the gradients, `folder`/`name`_average.safetensors the averaged weights,
    `folder`/`name`.json the logged losses and both evaluations.
    """
    trainer = build(folder / name, batch, accumulation, **given)
    trainer.args.learning_rate = 1e-3  # moves weights by more than they are rounded
    keep = KeepGradients(trainer.model)
    trainer.add_callback(keep)
    trainer.train()
    if trainer.args.process_index:  # batch norms that are trained have statistics of their own in each process
        for buffer in trainer.model.buffers():
            buffer.fill_(math.nan if buffer.is_floating_point() else 0)
    evaluations = []
    for _ in range(2):
        metrics = trainer.evaluate()
        assert trainer.result is not None
        evaluations.append({**trainer.result.as_dict(), "loss": metrics["eval_loss"]})
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    if trainer.is_world_process_zero():
        save_file({key: value.contiguous() for key, value in keep.gradients.items()}, folder / f"{name}.safetensors")
        save_trained(trainer.model, folder / f"{name}_average.safetensors")
        losses = {key: value for key, value in logged.items() if key.startswith(("loss", "class", "card"))}
        content = {"logged": losses, "evaluations": evaluations, "processes": trainer.args.world_size}
        content["skipped"] = trainer.skipped.as_dict()
        (folder / f"{name}.json").write_text(json.dumps(content))
