"""The 12 COCO numbers as an `evaluate.Metric`, for loops of one's own; needs no network and no `evaluate.load`.

Kept apart from `coco_eval.py` because importing `evaluate` takes seconds and nothing else here needs it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from hf_detr_ft.boxes import xyxy_to_xywh
from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.coco_eval import Backend, evaluate_detections
from hf_detr_ft.evaluation.coco_result import MAX_DETECTIONS, CocoResult
from hf_detr_ft.evaluation.detections import Detections

_DESCRIPTION = "COCO average precision and recall of boxes, against the annotations as they stand in the COCO JSON."

_INPUTS = """
Args:
    predictions: per image what `processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=...)`
        returns: `{"scores": [N], "labels": [N], "boxes": [N, 4]}`, boxes x0, y0, x1, y1 in pixels of the original.
    references: per image a dict with its `image_id` as in the COCO JSON; other keys are not looked at, so the
        processor's labels will do. Boxes, areas and crowd regions come from the COCO dict.
Returns:
    dict: map, map_50, map_75, map_small, map_medium, map_large, mar_1, mar_10, mar_100, mar_small, mar_medium and
    mar_large, -1 where there is no such object, and those of `max_detections`. Classes, sizes and the
    best F1 are then in `metric.result`.
"""


class CocoMetric(evaluate.Metric):
    """COCO's numbers over the images of a COCO dict.

    The truth is the dict given here, because a processor's labels are no longer it: they lack crowd regions and their
    areas are those of resized images. Images of the dict that are never added count as images without detections.

    Example:
        >>> coco = {
        ...     "images": [{"id": 7}],
        ...     "categories": [{"id": 3, "name": "disc"}],
        ...     "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 20, 40, 50]}],
        ... }
        >>> metric = CocoMetric(coco)
        >>> results = [{"scores": [0.9], "labels": [0], "boxes": [[10, 20, 50, 70]]}]
        >>> metric.add_batch(predictions=results, references=[{"image_id": 7}])
        >>> round(metric.compute()["map"], 3)
        1.0
        >>> metric.result.best_f1.threshold
        0.899

    Attributes:
        result: everything that the last `compute` found; None before it.
    """

    def __init__(
        self,
        coco: dict,
        *,
        category_ids: Sequence[int] | None = None,
        backend: Backend = "faster-coco-eval",
        max_detections: int = MAX_DETECTIONS,
        **kwargs: Any,
    ) -> None:
        """Prepares an empty metric.

        Args:
            coco: the annotations as read.
            category_ids: the data set's category id of each label; without it the dict's ids in ascending order, which
                is what this package trains with (and writes to `config.json`).
            backend: see `evaluate_detections`.
            max_detections: likewise; give post-processing a `top_k` as large, where the model's has one.
            **kwargs: as `evaluate.Metric` takes them. Predictions stay in memory, unless several processes share
                (`num_process`).
        """
        kwargs.setdefault("keep_in_memory", kwargs.get("num_process", 1) == 1)
        super().__init__(**kwargs)
        self.coco = coco
        listed = sorted({entry["id"] for entry in coco["categories"]})
        self.category_ids = np.asarray(listed if category_ids is None else category_ids)
        self.backend = backend
        self.max_detections = max_detections
        self.result: CocoResult | None = None

    def _info(self) -> evaluate.MetricInfo:
        number, label = datasets.Value("float64"), datasets.Value("int64")
        prediction = {
            "scores": datasets.Sequence(number),
            "labels": datasets.Sequence(label),
            "boxes": datasets.Sequence(datasets.Sequence(number)),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": prediction, "references": {"image_id": label}}),
            reference_urls=["https://cocodataset.org/#detection-eval"],
        )

    def add(self, *, prediction: Mapping | None = None, reference: Mapping | None = None, **kwargs: Any) -> None:
        """Adds one image."""
        super().add(prediction=_plain_prediction(prediction), reference=_plain_reference(reference), **kwargs)

    def add_batch(
        self,
        *,
        predictions: Iterable[Mapping] | None = None,
        references: Iterable[Mapping] | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds the images of a batch."""
        super().add_batch(
            predictions=[_plain_prediction(prediction) for prediction in predictions or ()],
            references=[_plain_reference(reference) for reference in references or ()],
            **kwargs,
        )

    def compute(self, **kwargs: Any) -> dict[str, float] | None:
        """Scores the images added since the last `compute`; None on all processes but the first."""
        if self.keep_in_memory and self.writer is None and kwargs.get("predictions") is None:
            raise ValueError("Nothing to compute: call `add` or `add_batch` at least once before `compute`")
        return super().compute(**kwargs)

    def _compute(self, *, predictions: list[dict], references: list[dict], **kwargs: Any) -> dict[str, float]:
        image_ids = np.array([reference["image_id"] for reference in references], dtype=np.int64)
        unique, times = np.unique(image_ids, return_counts=True)
        if (times > 1).any():
            raise DataError(
                f"Images were added more than once, their ids: {unique[times > 1][:10].tolist()}; each image counts "
                "once, so start from an empty metric and, on several processes, use `accelerator.gather_for_metrics`"
            )
        detections = self._detections(image_ids, predictions)
        self.result = evaluate_detections(
            self.coco, detections, backend=self.backend, max_detections=self.max_detections
        )
        return self.result.metrics

    def _detections(self, image_ids: np.ndarray, predictions: list[dict]) -> Detections:
        labels = np.array([label for prediction in predictions for label in prediction["labels"]], dtype=np.int64)
        unknown = np.setdiff1d(labels, np.arange(len(self.category_ids))).tolist()
        if unknown:
            raise DataError(
                f"Predictions have labels {unknown[:10]}, but the data set has {len(self.category_ids)} categories "
                f"(labels 0 to {len(self.category_ids) - 1}); give `category_ids` if the model has others"
            )
        boxes = np.array([box for prediction in predictions for box in prediction["boxes"]], dtype=float).reshape(-1, 4)
        return Detections(
            image_id=np.repeat(image_ids, [len(prediction["scores"]) for prediction in predictions]),
            category_id=self.category_ids[labels],
            score=np.array([score for prediction in predictions for score in prediction["scores"]], dtype=float),
            boxes_xywh_px=xyxy_to_xywh(boxes),
        )


def _plain_prediction(prediction: Mapping | None) -> dict[str, list] | None:
    if prediction is None:
        return None
    plain = {key: _plain(prediction[key]) for key in ("scores", "labels", "boxes")}
    if len({len(values) for values in plain.values()}) > 1:
        counts = ", ".join(f"{len(values)} {key}" for key, values in plain.items())
        raise DataError(f"A prediction must have as many scores as labels and boxes, found {counts}")
    return plain


def _plain_reference(reference: Mapping | None) -> dict[str, int] | None:
    # The processor gives image_id as a tensor of one element.
    return None if reference is None else {"image_id": int(np.asarray(_plain(reference["image_id"])).item())}


def _plain(values: Any) -> Any:
    """Tensors on any device and arrays to nested lists; lists as they are."""
    return values.tolist() if hasattr(values, "tolist") else values
