"""`hf-detr-ft check RECIPE`: data, model and memory, before any training."""

import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import DetrImageProcessor

from hf_detr_ft.atomic import check_output_file
from hf_detr_ft.data.dataset import most_objects, read_column
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.splits import build_splits, check_data, list_problems
from hf_detr_ft.machine import peak_memory
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.model.stages import feature_stride
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.rules import require_sound
from hf_detr_ft.report.collect import view_data
from hf_detr_ft.report.pages import build_check_page
from hf_detr_ft.report.svg import own_style
from hf_detr_ft.report.write_report import check_page, is_page, write_page
from hf_detr_ft.training.job import describe_job, prepare_trial
from hf_detr_ft.training.trainer import DetrTrainer

SHOWN = 5
"""Problems of each kind that are printed."""


def check(path: Path | None, flags: Sequence[str] = (), report: Path | None = None) -> int:
    """Decodes every image, checks every annotation, builds the model and runs one batch of the largest shapes.

    Args:
        path: the recipe.
        flags: over it.
        report: where to write what was found, as an HTML page; an earlier page of ours is replaced.

    Returns:
        0, or 1 where the data have errors.
    """
    recipe = load_recipe(path, flags)
    require_sound(recipe)
    if report is not None:
        check_output_file(report, "--report")
        check_page(report, overwrite=is_page(report), flag="--report")
    sources, problems = check_data(recipe.data, decode=True, progress=lambda images: tqdm(images, "decoding images"))
    if problems:
        print(list_problems(problems, SHOWN))
    counts = Counter(problem.severity for problem in problems)
    print(f"data      {counts['error']} errors, {counts['warning']} warnings")
    if counts["error"]:
        if report is not None:
            with own_style():
                write_page(build_check_page(recipe.data.name, problems, None), report)
            print(f"written: {report}")
        return 1

    splits = build_splits(recipe.data, sources, problems)
    for name, dataset in (("training", splits.train), ("validation", splits.val)):
        split = splits.statistics[name]
        most, file_name = most_objects(dataset)
        print(
            f"          {name}: {split.images} images, {split.objects} objects, "
            f"{(split.objects_per_image == 0).sum()} images without objects, at most {most} on one ({file_name})"
        )
    with TemporaryDirectory() as folder:  # the Trainer makes its folder
        job = prepare_trial(recipe.with_training(output_dir=folder), splits)
        print(describe_job(replace(job, recipe=recipe)))
        for trial in try_largest_batches(job.trainer):
            print(trial)
    if report is not None:
        data = view_data(recipe, splits, feature_stride(cast(DetrForObjectDetection, job.trainer.model)))
        with own_style():
            write_page(build_check_page(recipe.data.name, problems, data), report)
        print(f"written: {report}")
    print(
        f"nothing stands in the way of: {shlex.join(['hf-detr-ft', 'train', *([str(path)] if path else []), *flags])}"
    )
    return 0


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
    """Runs one training and one evaluation batch as large as the data can make them."""
    args, processor = trainer.args, cast(DetrImageProcessor, trainer.processing_class)
    model, optimizer = trainer.accelerator.prepare(trainer.model, trainer.create_optimizer())
    trials = []
    for name, dataset, batch_size in (
        ("training", trainer.train_dataset, args.per_device_train_batch_size),
        ("evaluation", trainer.eval_dataset, args.per_device_eval_batch_size),
    ):
        grouped = name == "evaluation" or args.train_sampling_strategy == "group_by_length"
        shape = largest_shape(dataset, batch_size, ImageSize.from_processor(processor), grouped)
        batch = random_batch(shape, min(most_objects(dataset)[0], model.config.num_queries), args.device)
        if args.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = time.monotonic()
        if name == "training":
            model.train()
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
        trials.append(Trial(name, shape, time.monotonic() - started, peak_memory(args.device), str(args.device)))
    return trials


def largest_shape(dataset: Dataset, batch_size: int, size: ImageSize, grouped: bool) -> tuple[int, int, int]:
    """Images, height and width of the largest padded batch.

    Args:
        dataset: of `load_split`.
        batch_size: images a batch.
        size: that images are resized to.
        grouped: batches hold images of like aspect ratio; else the widest may meet the tallest.
    """
    ratios = sorted(read_column(dataset, "aspect_ratio"))
    sizes = [size.of(1000, max(1, round(1000 * ratio))) for ratio in ratios]
    batch_size = min(batch_size, len(sizes))
    step = 1 if grouped else len(sizes)
    windows = [sizes[i : i + (batch_size if grouped else len(sizes))] for i in range(0, len(sizes), step)]
    shapes = [(max(h for h, _ in window), max(w for _, w in window)) for window in windows]
    height, width = max(shapes, key=lambda shape: shape[0] * shape[1])
    return batch_size, height, width


def random_batch(shape: tuple[int, int, int], objects: int, device: torch.device) -> dict:
    """Noise of a shape, `objects` boxes on each image."""
    images, height, width = shape
    target = {
        "class_labels": torch.zeros(objects, dtype=torch.int64, device=device),
        "boxes": torch.tensor([0.5, 0.5, 0.2, 0.2], device=device).repeat(objects, 1),
        "image_id": torch.zeros(1, dtype=torch.int64, device=device),
        "orig_size": torch.tensor([height, width], device=device),
    }
    return {
        "pixel_values": torch.randn(images, 3, height, width, device=device),
        "pixel_mask": torch.ones(images, height, width, dtype=torch.int64, device=device),
        "labels": [dict(target) for _ in range(images)],
    }
