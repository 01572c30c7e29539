"""`RUN/plots/predictions.png`: what the run's weights find, miss and get wrong on validation images."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from hf_detr_ft.atomic import write_bytes
from hf_detr_ft.boxes import xywh_to_xyxy, xyxy_to_xywh
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.images import decode_cell
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.matching import match_detections
from hf_detr_ft.evaluation.truth import read_truth
from hf_detr_ft.inference.detect import ImageDetections, detect_prepared, load_detector, prepare
from hf_detr_ft.plots.box_overlay import ComparedPhoto
from hf_detr_ft.plots.comparison import plot_comparison
from hf_detr_ft.plots.style import TILE, shrink
from hf_detr_ft.run_folder import RunFolder

MOST = 16
"""Images on the sheet."""
TILES = (TILE, 400, 320, 240)
"""Longer sides of a photo, in pixels; the largest is taken with which the file is not larger than `LARGEST`."""
LARGEST = 3_000_000
"""In bytes."""


def draw_predictions(
    run: RunFolder,
    rows: Dataset,
    truth: dict,
    label_map: LabelMap,
    threshold: float,
    device: torch.device | str | None = None,
) -> Path:
    """Runs the weights that lie in the run folder over up to 16 validation images and writes the sheet.

    Args:
        run: with weights, config.json and preprocessor_config.json.
        rows: of `load_split`, with any transform or none; spread evenly where there are more than 16.
        truth: the COCO dict that the rows are of.
        label_map: of the model's labels.
        threshold: predictions with a score above it are drawn.
        device: to run on.

    Returns:
        The file.
    """
    plain = rows.with_format(None)
    picked = [plain[index] for index in pick(len(plain), MOST)]
    model, processor = load_detector(str(run))
    images, sizes, found = [], [], []
    for row in picked:
        image = decode_cell(row["image"])
        sizes.append((image.height, image.width))
        values = prepare(image, processor, row["file_name"])
        (detections,) = detect_prepared(model, [values], sizes[-1:], device=device)
        found.append(detections.above(threshold))
        images.append(shrink(image, TILE))
    photos = compare(picked, images, sizes, found, truth, label_map)
    shown = f"{len(picked)} of {len(plain)}" if len(picked) < len(plain) else str(len(plain))
    noun = "image" if len(plain) == 1 else "images"
    title = f"{run.name}: {shown} validation {noun}, predictions with a score above {threshold:g}"
    path = run.predictions
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, encode(photos, label_map.names, title))
    return path


def pick(count: int, most: int) -> list[int]:
    """Positions of `most` out of `count`, first and last among them and the others evenly between; all if not more."""
    return list(range(count)) if count <= most else np.linspace(0, count - 1, most).round().astype(int).tolist()


def compare(
    rows: Sequence[dict[str, Any]],
    images: Sequence[Image.Image],
    sizes: Sequence[tuple[int, int]],
    found: Sequence[ImageDetections],
    truth: dict,
    label_map: LabelMap,
) -> list[ComparedPhoto]:
    """Matches predictions and objects at IoU 0.5 within each class, as the best F1 does.

    Args:
        rows: of the images, with `image_id` and `file_name`.
        images: at any resolution.
        sizes: (height, width) of the images whose pixels the boxes are in.
        found: the predictions to show.
        truth: a COCO dict with these images, and perhaps others.
        label_map: of the predictions' labels.
    """
    ids = [row["image_id"] for row in rows]
    chosen = set(ids)
    images_of = [entry for entry in truth["images"] if entry["id"] in chosen]
    annotations = [entry for entry in truth["annotations"] if entry["image_id"] in chosen]
    objects = read_truth({**truth, "images": images_of, "annotations": annotations})
    category_ids = np.array(label_map.category_ids)
    detections = Detections.concat(
        Detections(np.full(len(one), id_), category_ids[one.labels], one.scores, xyxy_to_xywh(one.boxes_xyxy_px))
        for id_, one in zip(ids, found, strict=True)
    )
    matched = match_detections(objects, detections, len(detections))
    hit = matched.found_objects(matched.counts)
    labels = np.array([label_map.label(int(objects.category_ids[place])) for place in objects.category], dtype=np.int64)
    photos = []
    for row, image, size, one in zip(rows, images, sizes, found, strict=True):
        place = np.searchsorted(objects.image_ids, row["image_id"])
        own, shown = objects.image == place, matched.predictions.image == place
        photos.append(
            ComparedPhoto(
                image=image,
                size=size,
                name=row["file_name"],
                true_boxes_xyxy_px=xywh_to_xyxy(objects.boxes_xywh_px[own]),
                true_labels=labels[own],
                crowd=objects.crowd[own],
                found=hit[own],
                boxes_xyxy_px=one.boxes_xyxy_px,
                labels=one.labels,
                scores=one.scores,
                outcomes=np.minimum(matched.matched_gt[shown], 0) + 1,
            )
        )
    return photos


def encode(photos: Sequence[ComparedPhoto], names: Sequence[str], title: str) -> bytes:
    """The sheet as PNG, with photos as large as `LARGEST` allows."""
    content = b""
    for tile in TILES:
        with style.context("default"):  # whatever the user's matplotlibrc says
            content = to_png(plot_comparison(photos, names, title, tile))
        if len(content) <= LARGEST:
            break
    return content


def to_png(figure: Figure) -> bytes:
    """Pixel for pixel, without alpha."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])).save(stream, format="PNG")
    return stream.getvalue()
