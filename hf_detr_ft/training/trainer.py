"""Transformers' Trainer for DETRs: samplers and loaders of both splits, evaluation by COCO's numbers."""

import math
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction

from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.collate import collate
from hf_detr_ft.data.dataset import read_column
from hf_detr_ft.data.image_size import ImageProcessor
from hf_detr_ft.data.masks import Masks
from hf_detr_ft.data.sampling import EpochSampler, SortedSampler, rare_class_frequencies
from hf_detr_ft.data.streamed_rows import StreamedRows
from hf_detr_ft.data.transform import DetrTransform, Epoch
from hf_detr_ft.evaluation.coco_eval import Backend, evaluate_matched
from hf_detr_ft.evaluation.coco_result import MAX_DETECTIONS, CocoResult
from hf_detr_ft.evaluation.detections import Detections, to_detections
from hf_detr_ft.evaluation.matching import match_detections
from hf_detr_ft.evaluation.truth import Truth, has_masks, read_truth
from hf_detr_ft.inference.detect import encode_masks, post_process
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments
from hf_detr_ft.training.callbacks import EpochCallback
from hf_detr_ft.training.loss_parts import LossParts, readable_images, readable_places
from hf_detr_ft.training.skipped_photos import SkippedPhotos
from hf_detr_ft.training.step_trainer import StepTrainer


