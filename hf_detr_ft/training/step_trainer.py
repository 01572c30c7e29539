"""Transformers' Trainer with a DETR's steps: exact loss over processes and accumulation, its parts, the optimiser."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback

from hf_detr_ft.data.collate import resize_batch
from hf_detr_ft.data.dataset import iterate_column
from hf_detr_ft.data.streamed_rows import StreamedRows
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.hungarian_matching import UnusableBatchError
from hf_detr_ft.model.loss import count_items
from hf_detr_ft.model.optim import parameter_groups
from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments
from hf_detr_ft.training.checkpoint_trainer import CheckpointTrainer
from hf_detr_ft.training.failures import out_of_memory, unusable_batch
from hf_detr_ft.training.loss_parts import NOT_COUNTED, LossParts, own_images, readable_images
from hf_detr_ft.training.skipped_photos import SkippedPhotos
from hf_detr_ft.training.split_batches import BatchSplitter, describe_batch, is_out_of_memory
from hf_detr_ft.training.weight_average import WeightAverage


class StepTrainer(CheckpointTrainer):
    """Makes a step's micro-batches, their loss, the optimiser and its schedule; counts the parts of the loss.

    Args:
        model: ours, whose loss accepts the counts of the whole batch.
        args: the recipe's `training` section.
        size_step: pixels that heights and widths of training batches are multiples of.
        batch_edges: sides in pixels to draw each step's from, see `resize_batch`; none: images keep their size.
        stream: the training samples, where their images are streamed.
        callbacks: more of them.
        others: arguments of Transformers' Trainer.
    """

    args: DetrTrainingArguments
    train_dataset: Dataset
    eval_dataset: Dataset

    def __init__(
        self,
        model: Detector,
        args: DetrTrainingArguments,
        *,
        size_step: int,
        batch_edges: Sequence[int],
        stream: StreamedRows | None,
        callbacks: list[TrainerCallback],
        **others: Any,
    ) -> None:
        self.size_step = size_step
        self.batch_edges = batch_edges
        self.stream = stream
        self._backbone_rate: float | None = None
        self._parts = {"train": LossParts(), "eval": LossParts()}
        self._new_parts: list[dict[str, torch.Tensor]] = []
        """Parts of the loss that came since the last batch was whole."""
        self.skipped = SkippedPhotos()
        self._splitter = BatchSplitter(args.auto_find_batch_size)
        if args.auto_find_batch_size:  # Transformers' own would train the same weights again with another batch size
            args = copy.copy(args)
            args.auto_find_batch_size = False
        self.average = WeightAverage(args.ema_decay)
        super().__init__(model=model, args=args, callbacks=[self.skipped, self.average, *callbacks], **others)
        self.loss_is_scaled_for_ga = True

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | None]:
        """Micro-batches of one step, and `count_items` of all of them on all processes."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        samples[-1:] = [self._own_images(batch, self.size_step) for batch in samples[-1:]]
        for batch in samples:
            self.skipped.note("training", batch["labels"])
        samples = [readable_images(batch) for batch in samples]
        if self.batch_edges:
            samples = [resize_batch(batch, self._draw_edge()) for batch in samples]
        counted = [target for batch in samples if NOT_COUNTED not in batch for target in batch["labels"]]
        items = count_items(counted, self._unwrapped().config.num_queries)
        return samples, self.accelerator.reduce(items.to(device, non_blocking=True), reduction="sum")

    def _draw_edge(self) -> int:
        """Side in pixels of the running step's images: a function of seed and step, so that all processes agree."""
        draws = np.random.default_rng((self.args.seed_of_images, self.state.global_step))
        return int(draws.choice(self.batch_edges))

    def _own_images(self, batch: dict[str, Any], step: int = 1) -> dict[str, Any]:
        args = self.args
        return own_images(batch, self.accelerator.gradient_state, args.process_index, args.world_size, step)

    @contextmanager
    def explained(self, doing: str, dataset: Dataset, batch: dict[str, Any]) -> Iterator[None]:
        """Turns what a batch raises meanwhile into an error that names its images or its shape.

        Raises:
            TrainingError: the batch is unusable, or larger than the device's memory.
        """
        step = self.state.global_step
        try:
            yield
        except UnusableBatchError as error:
            classes = int(self._unwrapped().config.num_labels or 0)
            raise unusable_batch(error, doing, step, dataset, classes) from error
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            is_split, single = self._splitter.is_enabled, self.args.world_size == 1 or doing == "evaluation"
            shape = describe_batch({"pixel_values": batch["pixel_values"][:1]} if is_split else batch)
            raise out_of_memory(doing, step, self.args, shape, single and not is_split) from error

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One micro-batch, in parts where it does not fit the memory and `training.auto_find_batch_size` allows it.

        Raises:
            TrainingError: predictions are not finite or labels are unusable; names the images. Or the device's memory
                does not suffice.
        """
        step, undo = super().training_step, self._undo(model)
        with self.explained("training", self.train_dataset, inputs):
            losses = self._splitter.run(lambda part: step(model, part, cast(Any, num_items_in_batch)), inputs, undo)
        # Micro-batches of a step add up, and so do processes, whose gradients are averaged afterwards.
        self._parts["train"].add(self._new_parts, share=1.0 / self.current_gradient_accumulation_steps)
        self._new_parts = []
        return torch.stack(losses).sum()

    def _undo(self, model: nn.Module) -> Callable[[], object]:
        """A function that takes gradients and parts of the loss back to what they are now."""
        self._new_parts = []
        if not self._splitter.is_enabled:
            return lambda: None
        before = {weight: None if weight.grad is None else weight.grad.clone() for weight in model.parameters()}

        def undo() -> None:
            self._new_parts = []
            for weight, gradient in before.items():
                weight.grad = None if gradient is None else gradient.clone()

        return undo

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The loss of a micro-batch as its share of the whole batch's, or of all validation's; notes its parts."""
        counted, training = not inputs.pop(NOT_COUNTED, False), num_items_in_batch is not None
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch if training else self._validation_items)
        loss, parts = outputs.loss, outputs.loss_dict
        if not counted:
            loss, parts = 0 * loss, {name: 0 * part for name, part in parts.items()}
        self._new_parts.append(parts if training else {"loss": loss, **parts})
        loss = loss * self.accelerator.num_processes if training else loss
        return (loss, outputs) if return_outputs else loss

    @cached_property
    def _validation_items(self) -> torch.Tensor:
        """`count_items` of all validation, so that its loss is the same in batches and processes of any number."""
        labels = [{"class_labels": row["label"]} for row in iterate_column(self.eval_dataset, "objects")]
        return count_items(labels, self._unwrapped().config.num_queries)

    def _read_parts(self, kind: str) -> dict[str, float]:
        """Means over the steps since the last reading, or sums over the evaluation; over all processes."""
        parts, self._parts[kind] = self._parts[kind], LossParts()
        # A process whose batches had no boxes has no parts of denoising queries.
        names = list(dict.fromkeys(gather_object(list(parts.sums))))
        if not names:
            return {}
        zero = torch.zeros((), device=self.args.device)
        sums = torch.stack([parts.sums.get(name, zero).to(zero) for name in names])
        sums = self.accelerator.reduce(sums, reduction="sum")
        return dict(zip(names, (sums / (parts.count or 1)).tolist(), strict=True))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the parts of the loss, and the backbone's learning rate, to the lines that carry the loss."""
        if "loss" in logs:
            logs.update(self._read_parts("train"))
            if self._backbone_rate is not None:
                logs["backbone_learning_rate"] = self._backbone_rate
        super().log(logs, start_time)

    def _get_learning_rate(self) -> float:
        """The rate of transformer and heads; notes the backbone's, since the log comes when both have gone on."""
        groups = cast(torch.optim.Optimizer, self.optimizer).param_groups
        rates = [float(group["lr"]) for group in groups if group.get("name", "").startswith("backbone")]
        self._backbone_rate = rates[0] if rates else None
        rate: float = super()._get_learning_rate()
        return rate

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW, or what `training.optim` says, over the groups of `parameter_groups`."""
        if self.optimizer is None:
            opt_model: Any = self.model if model is None else model
            detector = self._unwrapped()
            groups = parameter_groups(
                opt_model,
                self.args.learning_rate,
                self.args.backbone_learning_rate,
                self.args.weight_decay,
                detector.family.backbone_prefix,
                detector.family.rate_factors(detector.config),
                detector.family.undecayed,
                self.args.decay_all,
            )
            try:
                optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, opt_model)
                self.optimizer = optimizer_class(groups, **settings)
            except (ImportError, TypeError, ValueError) as error:
                raise RecipeError(f"training.optim: '{self.args.optim}' cannot be made: {error}") from error
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Transformers' schedules, or DETR's single drop by 10 after `learning_rate_drop_epoch`."""
        drop = self.args.learning_rate_drop_epoch
        if drop is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        drop_step = round(drop * self.steps_per_epoch())
        self.lr_scheduler = LambdaLR(
            cast(Any, optimizer or self.optimizer), lambda step: 1.0 if step < drop_step else 0.1
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def steps_per_epoch(self) -> int:
        """Optimizer's steps in a whole epoch, as Transformers counts them."""
        args, images = self.args, len(self.train_dataset)
        of_a_batch = args.train_batch_size * args.world_size
        batches = images // of_a_batch if args.dataloader_drop_last else math.ceil(images / of_a_batch)
        if self.stream is not None:
            batches = self.stream.batches
        return max(1, math.ceil(batches / args.gradient_accumulation_steps))
