"""Attention maps of an image, and the detections and points that they are asked for."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_iou
from transformers import PreTrainedModel

from hf_detr_ft.attention.recorded_forward import RecordedForward, record_attention
from hf_detr_ft.data.image_size import ImageProcessor
from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.inference.detect import ImageDetections, class_scores, corners_in_pixels, prepare
from hf_detr_ft.model.families import family_of
from hf_detr_ft.model.families.family import Family

MOST_SHOWN = 4
"""Detections that are chosen: as many as stand side by side on a page."""
SAME_PLACE = 0.5
"""IoU above which two detections are taken for one place."""
GRID_POINTS = 64
"""Points along each side among which the one of the background is found."""


@dataclass(frozen=True, eq=False)
class SampledPoints:
    """Points of an image that deformable attention reads for each detection, and their weights.

    Attributes:
        points_xy_px: `[L, K, M, S, 2]` float32, S of each of M heads in L decoder layers; some lie beside the image,
            where there is nothing to read.
        weights: `[L, K, M, S]` float32; those of a head sum to 1.
    """

    points_xy_px: np.ndarray
    weights: np.ndarray

    def of(self, index: int, layer: int = -1, head: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Points `[N, 2]` of a detection in a layer, of one head or of all, and their weights `[N]`, which sum to 1."""
        heads = slice(None) if head is None else slice(head, head + 1)
        points, weights = self.points_xy_px[layer, index, heads], self.weights[layer, index, heads]
        return points.reshape(-1, 2), weights.ravel() / len(weights)


@dataclass(frozen=True, eq=False)
class ImageAttention:
    """Attention of one image, and what it belongs to.

    A map has a number for each cell of the feature map, which covers the image evenly; they sum to 1. Deformable
    attention reads a few points instead, and has no maps.

    Attributes:
        size: (height, width) of the image whose pixels boxes and points are in.
        threshold: of the score. Only where no detection is above it, one below it is the only one here.
        queries: `[K]` int64, numbers of the detections' queries, best score first.
        labels: `[K]` int64.
        scores: `[K]` float32.
        boxes_xyxy_px: `[K, 4]` float32; can reach over the border.
        cross: `[L, K, M, h, w]` float32: of each detection's query over the image, in L decoder layers with M heads;
            `[L, K, M, 0, 0]` where these sample points.
        points_xy_px: `[P, 2]` float64; none where the model has no encoder layers, or they sample points.
        point_of: `[P]` int64, the detection (its place in `queries`) whose centre the point is; -1 for any other point.
        encoder: `[P, h, w]` float32: of each point's cell over the image, in the last encoder layer, mean over heads.
        sampled: the decoder's points; None where it has maps.
    """

    size: tuple[int, int]
    threshold: float
    queries: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    boxes_xyxy_px: np.ndarray
    cross: np.ndarray
    points_xy_px: np.ndarray
    point_of: np.ndarray
    encoder: np.ndarray
    sampled: SampledPoints | None = None

    def __len__(self) -> int:
        return len(self.queries)

    def cross_map(self, index: int, layer: int = -1, head: int | None = None) -> np.ndarray:
        """Map `[h, w]` of one detection in a decoder layer, of one head or as the mean over all."""
        maps = self.cross[layer, index]
        return maps.mean(axis=0) if head is None else maps[head]

    def share_in_own_box(self, index: int, layer: int = -1, head: int | None = None) -> float:
        """Share of a detection's attention that lies in its box, from 0 to 1."""
        box_xyxy_px = self.boxes_xyxy_px[index]
        if self.sampled is None:
            return share_in_box(self.cross_map(index, layer, head), box_xyxy_px, self.size)
        points, weights = self.sampled.of(index, layer, head)
        inside = ((points >= box_xyxy_px[:2]) & (points <= box_xyxy_px[2:])).all(axis=1)
        return float(weights[inside].sum())


def require_decoder(model: PreTrainedModel) -> None:
    """Refuses a model whose queries read the image in no layer of their own.

    Raises:
        CheckpointError: it is such a model.
    """
    if not hasattr(getattr(getattr(model, "detr", model), "model", None), "decoder"):
        raise CheckpointError(
            f"{family_of(model).name}: expected a model with a decoder that attends to the image, found one without. "
            "Everything else works without its attention."
        )


def attend(
    model: PreTrainedModel,
    processor: ImageProcessor,
    image: Image.Image,
    *,
    threshold: float = 0.5,
    most: int = MOST_SHOWN,
    points_xy_px: np.ndarray | None = None,
    shown: ImageDetections | None = None,
    name: str = "image",
) -> ImageAttention:
    """Detects, chooses what to show, and computes what is attended to; the model runs once.

    Args:
        model: used in evaluation mode, where it is.
        processor: the model's own.
        image: upright RGB, as `decode_rgb` gives it.
        threshold: see `choose_detections`.
        most: see `choose_detections`.
        points_xy_px: `[P, 2]` in pixels of the image; by default those of `choose_points`.
        shown: detections that this model found in this image and that are wanted, instead of chosen ones.
        name: what errors call the image.

    Raises:
        DataError: the image is too elongated to be resized.
        CheckpointError: the model has no decoder.
    """
    require_decoder(model)
    recorded = record_attention(model, prepare(image, processor, name))
    detections = best_of_queries(recorded, family_of(model), (image.height, image.width))
    queries = choose_detections(detections, threshold, most) if shown is None else queries_of(shown, detections)
    shown = detections.at(queries) if shown is None else shown
    boxes_xyxy_px = shown.boxes_xyxy_px
    if points_xy_px is None:
        occupied = np.concatenate([boxes_xyxy_px, detections.above(threshold).boxes_xyxy_px])
        points_xy_px, point_of = choose_points(boxes_xyxy_px, occupied, (image.height, image.width))
    else:
        points_xy_px = np.asarray(points_xy_px, dtype=np.float64).reshape(-1, 2)
        point_of = np.full(len(points_xy_px), -1)
    if recorded.encoder is None:
        points_xy_px, point_of, encoder = points_xy_px[:0], point_of[:0], np.zeros((0, *recorded.size), np.float32)
    else:
        encoder = recorded.self_attention(points_xy_px / image.size).mean(axis=1)
    cross, sampled = _read_by(recorded, queries, image.size)
    return ImageAttention(
        size=(image.height, image.width),
        threshold=threshold,
        queries=queries,
        labels=shown.labels,
        scores=shown.scores,
        boxes_xyxy_px=boxes_xyxy_px,
        cross=cross,
        points_xy_px=points_xy_px,
        point_of=point_of,
        encoder=encoder,
        sampled=sampled,
    )