class DetrTrainer(StepTrainer):
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
        batch_edges: see `StepTrainer`.
        backend: of the COCO evaluation.
        max_detections: the best per image and class that count beside COCO's numbers.
        balance: share of the images below which a class is rare, see `rare_class_frequencies`; None: all come alike.
        stream: the samples of `train_dataset` in an order of their own, where its images are streamed.
    """

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
        batch_edges: Sequence[int] = (),
        backend: Backend = "faster-coco-eval",
        max_detections: int = MAX_DETECTIONS,
        balance: float | None = None,
        stream: StreamedRows | None = None,
    ) -> None:
        self.epoch = Epoch() if train_transform is None else train_transform.epoch
        self.train_transform = train_transform
        self.truth = truth
        self.label_map = label_map
        self.backend = backend
        self.max_detections = max_detections
        self.balance = balance
        self.result: CocoResult | None = None
        """Result of the last evaluation, and its detections."""
        self.detections: Detections | None = None
        self._masks: dict[int, Masks] = {}
        super().__init__(
            model=model,
            args=args,
            size_step=size_step,
            batch_edges=batch_edges,
            stream=stream,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=collate,
            processing_class=cast(Any, processor),
            compute_metrics=self._compute_coco_metrics,
            callbacks=[EpochCallback(self.epoch, stream)],
        )

    # Data

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed_of_images
        if self.args.train_sampling_strategy == "sequential":
            return super()._get_train_sampler(dataset)
        shapes = None
        if self.args.train_sampling_strategy == "group_by_length" and self.train_transform is not None:
            shapes = partial(self._shapes, read_column(dataset, "image_id"), read_column(dataset, "aspect_ratio"))
        batches = self.args.world_size * self.args.gradient_accumulation_steps
        often = None if self.balance is None else rare_class_frequencies(dataset, self.balance)
        return EpochSampler(len(dataset), self.args.train_batch_size, seed, self.epoch, shapes, batches, often)

    def _shapes(self, image_ids: list[int], aspect_ratios: list[float], images: np.ndarray) -> np.ndarray:
        """Shapes (height, width) `[M, 2]` that the running epoch gives some of the images."""
        assert self.train_transform is not None
        ids, ratios = ([column[image] for image in images.tolist()] for column in (image_ids, aspect_ratios))
        return self.train_transform.shapes(ids, ratios, self.size_step)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Batches that are padded to multiples of `size_step`; those of evaluation only as far as they have to be."""
        args, padded = self.args, partial(collate, step=self.size_step)
        if self.stream is not None:  # as it is: Accelerate would divide once more what is divided among the processes
            loader = torch.utils.data.DataLoader(
                self.stream,
                self.stream.batch_size,
                collate_fn=padded,
                num_workers=args.dataloader_num_workers or 0,
                pin_memory=args.dataloader_pin_memory,
                persistent_workers=args.dataloader_persistent_workers,
                prefetch_factor=args.dataloader_prefetch_factor,
                multiprocessing_context=args.dataloader_multiprocessing_context,
            )
            return draw_apart(loader)
        whole, self.data_collator = self.data_collator, padded
        try:
            return draw_apart(super().get_train_dataloader())
        finally:
            self.data_collator = whole

    def _get_eval_sampler(self, eval_dataset: Dataset) -> torch.utils.data.Sampler | None:
        """Order from wide to tall, which does not matter to AP: batches of one shape need no padding."""
        ratios = read_column(eval_dataset, "aspect_ratio")
        return SortedSampler(sorted(range(len(ratios)), key=lambda index: -ratios[index]))

    # Evaluation

    def evaluate_test(self, rows: Dataset, truth: dict) -> dict[str, Any]:
        """Result on a test split, of which log and callbacks learn nothing, for JSON; evaluates it from now on.

        Args:
            rows: like `eval_dataset`.
            truth: their COCO dict.
        """
        self.eval_dataset, self.truth, self.skipped = rows, truth, SkippedPhotos()
        for kept in ("_truth_arrays", "_validation_items"):
            vars(self).pop(kept, None)
        self.predict(cast(Any, rows))
        self.skipped.share(self.args)
        assert self.result is not None
        skipped = self.skipped.validation
        return {**self.result.as_dict(), **({"skipped": skipped} if skipped else {})}

    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader:
        """All images: `dataloader_drop_last` is about training alone."""
        drop, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return draw_apart(super().get_eval_dataloader(eval_dataset))
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
        whole = readable_places(inputs["labels"])
        if len(whole) < len(image_ids):
            found, detections = detections, detections.new_zeros(len(image_ids), *detections.shape[1:])
            detections[..., 0] = math.nan  # of no image
            detections[whole] = found[: len(whole)]
        # All processes have to hand on equally many; the Trainer leaves out those behind the last image.
        rows = torch.arange(images, device=image_ids.device).clamp(max=len(image_ids) - 1)
        return loss, detections[rows], image_ids[rows]

    def _predict(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and detections of a batch, or of a part of one; see `prediction_step`."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        sizes = torch.stack([target["orig_size"] for target in inputs["labels"]])
        if self._unwrapped().family.masks:
            masks = encode_masks(outputs.pred_masks, inputs["pixel_mask"], sizes.tolist())
            self._masks |= {int(t["image_id"]): own for t, own in zip(inputs["labels"], masks, strict=True)}
        scores, labels, boxes_xyxy_px = post_process(
            outputs.logits, outputs.pred_boxes, sizes, self._unwrapped().family, self.max_detections
        )
        return loss, torch.cat([scores[..., None], labels[..., None].to(scores.dtype), boxes_xyxy_px], dim=-1)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Adds the validation loss, each image counted once, and its parts."""
        self._parts["eval"] = LossParts()
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        parts = {f"{prefix}_{name}": value for name, value in self._read_parts("eval").items()}
        return output._replace(metrics={**(output.metrics or {}), **parts})

    @cached_property
    def _truth_arrays(self) -> Truth:
        return read_truth(self.truth, self._unwrapped().family.masks and has_masks(self.truth))

    def _take_masks(self) -> dict[int, Masks] | None:
        """Masks of all processes' images by image id, which are then forgotten; None without a mask head."""
        if not self._unwrapped().family.masks:
            return None
        parts, self._masks = gather_object([self._masks]), {}
        return {image_id: masks for part in parts for image_id, masks in part.items()}

    def _compute_coco_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        image_ids = np.asarray(prediction.label_ids)
        expected = sorted(image["id"] for image in self.truth["images"])
        assert sorted(image_ids.tolist()) == expected, "an image was not counted exactly once"
        self.detections = to_detections(prediction.predictions, image_ids, self.label_map, self._take_masks())
        matched = match_detections(self._truth_arrays, self.detections, self.max_detections)
        self.result = evaluate_matched(matched, self.backend)
        return {**self.result.metrics, **self.result.mask_metrics}


def draw_apart(loader: torch.utils.data.DataLoader) -> torch.utils.data.DataLoader:
    """The loader, with draws of its own for the seeds of its workers, and not those that dropout comes from.

    A loader draws whenever it begins anew, and one that keeps its workers in the first epoch alone: with another number
    of them, and after an interruption, dropout would be another.
    """
    inner: Any = getattr(loader, "base_dataloader", loader)  # Accelerate's is around it
    inner.generator = torch.Generator().manual_seed(0)
    return loader
