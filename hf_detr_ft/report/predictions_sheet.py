"""`RUN/plots/predictions.png`: objects that are found and missed on validation images, and wrong predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from PIL import Image

from hf_detr_ft.atomic import write_bytes
from hf_detr_ft.boxes import xywh_to_xyxy
from hf_detr_ft.data.images import decode_row
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.evaluation.matching import MatchedDetections
from hf_detr_ft.plots.box_overlay import ComparedPhoto
from hf_detr_ft.plots.comparison import plot_comparison
from hf_detr_ft.plots.draw_masks import tint_masks
from hf_detr_ft.plots.style import TILE, shrink, to_png
from hf_detr_ft.report.load_run import Validation
from hf_detr_ft.run_folder import RunFolder

MOST = 16
"""Images on the sheet."""
TILES = (TILE, 400, 320, 240)
"""Longer sides of an image, in pixels; the largest is taken with which the file is not larger than `LARGEST`."""
LARGEST = 3_000_000
"""Bytes of the file at most, where smaller images help."""


def draw_predictions(run: RunFolder, validation: Validation, threshold: float) -> Path:
    """Writes the sheet, of up to 16 validation images.

    Args:
        run: whose detections are shown.
        validation: truth, detections and rows; of rows, with any transform or none, those shown are spread evenly.
        threshold: predictions with a score above it are drawn.

    Returns:
        The file.

    Raises:
        DataError: an image cannot be read.
    """
    assert validation.rows is not None
    photos, images = compare_validation(validation, threshold, MOST), len(validation.rows)
    shown = f"{len(photos)} of {images}" if len(photos) < images else str(images)
    noun = "image" if images == 1 else "images"
    title = f"{run.name}: {shown} validation {noun}, predictions with a score above {threshold:g}"
    path = run.predictions
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, encode(photos, validation.matched.truth.names, title))
    return path


def compare_validation(
    validation: Validation, threshold: float, most: int | None = None, side: int = TILE
) -> list[ComparedPhoto]:
    """Validation images with their objects and the predictions above a threshold, for `plots.plot_comparison`.

    Args:
        validation: truth, detections and rows.
        threshold: predictions with a score above it are shown.
        most: images, spread evenly over all; all of them where not given.
        side: longer side of the images in pixels.

    Raises:
        DataError: an image cannot be read.
    """
    assert validation.rows is not None
    plain = validation.rows.with_format(None)
    picked = [plain[index] for index in pick(len(plain), len(plain) if most is None else most)]
    images, sizes = [], []
    for row in picked:
        image = decode_row(row)
        sizes.append((image.height, image.width))
        images.append(shrink(image, side))
    return compare(picked, images, sizes, validation.matched, threshold)


def pick(count: int, most: int) -> list[int]:
    """Positions of `most` out of `count`, first and last among them and the others evenly between; all if not more."""
    return list(range(count)) if count <= most else np.linspace(0, count - 1, most).round().astype(int).tolist()


def compare(
    rows: Sequence[dict[str, Any]],
    images: Sequence[Image.Image],
    sizes: Sequence[tuple[int, int]],
    matched: MatchedDetections,
    threshold: float,
) -> list[ComparedPhoto]:
    """Objects of some images with the predictions above a threshold; labels are positions of the category ids.

    Args:
        rows: of the images, with `image_id` and `file_name`.
        images: at any resolution.
        sizes: (height, width) of the images whose pixels the boxes are in.
        matched: predictions and objects of these images, and perhaps of others.
        threshold: predictions with a score above it are shown.
    """
    objects, predictions = matched.truth, matched.predictions
    above = is_above(predictions.score, threshold)
    found = matched.found_objects(above)
    photos = []
    for row, image, size in zip(rows, images, sizes, strict=True):
        place = np.searchsorted(objects.image_ids, row["image_id"])
        true, shown = objects.image == place, np.flatnonzero(above & (predictions.image == place))
        shown = shown[np.argsort(-predictions.score[shown], kind="stable")]
        masks = None if predictions.masks is None else predictions.masks.select(shown[::-1])
        photos.append(
            ComparedPhoto(
                image=tint_masks(image, masks, predictions.category[shown[::-1]]),
                size=size,
                name=row["file_name"],
                true_boxes_xyxy_px=xywh_to_xyxy(objects.boxes_xywh_px[true]),
                true_labels=objects.category[true],
                crowd=objects.crowd[true],
                found=found[true],
                boxes_xyxy_px=xywh_to_xyxy(predictions.boxes_xywh_px[shown]),
                labels=predictions.category[shown],
                scores=predictions.score[shown],
                is_tp=matched.is_tp[shown],
                ignored=~matched.counts[shown],
            )
        )
    return photos


def encode(photos: Sequence[ComparedPhoto], names: Sequence[str], title: str) -> bytes:
    """The sheet as PNG, with images as large as `LARGEST` allows."""
    content = b""
    for tile in TILES:
        with style.context("default"):  # whatever the user's matplotlibrc says
            content = to_png(plot_comparison(photos, names, title, tile))
        if len(content) <= LARGEST:
            break
    return content
