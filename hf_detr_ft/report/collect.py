"""Contents of a page of the report, collected from models, images and annotations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hf_detr_ft.attention.image_attention import attend, require_decoder
from hf_detr_ft.boxes import xywh_to_xyxy
from hf_detr_ft.data.dataset import read_column
from hf_detr_ft.data.image_size import ImageProcessor, ImageSize
from hf_detr_ft.data.images import decode_row
from hf_detr_ft.data.splits import Splits
from hf_detr_ft.data.transform import transformed
from hf_detr_ft.evaluation.analysis import Analysis, analyse_matched
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.inference.detect import load_detector
from hf_detr_ft.model.stages import feature_stride
from hf_detr_ft.plots.samples import draw_sample, draw_training_sample
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.report.attempt import attempt
from hf_detr_ft.report.load_run import LoadedRun, Validation
from hf_detr_ft.report.pages import ReportData
from hf_detr_ft.report.sections.attention_section import AttentionSample
from hf_detr_ft.report.sections.data_section import DataSummary
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.training.data_pipeline import build_processor, build_train_transform

TRAINING_IMAGES = 6
"""Training images that are shown, as they are and as the model sees them."""
ATTENTION_IMAGES = 2
"""Validation images over which attention is shown."""
ATTENTION_DETECTIONS = 3
"""Detections of each of them."""


def collect_report_data(
    source: RunFolder,
    run: LoadedRun,
    validation: Validation | None,
    recipe: Recipe | None,
    splits: Splits | None,
    model: PreTrainedModel | None = None,
    processor: ImageProcessor | None = None,
) -> tuple[ReportData, list[str]]:
    """Collects all that a page shows beside what the run folder tells; what fails is left out and noted.

    Args:
        source: folder or Hub id of the weights.
        run: as its folder tells it.
        validation: truth and detections; None where they cannot be had.
        recipe: of the run; None where it has none.
        splits: its data; None where they cannot be read.
        model: with the run's weights; loaded from `source` where not given.
        processor: the model's.

    Returns:
        The data, and what is missing in them.
    """
    data, notes = ReportData(validation), list[str]()
    if validation is not None:
        threshold = run.evaluation["best_f1"]["threshold"] if run.evaluation else None
        with attempt("the analysis of the detections", notes):
            data.analysis = analyse_matched(validation.matched, threshold)
    if model is None or processor is None:
        with attempt("the model's attention", notes):
            model, processor = load_detector(str(source))
    if model is not None and processor is not None and validation is not None:
        with attempt("the model's attention", notes):
            require_decoder(model)
            data.attention, failed = collect_attention(model, processor, validation, run.threshold)
            notes += failed
    if recipe is not None and splits is not None:
        with attempt("the data", notes):
            stride = recipe.model.backbone_stride if model is None else feature_stride(model)
            data.data, failed = collect_data_summary(recipe, splits, stride, processor)
            notes += failed
    return data, notes


def collect_data_summary(
    recipe: Recipe, splits: Splits, stride: int, processor: ImageProcessor | None
) -> tuple[DataSummary, list[str]]:
    """Statistics of both splits and some training images; notes say which of these cannot be shown.

    Args:
        recipe: of which sizes and augmentation are taken.
        splits: with the images as they lie on the disk.
        stride: pixels of the image per step of the model's feature map.
        processor: the model's; None for that of the recipe.
    """
    processor, size = processor or build_processor(recipe.model), ImageSize.from_config(recipe.model)
    names = splits.label_map.names
    statistics = {name: split.resized(size, stride) for name, split in splits.statistics.items()}
    with_objects = np.flatnonzero(statistics["training"].objects_per_image)
    count = 0 if splits.pieces else min(TRAINING_IMAGES, len(with_objects))  # streamed ones are not at hand
    chosen = with_objects[np.linspace(0, len(with_objects) - 1, count).round().astype(int)]
    plain, as_seen = splits.train.with_format(None), transformed(splits.train, build_train_transform(recipe, processor))
    images, samples = [], []
    failed = ["No training image is shown: they are streamed."] if splits.pieces else list[str]()
    for index in chosen.tolist():
        with attempt("a training image", failed):
            row, seen = plain[index], as_seen[index]
            labels, crowd = row["objects"]["label"], row["crowd"]
            image = draw_sample(
                decode_row(row),
                xywh_to_xyxy(np.array(row["objects"]["bbox"] + crowd, dtype=np.float64)),
                labels + [0] * len(crowd),
                names,
                crowd=[False] * len(labels) + [True] * len(crowd),
            )
            sample = draw_training_sample(seen["pixel_values"], seen["labels"], processor, names)
            images.append((row["file_name"], image))
            samples.append((row["file_name"], sample))
    if len(failed) > 1:
        failed = [f"{pluralize(len(failed), 'training image')} cannot be shown. {failed[0]}"]
    return DataSummary(statistics, images, samples, splits.problems), failed


def collect_attention(
    model: PreTrainedModel,
    processor: ImageProcessor,
    validation: Validation,
    threshold: float,
) -> tuple[list[AttentionSample], list[str]]:
    """Attention over the validation images with most that is right, and what cannot be shown of it."""
    if validation.rows is None or not len(validation.rows):
        return [], []
    truth, predictions = validation.matched.truth, validation.matched.predictions
    right = validation.matched.is_tp & is_above(predictions.score, threshold)
    counts = np.bincount(predictions.image[right], minlength=len(truth.image_ids))
    order = np.argsort(-np.minimum(counts, ATTENTION_DETECTIONS), kind="stable")
    place = {image_id: index for index, image_id in enumerate(read_column(validation.rows, "image_id"))}
    samples, failed = [], list[str]()
    for image_id in truth.image_ids[order][:ATTENTION_IMAGES].tolist():
        row = validation.rows.with_format(None)[place[image_id]]
        name = row["file_name"]
        with attempt(f"the model's attention over {name}", failed), torch.compiler.set_stance("force_eager"):
            image = decode_row(row)
            attention = attend(model, processor, image, threshold=threshold, most=ATTENTION_DETECTIONS, name=name)
            samples.append(AttentionSample(name, image, attention))
    return samples, failed


def add_numbers(metrics: Mapping[str, Any], analysis: Analysis | None, data: DataSummary | None) -> dict[str, Any]:
    """Content of metrics.json with the numbers that the page adds to it."""
    added = dict(metrics)
    if analysis is not None:
        added["analysis"] = analysis.as_dict()
    if data is not None:
        added["splits"] = {name: split.as_dict() for name, split in data.statistics.items()}
    return added
