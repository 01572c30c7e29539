"""The section Gallery: validation photos with truth and predictions side by side, the worst ones first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from hf_detr_ft.data.dataset import read_column
from hf_detr_ft.data.images import cell_size, decode_cell
from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.evaluation.matching import NOTHING
from hf_detr_ft.evaluation.tide import KINDS as ERROR_KINDS
from hf_detr_ft.evaluation.tide import RIGHT, Errors
from hf_detr_ft.evaluation.truth import Found, Truth, index_detections, read_truth
from hf_detr_ft.formatting import counted
from hf_detr_ft.report.blocks import WRONG, Block, Card, Gallery, Mark, Note, Section, Text
from hf_detr_ft.report.load_run import Validation

WORST, OF_EACH_KIND, MOST = 12, 3, 24
"""Photos: so many of the worst, then so many for each kind of error (and for right ones), no more than so many."""
SIDE = 640
"""The longer side of a photo, in pixels."""
LEAST_SCORE, MOST_MARKS = 0.05, 100
"""Predictions in the page: none with a score that is not above, and no more of the best than so many on a photo."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of detections at IoU 0.5.

    Attributes:
        kind: `[N]` str, per detection: `right`, `ignored` (in a crowd region, or one too many), or an error of `WRONG`.
        taken: `[N]`, the position in `Truth` of the object that a right detection took, negative for all others.
    """

    kind: np.ndarray
    taken: np.ndarray

    @classmethod
    def of_errors(cls, errors: Errors) -> "Outcomes":
        """The same in words."""
        words = np.array([*ERROR_KINDS, "ignored", "right"])  # RIGHT is -1 and IGNORED -2
        return cls(words[errors.kind], np.where(errors.kind == RIGHT, errors.target, NOTHING))


def describe_gallery(validation: Validation, errors: Errors, threshold: float) -> Section:
    """Up to 24 photos.

    Args:
        validation: with or without rows.
        errors: of its detections.
        threshold: predictions with a score above it are drawn at first.
    """
    title, anchor = "Gallery", "gallery"
    if validation.rows is None:
        return Section(title, anchor, [Note("The validation photos cannot be read, so there are none to show.")])
    truth = read_truth(validation.truth)
    found = index_detections(truth, validation.detections)
    outcomes = Outcomes.of_errors(errors)
    images = choose_images(truth, found, outcomes, threshold)
    place = {image_id: index for index, image_id in enumerate(read_column(validation.rows, "image_id"))}
    plain, least = validation.rows.with_format(None), min(LEAST_SCORE, threshold)
    cards, unreadable = [], []
    for image in images:
        row = plain[place[int(truth.image_ids[image])]]
        try:
            cards.append(_card(row, truth, found, outcomes, image, least))
        except DataError as error:
            unreadable.append(str(error))
    blocks: list[Block] = []
    if unreadable:
        blocks.append(Note(_unreadable(unreadable)))
    if cards:
        total = len(truth.image_ids)
        shown = "all of them" if len(cards) == total else f"{len(cards)} of them, for each kind of error the worst"
        text = (
            f"{counted(total, 'validation image')}, {shown}, in the order of what is missed and wrong at the threshold "
            "of the best F1. A prediction is right that takes an object of its class at IoU 0.5."
        )
        blocks += [Text(text), Gallery(cards, threshold, least)]
    return Section(title, anchor, blocks)


def _unreadable(errors: Sequence[str]) -> str:
    remedy = "Where they have moved, give their place: hf-detr-ft report RUN --data.root FOLDER."
    return f"{counted(len(errors), 'photo')} cannot be shown. {remedy} The first: {errors[0]}"


def choose_images(truth: Truth, found: Found, outcomes: Outcomes, threshold: float) -> list[int]:
    """Positions in `truth.image_ids`, those with most missed objects and wrong predictions first."""
    images = len(truth.image_ids)
    kept = is_above(found.score, threshold)
    hit = np.zeros(len(truth.area), dtype=bool)
    hit[outcomes.taken[kept & (outcomes.taken >= 0)]] = True
    per_kind = {
        kind: np.bincount(found.image[kept & (outcomes.kind == kind)], minlength=images) for kind in (*WRONG, "right")
    }
    per_kind["missed"] = np.bincount(truth.image[~truth.crowd & ~hit], minlength=images)
    errors = sum((per_kind[kind] for kind in WRONG), per_kind["missed"])
    # Of equally many errors those are worse that the model is surer of.
    surest = np.zeros(images)
    wrong = kept & np.isin(outcomes.kind, WRONG)
    np.maximum.at(surest, found.image[wrong], found.score[wrong])
    order = np.lexsort((-surest, -errors))
    chosen = dict.fromkeys(order[:WORST].tolist())
    for kind in ("missed", *WRONG, "right"):
        of_kind = order[np.argsort(-per_kind[kind][order] + (errors[order] if kind == "right" else 0), kind="stable")]
        chosen |= dict.fromkeys(image for image in of_kind[:OF_EACH_KIND].tolist() if per_kind[kind][image])
    chosen |= dict.fromkeys(order[: max(0, MOST - len(chosen)) + WORST].tolist())
    rank = {image: position for position, image in enumerate(order.tolist())}
    return sorted(list(chosen)[:MOST], key=lambda image: rank[image])


def _card(row: dict[str, Any], truth: Truth, found: Found, outcomes: Outcomes, image: int, least_score: float) -> Card:
    height, width = cell_size(row["image"])
    photo = decode_cell(row["image"], SIDE)
    photo.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    names: Sequence[str] = (
        truth.names if len(truth.names) > 1 else [""]
    )  # where there is one class it goes without saying
    score_of = _scores_of_objects(found, outcomes, image)
    objects = []
    for index in np.flatnonzero(truth.image == image):
        outcome = "crowd" if truth.crowd[index] else "object"
        score = score_of.get(int(index), -1.0)
        objects.append(_mark(truth.boxes_xywh_px[index], width, height, names[truth.category[index]], outcome, score))
    own = np.flatnonzero((found.image == image) & is_above(found.score, least_score))
    own = own[np.argsort(-found.score[own], kind="stable")][:MOST_MARKS]
    predictions = [
        _mark(
            found.boxes_xywh_px[index],
            width,
            height,
            names[found.category[index]],
            str(outcomes.kind[index]),
            float(found.score[index]),
        )
        for index in own[::-1]  # the surest on top
    ]
    return Card(photo, row["file_name"], objects, predictions)


def _scores_of_objects(found: Found, outcomes: Outcomes, image: int) -> dict[int, float]:
    takers = np.flatnonzero((found.image == image) & (outcomes.taken >= 0))
    return dict(zip(outcomes.taken[takers].tolist(), found.score[takers].tolist(), strict=True))


def _mark(box_xywh_px: np.ndarray, width: int, height: int, name: str, outcome: str, score: float) -> Mark:
    """The box in percent of the photo, cut off at its border, as DETR's boxes can reach over it."""
    x0, y0 = np.clip(box_xywh_px[:2] / (width, height), 0, 1)
    x1, y1 = np.clip((box_xywh_px[:2] + box_xywh_px[2:]) / (width, height), 0, 1)
    return Mark(100 * x0, 100 * y0, 100 * (x1 - x0), 100 * (y1 - y0), name, outcome, score)
