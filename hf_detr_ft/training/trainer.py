"""Transformers' Trainer for DETRs: exact loss over processes and accumulation, parts of the loss, COCO evaluation."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction

from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.collate import collate
from hf_detr_ft.data.dataset import iterate_column, read_column
from hf_detr_ft.data.image_size import ImageProcessor
from hf_detr_ft.data.sampling import EpochSampler, SortedSampler
from hf_detr_ft.data.transform import DetrTransform, Epoch
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.evaluation.coco_eval import Backend, evaluate_matched
from hf_detr_ft.evaluation.coco_result import CocoResult
from hf_detr_ft.evaluation.detections import Detections, to_detections
from hf_detr_ft.evaluation.matching import match_detections
from hf_detr_ft.evaluation.truth import Truth, read_truth
from hf_detr_ft.inference.detect import post_process
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.hungarian_matching import UnusableBatchError
from hf_detr_ft.model.optim import parameter_groups
from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments
from hf_detr_ft.training.callbacks import EpochCallback
from hf_detr_ft.training.checkpoint_trainer import CheckpointTrainer
from hf_detr_ft.training.failures import out_of_memory, unusable_batch
from hf_detr_ft.training.loss_parts import NOT_COUNTED, LossParts, own_images, readable_images
from hf_detr_ft.training.skipped_photos import SkippedPhotos
from hf_detr_ft.training.split_batches import BatchSplitter, describe_batch, is_out_of_memory


class DetrTrainer(CheckpointTrainer):
    """Trains and evaluates a DETR.

    Args:
        model: ours, whose loss accepts the counts of the whole batch.
        args: the recipe's `training` section.
        train_dataset: of `load_split`, with a transform; None to evaluate only.
        eval_dataset: likewise.
        truth: the COCO dict that AP is computed against; its images are those of `eval_dataset`.
        label_map: between labels and the data's category ids.
        processor: saved beside the weights.
        train_transform: that `train_dataset` has: it is told the epoch, and tells the sampler the shapes.
        size_step: pixels that heights and widths of training batches are multiples of.
        backend: of the COCO evaluation.
        callbacks: more of them.
    """

    args: DetrTrainingArguments
    train_dataset: Dataset

    def __init__(
        self,
        model: Detector,
        args: DetrTrainingArguments,
        *,
        train_dataset: Dataset | None,
        eval_dataset: Dataset,
        truth: dict,
        label_map: LabelMap,
        processor: ImageProcessor,
        train_transform: DetrTransform | None = None,
        size_step: int = 1,
        backend: Backend = "faster-coco-eval",
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self.epoch = Epoch() if train_transform is None else train_transform.epoch
        self.train_transform = train_transform
        self.size_step = size_step
        self.truth = truth
        self.label_map = label_map
        self.backend = backend
        self.result: CocoResult | None = None
        """Result of the last evaluation, and its detections."""
        self.detections: Detections | None = None
        self._backbone_rate: float | None = None
        self._parts = {"train": LossParts(), "eval": LossParts()}
        self._new_parts: list[dict[str, torch.Tensor]] = []
        """Parts of the loss that came since the last batch was whole."""
        self.skipped = SkippedPhotos()
        self._splitter = BatchSplitter(args.auto_find_batch_size)
        if args.auto_find_batch_size:  # Transformers' own would train the same weights again with another batch size
            args = copy.copy(args)
            args.auto_find_batch_size = False
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=collate,
            processing_class=cast(Any, processor),
            compute_metrics=self._compute_coco_metrics,
            callbacks=[EpochCallback(self.epoch), self.skipped, *(callbacks or [])],
        )
        self.loss_is_scaled_for_ga = True

    # Data

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if self.args.train_sampling_strategy == "sequential":
            return super()._get_train_sampler(dataset)
        shapes = None
        if self.args.train_sampling_strategy == "group_by_length" and self.train_transform is not None:
            shapes = partial(self._shapes, read_column(dataset, "image_id"), read_column(dataset, "aspect_ratio"))
        batches = self.args.world_size * self.args.gradient_accumulation_steps
        return EpochSampler(len(dataset), self.args.train_batch_size, seed, self.epoch, shapes, batches)

    def _shapes(self, image_ids: list[int], aspect_ratios: list[float], images: np.ndarray) -> np.ndarray:
        """Shapes (height, width) `[M, 2]` that the running epoch gives some of the images."""
        assert self.train_transform is not None
        ids, ratios = ([column[image] for image in images.tolist()] for column in (image_ids, aspect_ratios))
        return self.train_transform.shapes(ids, ratios, self.size_step)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Batches that are padded to multiples of `size_step`; those of evaluation only as far as they have to be."""
        whole, self.data_collator = self.data_collator, partial(collate, step=self.size_step)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = whole

    def _get_eval_sampler(self, eval_dataset: Dataset) -> torch.utils.data.Sampler | None:
        """Order from wide to tall, which does not matter to AP: batches of one shape need no padding."""
        ratios = read_column(eval_dataset, "aspect_ratio")
        return SortedSampler(sorted(range(len(ratios)), key=lambda index: -ratios[index]))

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | None]:
        """Micro-batches of one step, and the family's `count_items` of all of them on all processes."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        samples[-1:] = [self._own_images(batch, self.size_step) for batch in samples[-1:]]
        for batch in samples:
            self.skipped.note("training", batch["labels"])
        samples = [readable_images(batch) for batch in samples]
        model, counted = self._unwrapped(), [batch["labels"] for batch in samples if NOT_COUNTED not in batch]
        items = torch.stack([model.family.count_items(labels, model.config) for labels in counted or [[]]]).sum(0)
        return samples, self.accelerator.reduce(items.to(device, non_blocking=True), reduction="sum")

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

    # Training

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
            groups = parameter_groups(
                opt_model,
                self.args.learning_rate,
                self.args.backbone_learning_rate,
                self.args.weight_decay,
                self._unwrapped().family.backbone_prefix,
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
        return max(1, math.ceil(batches / args.gradient_accumulation_steps))

    # Evaluation

    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader:
        """All images: `dataloader_drop_last` is about training alone."""
        drop, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = drop

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Loss, detections `[B, Q, 6]` (score, label, xyxy in original pixels) and image ids `[B]`; no more is kept."""
        images = len(inputs["labels"])
        inputs = self._own_images(self._prepare_inputs(inputs))
        self.skipped.note("validation", inputs["labels"])
        readable, self._new_parts = readable_images(inputs), []
        with self.explained("evaluation", self.eval_dataset, inputs):
            parts = self._splitter.run(lambda part: self._predict(model, part), readable, self._new_parts.clear)
        self._parts["eval"].add(self._new_parts, share=0.0)
        loss = torch.stack([part[0] for part in parts]).sum()
        if prediction_loss_only:
            return loss, None, None
        image_ids = torch.cat([target["image_id"] for target in inputs["labels"]])
        detections = torch.cat([part[1] for part in parts])
        if readable is not inputs:
            found, detections = detections, detections.new_zeros(len(image_ids), *detections.shape[1:])
            detections[..., 0] = math.nan  # of no image
            whole = [index for index, target in enumerate(inputs["labels"]) if "unreadable" not in target]
            detections[whole] = found[: len(whole)]
        # All processes have to hand on equally many; the Trainer leaves out those behind the last image.
        rows = torch.arange(images, device=image_ids.device).clamp(max=len(image_ids) - 1)
        return loss, detections[rows], image_ids[rows]

    def _predict(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and detections of a batch, or of a part of one; see `prediction_step`."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        sizes = torch.stack([target["orig_size"] for target in inputs["labels"]])
        scores, labels, boxes_xyxy_px = post_process(
            outputs.logits, outputs.pred_boxes, sizes, self._unwrapped().family
        )
        return loss, torch.cat([scores[..., None], labels[..., None].to(scores.dtype), boxes_xyxy_px], dim=-1)

    @cached_property
    def _validation_items(self) -> torch.Tensor:
        """`count_items` of all validation, so that its loss is the same in batches and processes of any number."""
        labels = [{"class_labels": row["label"]} for row in iterate_column(self.eval_dataset, "objects")]
        model = self._unwrapped()
        return model.family.count_items(labels, model.config)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Adds the validation loss, each image counted once, and its parts."""
        self._parts["eval"] = LossParts()
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        parts = {f"{prefix}_{name}": value for name, value in self._read_parts("eval").items()}
        return output._replace(metrics={**(output.metrics or {}), **parts})

    @cached_property
    def _truth_arrays(self) -> Truth:
        return read_truth(self.truth)

    def _compute_coco_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        image_ids = np.asarray(prediction.label_ids)
        expected = sorted(image["id"] for image in self.truth["images"])
        assert sorted(image_ids.tolist()) == expected, "an image was not counted exactly once"
        self.detections = to_detections(prediction.predictions, image_ids, self.label_map)
        self.result = evaluate_matched(match_detections(self._truth_arrays, self.detections), self.backend)
        return dict(self.result.metrics)
