"""What a page of the report shows, gathered from models, photos and annotations."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import DetrForObjectDetection, DetrImageProcessor

from hf_detr_ft.attention.image_attention import attend
from hf_detr_ft.boxes import xywh_to_xyxy
from hf_detr_ft.data.dataset import read_column
from hf_detr_ft.data.image_size import ImageSize, build_processor
from hf_detr_ft.data.images import decode_cell
from hf_detr_ft.data.splits import Splits
from hf_detr_ft.data.transform import transformed
from hf_detr_ft.errors import InputError
from hf_detr_ft.evaluation.analysis import Analysis, analyse_matched
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.inference.detect import load_detector
from hf_detr_ft.model.stages import feature_stride
from hf_detr_ft.plots.samples import draw_sample, draw_training_sample
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.report.load_run import RunRecord, Validation
from hf_detr_ft.report.pages import Views
from hf_detr_ft.report.sections.attention_section import Look
from hf_detr_ft.report.sections.data_section import DataView
from hf_detr_ft.training.data_pipeline import build_train_transform

PHOTOS = 6
"""Training photos that are shown, as they are and as the model sees them."""
LOOKS = 2
"""Validation photos over which attention is shown."""
DETECTIONS = 3
"""Of each of them."""


def gather_views(
    source: str, record: RunRecord, validation: Validation | None, recipe: Recipe | None, splits: Splits | None
) -> tuple[Views, list[str]]:
    """All that a page shows beside what the run folder tells, and what of it cannot be had.

    Args:
        source: of the weights.
        record: of the run.
        validation: truth and detections; None where they cannot be had.
        recipe: of the run; None where it has none.
        splits: its data; None where they cannot be read.
    """
    analysis, model, looks, data, missing = None, None, [], None, []
    if validation is not None:
        threshold = record.kept["best_f1"]["threshold"] if record.kept else None
        analysis = analyse_matched(validation.matched, threshold)
    try:
        model, processor = load_detector(source)
        if validation is not None:
            looks = look_at_photos(model, processor, validation, record.threshold)
    except InputError as error:
        missing.append(f"The model's attention is left out: {error}")
    if recipe is not None and splits is not None:
        stride = recipe.model.backbone_stride if model is None else feature_stride(model)
        try:
            data = view_data(recipe, splits, stride)
        except InputError as error:
            missing.append(f"The data are left out: {error}")
    return Views(validation, analysis, looks, data), missing


def view_data(recipe: Recipe, splits: Splits, stride: int) -> DataView:
    """Statistics of both splits and some training photos.

    Args:
        recipe: of which sizes and augmentation are taken.
        splits: with the photos as they lie on the disk.
        stride: pixels of the image per step of the model's feature map.

    Raises:
        DataError: a photo cannot be read.
    """
    processor, size = build_processor(recipe.model), ImageSize.from_config(recipe.model)
    names = splits.label_map.names
    statistics = {name: split.resized(size, stride) for name, split in splits.statistics.items()}
    with_objects = np.flatnonzero(statistics["training"].objects_per_image)
    chosen = with_objects[np.linspace(0, len(with_objects) - 1, min(PHOTOS, len(with_objects))).round().astype(int)]
    plain, as_seen = splits.train.with_format(None), transformed(splits.train, build_train_transform(recipe))
    photos, samples = [], []
    for index in chosen.tolist():
        row, seen = plain[index], as_seen[index]
        labels, crowd = row["objects"]["label"], row["crowd"]
        photo = draw_sample(
            decode_cell(row["image"]),
            xywh_to_xyxy(np.array(row["objects"]["bbox"] + crowd, dtype=np.float64)),
            labels + [0] * len(crowd),
            names,
            crowd=[False] * len(labels) + [True] * len(crowd),
        )
        photos.append((row["file_name"], photo))
        sample = draw_training_sample(seen["pixel_values"], seen["labels"], processor, names)
        samples.append((row["file_name"], sample))
    return DataView(statistics, photos, samples, splits.problems)


def look_at_photos(
    model: DetrForObjectDetection,
    processor: DetrImageProcessor,
    validation: Validation,
    threshold: float,
) -> list[Look]:
    """Attention over the validation photos with most that is right; none where there are no photos.

    Raises:
        DataError: a photo cannot be read.
    """
    if validation.rows is None or not len(validation.rows):
        return []
    truth, predictions = validation.matched.truth, validation.matched.predictions
    right = validation.matched.is_tp & is_above(predictions.score, threshold)
    counts = np.bincount(predictions.image[right], minlength=len(truth.image_ids))
    best = truth.image_ids[np.argsort(-np.minimum(counts, DETECTIONS), kind="stable")][:LOOKS]
    place = {image_id: index for index, image_id in enumerate(read_column(validation.rows, "image_id"))}
    looks = []
    for image_id in best.tolist():
        row = validation.rows.with_format(None)[place[image_id]]
        image = decode_cell(row["image"])
        attention = attend(model, processor, image, threshold=threshold, most=DETECTIONS, name=row["file_name"])
        looks.append(Look(row["file_name"], image, attention))
    return looks


def add_numbers(metrics: Mapping[str, Any], analysis: Analysis | None, data: DataView | None) -> dict[str, Any]:
    """metrics.json with what the page says beside it."""
    added = dict(metrics)
    if analysis is not None:
        added["analysis"] = analysis.as_dict()
    if data is not None:
        added["splits"] = {name: split.as_dict() for name, split in data.statistics.items()}
    return added
