"""Answers of the demo's page about a photo: its boxes, and what a box's query attends to. Nothing of it is kept."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from matplotlib import style
from PIL import Image

from hf_detr_ft.attention.attention_plots import plot_cross_attention
from hf_detr_ft.attention.image_attention import attend
from hf_detr_ft.data.image_size import white_level_of
from hf_detr_ft.data.images import decode_rgb
from hf_detr_ft.data.masks import decode_masks
from hf_detr_ft.errors import DataError
from hf_detr_ft.inference import image_detector
from hf_detr_ft.inference.detect import ImageDetections
from hf_detr_ft.inference.image_detector import THRESHOLD
from hf_detr_ft.model.checkpoint import resolve_source
from hf_detr_ft.plots.draw_boxes import class_colour, text_colour
from hf_detr_ft.plots.style import to_png
from hf_detr_ft.run_folder import RunFolder

LEAST_SCORE = 0.01
"""Score above which boxes go to the page, whose threshold moves above it."""
SHOWN_SIDE = 1600
"""Longest side of the photo that the page shows, in pixels."""
MASK_SIDE = 800
"""Longest side of a mask that the page shows, in pixels; a mask head's own maps are smaller."""
ATTENTION_DPI = 150
"""Pixels of an inch of the picture of attention, which is 4.2 inches wide."""


@dataclass(frozen=True, eq=False)
class ShownModel:
    """A model on the page.

    Attributes:
        name: the run's or the repository's.
        detector: finds the boxes.
        threshold: where the page's slider starts.
    """

    name: str
    detector: image_detector.Detector
    threshold: float


class PhotoAnswers:
    """Models, asked by many at a time; one thread runs them, so that photos wait for each other.

    Args:
        models: all of which are asked about a photo.
    """

    def __init__(self, models: Sequence[ShownModel]) -> None:
        self.models = models
        self.thread = ThreadPoolExecutor(1)

    @classmethod
    def load(cls, sources: Sequence[str]) -> "PhotoAnswers":
        """Loads models, each from a run folder, another folder of a model, or a Hub id.

        Raises:
            CheckpointError: one cannot be loaded.
            DataError: the metrics of a run cannot be read.
        """
        load = image_detector.Detector.from_pretrained
        return cls([ShownModel(name_source(source), load(source), start_threshold(source)) for source in sources])

    def describe(self) -> dict[str, Any]:
        """Names and thresholds of the models, and the colours of all their classes, for JSON."""
        names = dict.fromkeys(name for model in self.models for name in model.detector.names)
        colours = [class_colour(place) for place in range(len(names))]
        return {
            "models": [{"name": model.name, "threshold": model.threshold} for model in self.models],
            "classes": {
                name: {"colour": colour.as_hex(), "ink": text_colour(colour).as_hex()}
                for name, colour in zip(names, colours, strict=True)
            },
        }

    def find(self, photo: bytes, name: str) -> dict[str, Any]:
        """Boxes of a photo, best first, with the photo as the first model sees it, for JSON.

        Args:
            photo: content of an image file of any kind.
            name: what errors call it.

        Raises:
            DataError: it is no whole image, or too elongated.
        """

        def work() -> dict[str, Any]:
            image = decode(self.models[0], photo, name)
            found = [find_boxes(model, photo, name) for model in self.models]
            return {"photo": to_address(image), "width": image.width, "height": image.height, "found": found}

        return self.thread.submit(work).result()

    def attend(
        self, photo: bytes, name: str, model: int, box_xyxy_px: Sequence[float], label: int, score: float
    ) -> bytes:
        """Attention of the decoder for one of the boxes that `find` gave, as a PNG.

        Args:
            photo: content of the same file.
            name: what errors call it.
            model: place of the one that found the box.
            box_xyxy_px: `[4]`, in pixels of the photo.
            label: of the box.
            score: of the box.

        Raises:
            CheckpointError: the model has no decoder that attends to the photo.
            DataError: there is no such box, or the photo cannot be read.
        """
        box = np.array(box_xyxy_px, np.float32)
        if not 0 <= model < len(self.models) or not 0 <= label < len(self.models[model].detector.names):
            raise DataError(f"expected one of {len(self.models)} models and one of its classes, found {model}, {label}")
        if box.shape != (4,) or not np.isfinite([*box, score]).all():
            raise DataError(f"expected four corners and a score, found {[*box_xyxy_px, score]}")
        clicked = ImageDetections(np.array([score], np.float32), np.array([label]), box[None])
        return self.thread.submit(draw_attention_of, self.models[model], photo, name, clicked).result()


