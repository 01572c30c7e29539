"""A sheet of annotations that a model contradicts: what is annotated, and what the model finds in its place."""

from collections.abc import Sequence

import numpy as np
import supervision as sv
from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont

from hf_detr_ft.boxes import xywh_to_xyxy
from hf_detr_ft.data.images import decode_row
from hf_detr_ft.evaluation.suspects import Suspect
from hf_detr_ft.evaluation.truth import Predictions, Truth
from hf_detr_ft.plots.draw_boxes import draw_boxes
from hf_detr_ft.plots.text_layout import FONT, readable, shorten

COLUMNS = 4
TILE = 300
"""Pixels of a tile's side."""
CAPTION = 34
"""Pixels of the two lines below a tile."""
MOST = 40
"""Suspects that are drawn."""
AROUND = 0.75
"""Image that is shown around the boxes, in their size."""
LEAST = 48
"""Pixels of the image that a tile shows at least, on each side."""
ANNOTATED, FOUND = sv.Color.from_hex("#e8a000"), sv.Color.from_hex("#1f8fff")
WORDS = {"missing": "likely missing", "class": "likely another class", "place": "likely badly placed"}
"""Words for the kinds of suspects."""


def describe_suspect(suspect: Suspect, truth: Truth, predictions: Predictions, ids: Sequence[int | None]) -> str:
    """A line for the terminal: what is likely wrong, which annotation it is, and what the model finds.

    Args:
        suspect: of `find_worst_suspects`.
        truth: the annotations.
        predictions: what the model found.
        ids: of the annotations, by their position.
    """
    box = ", ".join(f"{value:.0f}" for value in predictions.boxes_xywh_px[suspect.detection])
    name, score = truth.names[predictions.category[suspect.detection]], predictions.score[suspect.detection]
    found = f"the model finds {name!r} at [{box}] with score {score:.2f}"
    if suspect.annotation is None:
        return f"{WORDS[suspect.kind]}: {found}"
    annotated = truth.names[truth.category[suspect.annotation]]
    return f"{WORDS[suspect.kind]}: annotation id {ids[suspect.annotation]}, {annotated!r}; {found}"


def draw_suspects(suspects: Sequence[Suspect], truth: Truth, predictions: Predictions, rows: Dataset) -> Image.Image:
    """The sheet, worst first, four in a row: the annotation in orange, the model's detection in blue.

    Args:
        suspects: of `find_worst_suspects`, at least one; the first `MOST` are drawn.
        truth: the annotations.
        predictions: what the model found.
        rows: of `load_split`.

    Raises:
        DataError: an image cannot be read.
    """
    places = {image_id: place for place, image_id in enumerate(rows["image_id"])}
    drawn = []
    for suspect in suspects[:MOST]:
        row = rows[places[int(truth.image_ids[suspect.image])]]
        drawn.append((_draw_tile(suspect, truth, predictions, decode_row(row)), row["file_name"], suspect))
    lines = -(-len(drawn) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, lines * (TILE + CAPTION)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(str(FONT), 12)
    for number, (tile, file_name, suspect) in enumerate(drawn):
        left, top = number % COLUMNS * TILE, number // COLUMNS * (TILE + CAPTION)
        sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
        title = f"{number + 1}. {WORDS[suspect.kind]} ({suspect.right:.0%})"
        for line, text in enumerate((title, readable(file_name))):
            pen.text((left + 4, top + TILE + 2 + 15 * line), shorten(text, 12, TILE - 8), fill="black", font=font)
    return sheet


def _draw_tile(suspect: Suspect, truth: Truth, predictions: Predictions, image: Image.Image) -> Image.Image:
    """Part of an image around the annotation and the detection, both drawn in."""
    detection = suspect.detection
    boxes = [predictions.boxes_xywh_px[detection]]
    texts = [f"model: {truth.names[predictions.category[detection]]} {predictions.score[detection]:.2f}"]
    if suspect.annotation is not None:
        boxes.insert(0, truth.boxes_xywh_px[suspect.annotation])
        texts.insert(0, f"annotated: {truth.names[truth.category[suspect.annotation]]}")
    corners = xywh_to_xyxy(np.array(boxes))
    (left, top), (right, bottom) = corners[:, :2].min(axis=0).tolist(), corners[:, 2:].max(axis=0).tolist()
    side = max(LEAST, (1 + 2 * AROUND) * max(right - left, bottom - top)) / 2
    middle = ((left + right) / 2, (top + bottom) / 2)
    part = [
        max(0, int(middle[0] - side)),
        max(0, int(middle[1] - side)),
        min(image.width, round(middle[0] + side)),
        min(image.height, round(middle[1] + side)),
    ]
    crop = image.crop((part[0], part[1], part[2], part[3]))
    scale = (TILE - 6) / max(crop.size)
    crop = crop.resize((max(1, round(crop.width * scale)), max(1, round(crop.height * scale))))
    moved = (corners - np.tile(part[:2], 2)) * scale
    colours = [FOUND] if suspect.annotation is None else [ANNOTATED, FOUND]
    return draw_boxes(crop, moved, [[text] for text in texts], colours, reach=1, letters=12)
