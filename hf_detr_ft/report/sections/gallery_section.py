"""The section Gallery: validation images with truth and predictions side by side, the worst ones first."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from hf_detr_ft.data.dataset import read_column
from hf_detr_ft.data.images import decode_cell_with_size
from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.evaluation.matching import MatchedDetections
from hf_detr_ft.evaluation.tide import ERRORS, Outcome, TideErrors
from hf_detr_ft.formatting import pluralize
from hf_detr_ft.plots.draw_masks import tint_masks
from hf_detr_ft.report.blocks import Block, BoxMark, Gallery, GalleryItem, Note, Section, Text
from hf_detr_ft.report.load_run import Validation

WORST, OF_EACH_KIND, MOST = 12, 3, 24
"""Photos: so many of the worst, then so many for each kind of error (and for right ones), no more than so many."""
SIDE = 640
"""Longer side of an image in the page, in pixels."""
GALLERY_ORDER = (
    *(Outcome.MISS, Outcome.LOC, Outcome.CLS, Outcome.BOTH),
    *(Outcome.DUPE, Outcome.BKG, Outcome.TP),
)
"""Outcomes in the order in which images are chosen for them."""
LEAST_SCORE, MOST_MARKS = 0.05, 100
"""Predictions in the page: none with a score that is not above, and no more of the best than so many on a photo."""


def describe_gallery(validation: Validation, errors: TideErrors, threshold: float) -> Section:
    """Shows up to 24 images.

    Args:
        validation: with or without rows.
        errors: of its detections.
        threshold: predictions with a score above it are drawn at first.
    """
    title, anchor = "Gallery", "gallery"
    if validation.rows is None:
        return Section(title, anchor, [Note("The validation photos cannot be read, so there are none to show.")])
    matched = validation.matched
    images = choose_images(matched, errors.outcome, threshold)
    place = {image_id: index for index, image_id in enumerate(read_column(validation.rows, "image_id"))}
    plain, least = validation.rows.with_format(None), min(LEAST_SCORE, threshold)
    items, unreadable = [], []
    for image in images:
        row = plain[place[int(matched.truth.image_ids[image])]]
        try:
            items.append(_build_item(row, matched, errors.outcome, image, least, threshold))
        except DataError as error:
            unreadable.append(str(error))
    blocks: list[Block] = []
    if unreadable:
        blocks.append(Note(_unreadable(unreadable)))
    if items:
        total = len(matched.truth.image_ids)
        shown = "all of them" if len(items) == total else f"{len(items)} of them, for each kind of error the worst"
        text = (
            f"{pluralize(total, 'validation image')}, {shown}, in the order of what is missed and wrong at the "
            "threshold of the best F1. A prediction is right that takes an object of its class at IoU 0.5."
        )
        if matched.predictions.masks is not None:
            text += " Masks are those of predictions above that threshold, wherever the slider stands."
        blocks += [Text(text), Gallery(items, threshold, least)]
    return Section(title, anchor, blocks)


def _unreadable(errors: Sequence[str]) -> str:
    remedy = "Where they have moved, give their place: hf-detr-ft report RUN --data.root FOLDER."
    return f"{pluralize(len(errors), 'photo')} cannot be shown. {remedy} The first: {errors[0]}"


def choose_images(matched: MatchedDetections, outcome: np.ndarray, threshold: float) -> list[int]:
    """Positions in `truth.image_ids`, those with most missed objects and wrong predictions first."""
    truth, predictions = matched.truth, matched.predictions
    images = len(truth.image_ids)
    above = is_above(predictions.score, threshold)
    per_kind = {
        kind: np.bincount(predictions.image[above & (outcome == kind)], minlength=images)
        for kind in (*ERRORS, Outcome.TP)
    }
    missed = ~truth.crowd & ~matched.found_objects(above)
    per_kind[Outcome.MISS] = np.bincount(truth.image[missed], minlength=images)
    errors = np.sum([per_kind[kind] for kind in ERRORS], axis=0)
    # Of equally many errors those are worse that the model is surer of.
    surest = np.zeros(images)
    wrong = above & np.isin(outcome, ERRORS)
    np.maximum.at(surest, predictions.image[wrong], predictions.score[wrong])
    order = np.lexsort((-surest, -errors))
    chosen = dict.fromkeys(order[:WORST].tolist())
    for kind in GALLERY_ORDER:
        fewer = errors[order] if kind == Outcome.TP else 0
        of_kind = order[np.argsort(-per_kind[kind][order] + fewer, kind="stable")]
        chosen |= dict.fromkeys(image for image in of_kind[:OF_EACH_KIND].tolist() if per_kind[kind][image])
    chosen |= dict.fromkeys(order[: max(0, MOST - len(chosen)) + WORST].tolist())
    rank = {image: position for position, image in enumerate(order.tolist())}
    return sorted(list(chosen)[:MOST], key=lambda image: rank[image])


def _build_item(
    row: dict[str, Any],
    matched: MatchedDetections,
    outcome: np.ndarray,
    image: int,
    least_score: float,
    threshold: float,
) -> GalleryItem:
    truth, predictions = matched.truth, matched.predictions
    shown, (height, width) = decode_cell_with_size(row["image"], SIDE, row.get("white_level"))
    shown.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    names: Sequence[str] = (
        truth.names if len(truth.names) > 1 else [""]
    )  # where there is one class it goes without saying
    score_of = _scores_of_objects(matched, image)
    objects = []
    for index in np.flatnonzero(truth.image == image):
        kind = "crowd" if truth.crowd[index] else "object"
        score = score_of.get(int(index), -1.0)
        objects.append(_box_mark(truth.boxes_xywh_px[index], width, height, names[truth.category[index]], kind, score))
    own = np.flatnonzero((predictions.image == image) & is_above(predictions.score, least_score))
    own = own[np.argsort(-predictions.score[own], kind="stable")][:MOST_MARKS]
    marks = [
        _box_mark(
            predictions.boxes_xywh_px[index],
            width,
            height,
            names[predictions.category[index]],
            Outcome(outcome[index]).word,
            float(predictions.score[index]),
        )
        for index in own[::-1]  # the surest on top
    ]
    if predictions.masks is not None:
        kept = own[is_above(predictions.score[own], threshold)][::-1]
        shown = tint_masks(shown, predictions.masks.select(kept), predictions.category[kept])
    return GalleryItem(shown, row["file_name"], objects, marks)


def _scores_of_objects(matched: MatchedDetections, image: int) -> dict[int, float]:
    takers = np.flatnonzero((matched.predictions.image == image) & matched.is_tp)
    return dict(zip(matched.matched_gt[takers].tolist(), matched.predictions.score[takers].tolist(), strict=True))


def _box_mark(box_xywh_px: np.ndarray, width: int, height: int, name: str, outcome: str, score: float) -> BoxMark:
    """The box in percent of the image, cut off at its border, as DETR's boxes can reach over it."""
    x0, y0 = np.clip(box_xywh_px[:2] / (width, height), 0, 1)
    x1, y1 = np.clip((box_xywh_px[:2] + box_xywh_px[2:]) / (width, height), 0, 1)
    return BoxMark(100 * x0, 100 * y0, 100 * (x1 - x0), 100 * (y1 - y0), name, outcome, score)