def name_source(source: str) -> str:
    """The name of a run's folder; a Hub id as it is."""
    return RunFolder(source).name if Path(resolve_source(source, "model")).exists() else source


def start_threshold(source: str) -> float:
    """Threshold of the best F1 on a run's validation images; 0.5 where none was measured.

    Raises:
        DataError: the metrics of the run cannot be read.
    """
    best = RunFolder(resolve_source(source, "model")).read_metrics().get("best") or {}
    measured = (best.get("best_f1") or {}).get("threshold")
    return float(measured) if isinstance(measured, int | float) and LEAST_SCORE <= measured < 1 else THRESHOLD


def find_boxes(model: ShownModel, photo: bytes, name: str) -> dict[str, Any]:
    """Boxes, and masks, that a model finds in a photo, best first, and the seconds that it took.

    See `PhotoAnswers.find`.
    """
    started = perf_counter()
    found = model.detector(decode(model, photo, name), threshold=LEAST_SCORE)
    rows = zip(found["boxes"].tolist(), found["labels"].tolist(), found["names"], found["scores"].tolist(), strict=True)
    boxes = [{"box": box, "label": label, "name": class_name, "score": score} for box, label, class_name, score in rows]
    seconds = perf_counter() - started
    for box, segmentation in zip(boxes, found.get("segmentations", []), strict=False):
        box["mask"] = mask_to_address(segmentation)
    return {"seconds": seconds, "boxes": boxes}


def draw_attention_of(model: ShownModel, photo: bytes, name: str, clicked: ImageDetections) -> bytes:
    """Attention of the decoder for one detection, as a PNG; see `PhotoAnswers.attend`."""
    image, detector = decode(model, photo, name), model.detector
    attention = attend(detector.model, detector.processor, image, threshold=0, shown=clicked, name=name)
    with style.context("default"):  # whatever the user's matplotlibrc says
        figure = plot_cross_attention(image, attention, 0, detector.names)
        figure.set_dpi(ATTENTION_DPI)
        return to_png(figure)


def decode(model: ShownModel, photo: bytes, name: str) -> Image.Image:
    """The photo as a model sees it.

    Raises:
        DataError: it is no whole image.
    """
    return decode_rgb(photo, name, white_level=white_level_of(model.detector.processor))


def to_address(image: Image.Image) -> str:
    """An image as a `data:` address, scaled down to what a page shows."""
    small = image.copy()
    small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return encode(small, "JPEG", quality=90)


def mask_to_address(segmentation: Mapping[str, Any]) -> str:
    """A mask of the whole photo as a `data:` address of an image that is opaque on the object, scaled down."""
    height, width = segmentation["size"]
    scale = min(1, MASK_SIDE / max(height, width))
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    (mask,) = decode_masks([segmentation["counts"]], (height, width), shape)
    alpha = Image.fromarray(mask * 255)
    return encode(Image.merge("LA", (alpha, alpha)), "PNG", compress_level=1)


def encode(image: Image.Image, format: str, **settings: int) -> str:
    """An image as a `data:` address, as it is."""
    stream = BytesIO()
    image.save(stream, format=format, **settings)
    return f"data:image/{format.lower()};base64,{b64encode(stream.getvalue()).decode()}"
