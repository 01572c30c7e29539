"""An exported file beside the model it was made of: AP, boxes and speed, on the same images."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from hf_detr_ft.data.image_size import ImageProcessor
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.evaluation.coco_eval import evaluate_matched
from hf_detr_ft.evaluation.detections import Detections, to_detections
from hf_detr_ft.evaluation.matching import match_detections
from hf_detr_ft.evaluation.truth import read_truth
from hf_detr_ft.export.network import Network
from hf_detr_ft.inference.detect import ImageDetections, detect_prepared
from hf_detr_ft.model.predictions import DetectionOutput
from hf_detr_ft.recipe.sections import EvaluationConfig
from hf_detr_ft.training.evaluate_model import SplitRows

SURE = 0.1
"""Score from which on a detection's box is compared."""
SHAPES = ((1, 1, 1.5), (4, 1.5, 1.5), (1, 2.03, 1.1), (4, 1.17, 2.51), (3, 2.5, 3.5))
"""Number of images, height and width of the batches of noise that a file is tried with, in the smallest sides."""
APART = 0.01
"""Least difference of a box's sides, of 1, and of a score, in fp32, that comes from another network, not rounding."""
NEAR = 0.02
"""Share of detections that may be apart: some queries are chosen by scores that rounding makes equal."""


class ExportedModel:
    """A file's network in the place of the model it was made of: what `detect_prepared` asks of a model."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, run: Callable[..., Sequence[np.ndarray]], network: Network) -> None:
        self.config = network.model.config
        self._run, self._inputs = run, network.inputs

    def eval(self) -> None:
        """Nothing: it cannot be trained."""

    def __call__(self, **inputs: torch.Tensor) -> DetectionOutput:
        """Logits and boxes; see `Network`."""
        logits, boxes = self._run(*(inputs[name].numpy() for name in self._inputs))
        return DetectionOutput(logits=torch.from_numpy(logits), pred_boxes=torch.from_numpy(boxes))


@dataclass
class Measured:
    """Detections of one model on all images of a split.

    Attributes:
        ap: COCO's AP.
        found: detections of each image.
        sizes: (height, width) of each image.
        images_per_second: speed by the median, of images that are prepared.
    """

    ap: float
    found: list[ImageDetections]
    sizes: list[tuple[int, int]]
    images_per_second: float


def measure(
    models: Sequence[Any],
    split: SplitRows,
    processor: ImageProcessor,
    evaluation: EvaluationConfig,
    on_bad_image: Literal["stop", "skip"] = "stop",
) -> list[Measured]:
    """Runs models over a split in turn, image by image, and computes AP as `evaluate` does.

    Args:
        models: of torch, or exported.
        split: is read once.
        processor: the models' own.
        evaluation: the recipe's section.
        on_bad_image: as in the recipe.
    """
    found: list[list[ImageDetections]] = [[] for _ in models]
    seconds: list[list[float]] = [[] for _ in models]
    sizes, ids = list[tuple[int, int]](), list[int]()
    for row in transformed(split.rows, DetrTransform(processor, on_bad_image=on_bad_image)):
        if "unreadable" in row["labels"]:
            continue
        height, width = row["labels"]["orig_size"].tolist()
        sizes.append((height, width))
        ids.append(int(row["labels"]["image_id"]))
        for place, model in enumerate(models):
            started = time.perf_counter()
            found[place] += detect_prepared(model, [row["pixel_values"]], [(height, width)])
            seconds[place].append(time.perf_counter() - started)
    truth = read_truth(split.truth, False)

    def average_precision(some: list[ImageDetections]) -> float:
        rows = [np.concatenate([one.scores[:, None], one.labels[:, None], one.boxes_xyxy_px], 1)[None] for one in some]
        pairs = zip(rows, ids, strict=True)
        all_of_them = Detections.concat([to_detections(row, np.array([id_]), split.label_map) for row, id_ in pairs])
        matched = match_detections(truth, all_of_them, evaluation.max_detections)
        return float(evaluate_matched(matched, evaluation.backend).metrics["map"])

    return [
        Measured(average_precision(some), some, sizes, 1 / float(np.median(times)))
        for some, times in zip(found, seconds, strict=True)
    ]


def largest_difference(theirs: Measured, ours: Measured) -> tuple[float, float]:
    """Largest distance of a box's side from the nearest box of the same class that another model found.

    Of detections with a score above 0.1.

    Returns:
        In pixels of the photos, and as a share of the photo's longer side.
    """
    pixels, shares = [0.0], [0.0]
    for one, other, size in zip(theirs.found, ours.found, theirs.sizes, strict=True):
        apart = distances(one.above(SURE), other)
        apart[np.isinf(apart)] = max(size)
        pixels += apart.tolist()
        shares += (apart / max(size)).tolist()
    return max(pixels), max(shares)


def distances(some: ImageDetections, others: ImageDetections) -> np.ndarray:
    """Distance of each box to the nearest one of its class, `[N]`: the largest of four sides; infinite without any."""
    if not len(others):
        return np.full(len(some), np.inf)
    apart = np.abs(some.boxes_xyxy_px[:, None] - others.boxes_xyxy_px[None]).max(-1)
    return np.where(some.labels[:, None] == others.labels[None], apart, np.inf).min(1)


@torch.inference_mode()
def check_shapes(run: Callable[..., Sequence[np.ndarray]], network: Network, name: str) -> None:
    """Runs a file and its network on noise of several shapes, in batches of one and of four with padding.

    A number that became a constant while the network was recorded (a batch's size, a mask, a position) shows in batches
    of other shapes than the recorded one: detectors have lost 12 AP by it without a message (mmdetection, PR 5168).

    Raises:
        CheckpointError: boxes or scores differ.
    """
    for batch, height, width in SHAPES:
        inputs = network.example(batch, int(height * network.least), int(width * network.least))
        shape = tuple(inputs[0].shape)
        wanted = [output.numpy() for output in network(*inputs)]
        try:
            got = run(*(part.numpy() for part in inputs))
        except Exception as error:  # of any runtime
            raise CheckpointError(_differs(name, shape, str(error).splitlines()[0])) from error
        share = max(_share_apart(*pair) for pair in zip(wanted, got, strict=True))
        if share > NEAR:
            raise CheckpointError(_differs(name, shape, f"{share:.0%} of the queries differ"))


def _share_apart(wanted: np.ndarray, got: np.ndarray) -> float:
    """Share of queries of which no equal one is among those of the other, in any order."""
    if wanted.shape != got.shape or not np.isfinite(got).all():
        return 1.0
    apart = np.abs(wanted[:, :, None] - got[:, None]).max(-1).min(-1)
    return float((apart > APART * max(1.0, float(np.abs(wanted).max()))).mean())


def _differs(name: str, shape: tuple[int, ...], what: str) -> str:
    return (
        f"{name}: expected the model's boxes on images of any size, but on a batch of the shape {shape} "
        f"{what}. This family cannot be exported to this format."
    )