def _read_by(
    recorded: RecordedForward, queries: np.ndarray, size_xy: tuple[int, int]
) -> tuple[np.ndarray, SampledPoints | None]:
    """Attention of queries over the image: maps, or points in pixels beside maps without cells."""
    if not recorded.samples:
        return recorded.cross_attention(queries), None
    points, weights = recorded.sampled_points(queries)
    sampled = SampledPoints(points * np.array(size_xy, np.float32), weights)
    return np.zeros((*weights.shape[:3], 0, 0), np.float32), sampled


def best_of_queries(recorded: RecordedForward, family: Family, size: tuple[int, int]) -> ImageDetections:
    """One detection of each query, in their order, of its best class.

    Args:
        recorded: outputs for the image.
        family: of the model.
        size: (height, width) of the image.
    """
    scores, labels = class_scores(recorded.logits.cpu(), family).max(-1)
    boxes_xyxy_px = corners_in_pixels(recorded.pred_boxes.cpu(), torch.tensor(size))
    return ImageDetections(scores.numpy(), labels.numpy(), boxes_xyxy_px.numpy())


def choose_detections(detections: ImageDetections, threshold: float, most: int = MOST_SHOWN) -> np.ndarray:
    """Detections that show different things: other classes before more of a class, never one place twice.

    Args:
        detections: of all queries.
        threshold: of the score, to be above; where none is, the best query is chosen all the same.
        most: how many to choose, at least 1.

    Returns:
        Numbers of the queries, `[K]` int64 with K from 1 to `most`, best score first.
    """
    order = np.argsort(-detections.scores, kind="stable")
    above = order[is_above(detections.scores[order], threshold)]
    boxes = torch.from_numpy(detections.boxes_xyxy_px[above])
    overlaps = (box_iou(boxes, boxes) > SAME_PLACE).numpy()
    distinct: list[int] = []
    for place in range(len(above)):
        if not overlaps[place, distinct].any():
            distinct.append(place)
    if not distinct:
        return order[:1]
    labels = detections.labels[above[distinct]].tolist()
    nth_of_class = [labels[:index].count(label) for index, label in enumerate(labels)]
    kept = np.argsort(nth_of_class, kind="stable")[:most]
    return above[distinct][np.sort(kept)]


def queries_of(found: ImageDetections, detections: ImageDetections) -> np.ndarray:
    """Numbers `[N]` of the queries that N detections come from: those whose boxes are the nearest.

    Args:
        found: some of the model's detections of the image.
        detections: one of each query.
    """
    apart = np.abs(found.boxes_xyxy_px[:, None] - detections.boxes_xyxy_px[None]).max(axis=-1)
    return apart.argmin(axis=1)


def choose_points(
    boxes_xyxy_px: np.ndarray, occupied_xyxy_px: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Centre of each box, and the point of the background that is farthest from every box and from the border.

    Args:
        boxes_xyxy_px: `[K, 4]`; the part within the image counts.
        occupied_xyxy_px: `[T, 4]`, where there is no background.
        size: (height, width) of the image.

    Returns:
        `[P, 2]` float64, x and y in pixels, and `[P]` int64, the box that a point is the centre of, -1 for the
        background. P is K + 1, or K where boxes leave no background.
    """
    height, width = size
    limits = np.array([width, height] * 2, dtype=np.float64)
    inside = np.clip(boxes_xyxy_px.reshape(-1, 4).astype(np.float64), 0, limits)
    centres = (inside[:, :2] + inside[:, 2:]) / 2
    steps = (np.arange(GRID_POINTS) + 0.5) / GRID_POINTS
    x, y = (side.ravel() for side in np.meshgrid(steps * width, steps * height))
    room = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y))
    for x0, y0, x1, y1 in occupied_xyxy_px.reshape(-1, 4):
        away = np.maximum(x0 - x, x - x1).clip(0), np.maximum(y0 - y, y - y1).clip(0)
        room = np.minimum(room, np.hypot(*away))
    if room.max() <= 0:
        return centres, np.arange(len(centres))
    farthest = room.argmax()
    return np.vstack([centres, [x[farthest], y[farthest]]]), np.append(np.arange(len(centres)), -1)


def share_in_box(weights: np.ndarray, box_xyxy_px: np.ndarray, size: tuple[int, int]) -> float:
    """Share of a map that lies in a box, from 0 to 1; a cell that the box cuts counts by the part inside.

    Args:
        weights: `[h, w]`, summing to 1. Equal ones give the box's share of the image.
        box_xyxy_px: `[4]`.
        size: (height, width) of the image.
    """
    covered = []
    for low, high, side, cells in zip(box_xyxy_px[:2], box_xyxy_px[2:], size[::-1], weights.shape[::-1], strict=True):
        edges = np.arange(cells + 1) * (side / cells)
        covered.append(np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None) * (cells / side))
    across, down = covered
    return float(down @ weights @ across)
