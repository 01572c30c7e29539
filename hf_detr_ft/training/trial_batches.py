"""Batches as large as a training will meet, run before it begins."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from hf_detr_ft.data.dataset import most_objects, read_column
from hf_detr_ft.data.image_size import ImageProcessor, ImageSize
from hf_detr_ft.machine import held_bytes, peak_bytes, reset_peak
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.training.trainer import DetrTrainer

EPOCHS, IMAGES = 20, 20_000
"""Epochs whose batches are looked at, and images of all of them together."""
COST_FACTOR = 9
"""Memory of the tensors that are alive while the costs of matching are computed, by that of the costs: measured."""


@dataclass(frozen=True)
class Trial:
    """One batch that was run."""

    name: str
    shape: tuple[int, int, int]
    """Images, height and width in pixels."""
    seconds: float
    peak_bytes: int
    device: str

    def __str__(self) -> str:
        images, height, width = self.shape
        return (
            f"{self.name:<9} {images} images of {height} x {width} pixels: {self.seconds:.2f} s, "
            f"peak memory {self.peak_bytes / 2**30:.2f} GiB on {self.device}"
        )


def try_largest_batches(trainer: DetrTrainer) -> list[Trial]:
    """Runs one training and one evaluation batch of the largest shapes that some epochs draw."""
    detector = cast(Detector, trainer.model)
    model, optimizer = trainer.accelerator.prepare(detector, trainer.create_optimizer())
    trainer.average.start(detector)
    shapes = (("training", largest_training_batch(trainer)), ("evaluation", largest_evaluation_batch(trainer)))
    return [_try_batch(trainer, model, optimizer, name, shape) for name, shape in shapes]


def measure_images(trainer: DetrTrainer) -> tuple[int, int]:
    """Bytes that a training adds, however many images a step has, and those that each image of the largest shape takes.

    The weights are on the device already. Gradients, the optimiser's two moments and an average of the weights come.
    """
    device, detector = trainer.args.device, cast(Detector, trainer.model)
    before, (_, height, width) = held_bytes(device), largest_training_batch(trainer)
    model, optimizer = trainer.accelerator.prepare(detector, trainer.create_optimizer())
    trainer.average.start(detector)
    copies = 3 if trainer.average.decay is None else 4
    fixed = copies * sum(weight.nbytes for weight in detector.parameters() if weight.requires_grad)
    trial = _try_batch(trainer, model, optimizer, "training", (1, height, width))
    return fixed, max(1, trial.peak_bytes - before - fixed)


def _try_batch(trainer: DetrTrainer, model: nn.Module, optimizer: Any, name: str, shape: tuple[int, int, int]) -> Trial:
    """Runs one batch of "training" or "evaluation"; of training twice, since moments come with the first step."""
    args, detector = trainer.args, cast(Detector, trainer.model)
    dataset = trainer.train_dataset if name == "training" else trainer.eval_dataset
    most, denoising = most_objects(dataset)[0], getattr(detector.config, "num_denoising", 0)
    objects = most_demanding_objects(most, denoising) if name == "training" else most
    batch = random_batch(shape, objects, args.device, detector.family.masks)
    for _ in range(2 if name == "training" else 1):
        reset_peak(args.device)
        started = time.monotonic()
        if name == "training":
            model.train()
            with trainer.explained("training", dataset, batch):
                outputs = model(**batch)
                trainer.accelerator.backward(outputs.loss)
                trainer.accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
                optimizer.step()
            optimizer.zero_grad()
        else:
            model.eval()
            trainer.prediction_step(model, batch, prediction_loss_only=False)
        if args.device.type == "cuda":
            torch.cuda.synchronize()
    return Trial(name, shape, time.monotonic() - started, peak_bytes(args.device), str(args.device))


def largest_training_batch(trainer: DetrTrainer) -> tuple[int, int, int]:
    """Images, height and width of the largest batch of the first epochs, padded as training pads it.

    Shapes are those that the epochs' crops and sizes will draw, in the order in which the sampler will draw them. Small
    data sets are looked at over `EPOCHS` epochs, since each of them draws few batches.
    """
    transform, dataset = trainer.train_transform, trainer.train_dataset
    assert transform is not None
    image_ids, ratios = (read_column(dataset, name) for name in ("image_id", "aspect_ratio"))
    largest = (0, 0, 0)
    if transform.size.keeps_shape and transform.augmentation is not None and transform.augmentation.reshapes:
        side = -(-transform.size.longest_edge // trainer.size_step) * trainer.size_step
        return min(len(dataset), trainer.args.train_batch_size), side, side  # in the worst case tall beside wide
    for epoch in range(max(1, min(EPOCHS, IMAGES // len(dataset)))):
        transform.epoch.set(epoch)
        order = list(islice(cast(Iterable[int], trainer._get_train_sampler()), IMAGES))
        drawn_ids, drawn_ratios = ([column[image] for image in order] for column in (image_ids, ratios))
        shapes = transform.shapes(drawn_ids, drawn_ratios, trainer.size_step)
        largest = max(largest, _largest(shapes, trainer.args.train_batch_size), key=_pixels)
    transform.epoch.set(0)
    edge = max(trainer.batch_edges, default=0)
    return (largest[0], edge, edge) if edge else largest


def largest_evaluation_batch(trainer: DetrTrainer) -> tuple[int, int, int]:
    """Images, height and width of the largest evaluation batch."""
    size = ImageSize.from_processor(cast(ImageProcessor, trainer.processing_class))
    ratios = read_column(trainer.eval_dataset, "aspect_ratio")
    order = list(cast(Iterable[int], trainer._get_eval_sampler(trainer.eval_dataset)))
    shapes = np.array([size.of(1000, max(1, round(1000 * ratios[index]))) for index in order])
    return _largest(shapes, trainer.args.eval_batch_size)


def describe_matching(trainer: DetrTrainer) -> str:
    """Memory of the costs of giving queries objects in the fullest training batch, which is part of its peak."""
    model, images = cast(Detector, trainer.model), trainer.args.train_batch_size
    config: Any = model.config
    layers = config.decoder_layers if model.auxiliary_losses else 1
    queries, objects = config.num_queries * getattr(config, "group_detr", 1), most_objects(trainer.train_dataset)[0]
    megabytes = 4 * layers * images * queries * objects / 2**20
    return (
        f"matching  of {images} images, {layers} layers, {queries} queries and {objects} objects: {megabytes:.1f} MiB "
        f"of costs, {COST_FACTOR} times as much while they are computed; both are in the peak of training"
    )


def most_demanding_objects(most: int, denoising: int) -> int:
    """Objects on the fullest image of the batch with most queries, where no image has more than `most`.

    Denoising queries are made of the fullest image's objects, in as many groups as there is room for, at least one: of
    100, 60 objects fill 60, and 50 in two groups all of them.

    Args:
        most: objects on one image.
        denoising: the config's `num_denoising`; 0 of a model without such queries.
    """
    return max(range(most + 1), key=lambda count: (count * max(1, denoising // max(1, count)), count))


def _largest(shapes: np.ndarray, batch_size: int) -> tuple[int, int, int]:
    """The batch with most pixels of images `[N, 2]` in their order."""
    batches = []
    for start in range(0, len(shapes), batch_size):
        batch = shapes[start : start + batch_size]
        height, width = batch.max(axis=0).tolist()
        batches.append((len(batch), height, width))
    return max(batches, key=_pixels)


def _pixels(shape: tuple[int, int, int]) -> int:
    return math.prod(shape)


def random_batch(shape: tuple[int, int, int], objects: int, device: torch.device, masks: bool = False) -> dict:
    """Noise of a shape, `objects` boxes on each image, with masks where these are asked for."""
    images, height, width = shape
    target = {
        "class_labels": torch.zeros(objects, dtype=torch.int64, device=device),
        "boxes": torch.tensor([0.5, 0.5, 0.2, 0.2], device=device).repeat(objects, 1),
        "image_id": torch.zeros(1, dtype=torch.int64, device=device),
        "orig_size": torch.tensor([height, width], device=device),
        **({"masks": torch.zeros(objects, height, width, dtype=torch.bool, device=device)} if masks else {}),
    }
    return {
        "pixel_values": torch.randn(images, 3, height, width, device=device),
        "pixel_mask": torch.ones(images, height, width, dtype=torch.int64, device=device),
        "labels": [dict(target) for _ in range(images)],
    }
