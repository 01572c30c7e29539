import copy
import doctest
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_detr_ft.boxes import xywh_to_xyxy
from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation import metric as metric_module
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.metric import CocoMetric

COCO = {
    "images": [{"id": 40}, {"id": 7}, {"id": 23}],
    "categories": [{"id": 9, "name": "box"}, {"id": 3, "name": "disc"}],
    "annotations": [
        {"id": 1, "image_id": 40, "category_id": 3, "bbox": [10, 20, 40, 50], "area": 900},
        {"id": 2, "image_id": 40, "category_id": 9, "bbox": [50, 20, 100, 120], "area": 12000},
        {"id": 3, "image_id": 7, "category_id": 9, "bbox": [0, 0, 30, 30], "area": 900, "iscrowd": 1},
        {"id": 4, "image_id": 23, "category_id": 9, "bbox": [5, 5, 60, 60]},
    ],
}
DETECTIONS = Detections.from_results(
    [
        {"image_id": 40, "category_id": 3, "bbox": [11, 20, 40, 50], "score": 0.75},
        {"image_id": 40, "category_id": 9, "bbox": [50, 30, 100, 110], "score": 0.5},
        {"image_id": 40, "category_id": 9, "bbox": [200, 30, 10, 10], "score": 0.625},
        {"image_id": 7, "category_id": 9, "bbox": [2, 2, 10, 10], "score": 0.875},
    ]
)


def as_processor_output(image_id: int, label_of: dict[int, int]) -> dict[str, torch.Tensor]:
    """Result of `post_process_object_detection` for one image."""
    mine = DETECTIONS.image_id == image_id
    return {
        "scores": torch.tensor(DETECTIONS.score[mine], dtype=torch.float32),
        "labels": torch.tensor([label_of[category] for category in DETECTIONS.category_id[mine].tolist()]).long(),
        "boxes": torch.tensor(xywh_to_xyxy(DETECTIONS.boxes_xywh_px[mine]), dtype=torch.float32),
    }


@pytest.fixture
def metric(tmp_path: Path) -> CocoMetric:
    return CocoMetric(COCO, cache_dir=str(tmp_path))


def processor_outputs(label_of: dict[int, int]) -> list[dict[str, torch.Tensor]]:
    return [as_processor_output(image_id, label_of) for image_id in (40, 7, 23)]


def processor_labels() -> list[dict]:
    """References as the processor makes them: more keys than needed, `image_id` a tensor of one element."""
    return [
        {"image_id": torch.tensor([image_id]), "boxes": torch.rand(2, 4), "class_labels": torch.tensor([0, 1])}
        for image_id in (40, 7, 23)
    ]


def test_batches_single_images_and_one_call_give_what_evaluate_detections_gives(metric: CocoMetric) -> None:
    expected = evaluate_detections(COCO, DETECTIONS)
    outputs, labels = processor_outputs({3: 0, 9: 1}), processor_labels()
    assert 0 < expected.metrics["map"] < 1

    metric.add_batch(predictions=outputs[:2], references=labels[:2])
    metric.add(prediction=outputs[2], reference=labels[2])
    assert len(metric) == 3
    assert metric.compute() == expected.metrics
    assert metric.result == expected
    assert metric.compute(predictions=outputs, references=labels) == expected.metrics  # and again, from empty


def test_plain_lists_arrays_and_a_cache_file_do_as_well(tmp_path: Path) -> None:
    metric = CocoMetric(COCO, cache_dir=str(tmp_path), keep_in_memory=False, backend="pycocotools")
    for index, output in enumerate(processor_outputs({3: 0, 9: 1})):
        as_plain = {key: value.tolist() if index else value.numpy() for key, value in output.items()}
        metric.add(prediction=as_plain, reference={"image_id": np.int64((40, 7, 23)[index])})
    assert metric.compute() == pytest.approx(evaluate_detections(COCO, DETECTIONS).metrics, abs=1e-12)


def test_images_never_added_count_as_without_detections(metric: CocoMetric) -> None:
    numbers = metric.compute(predictions=processor_outputs({3: 0, 9: 1})[:1], references=[{"image_id": 40}])
    assert numbers["mar_100"] < 1
    assert (metric.result.images, metric.result.objects) == (3, 3)


def test_models_with_labels_of_their_own(tmp_path: Path) -> None:
    category_ids = (0, 0, 0, 9, 0, 3)
    metric = CocoMetric(COCO, category_ids=category_ids, cache_dir=str(tmp_path))
    numbers = metric.compute(predictions=processor_outputs({9: 3, 3: 5}), references=processor_labels())
    assert numbers == evaluate_detections(COCO, DETECTIONS).metrics


def test_no_detections_at_all(metric: CocoMetric) -> None:
    nothing = {"scores": torch.zeros(0), "labels": torch.zeros(0).long(), "boxes": torch.zeros(0, 4)}
    assert metric.compute(predictions=[nothing] * 3, references=processor_labels())["map"] == 0
    assert metric.compute(predictions=[], references=[])["map"] == 0


def test_the_truth_stays_as_it_was(metric: CocoMetric) -> None:
    before = copy.deepcopy(COCO)
    metric.compute(predictions=processor_outputs({3: 0, 9: 1}), references=processor_labels())
    assert before == COCO


def test_an_image_added_twice(metric: CocoMetric) -> None:
    outputs, labels = processor_outputs({3: 0, 9: 1}), processor_labels()
    with pytest.raises(DataError, match=r"more than once, their ids: \[7\].*gather_for_metrics"):
        metric.compute(predictions=[*outputs, outputs[1]], references=[*labels, labels[1]])
    assert metric.compute(predictions=outputs, references=labels)["map"] > 0


def test_a_label_without_category(metric: CocoMetric) -> None:
    with pytest.raises(DataError, match=r"labels \[2\], but the data set has 2 categories \(labels 0 to 1\)"):
        metric.compute(predictions=processor_outputs({3: 0, 9: 2}), references=processor_labels())


def test_an_image_that_the_truth_lacks(metric: CocoMetric) -> None:
    with pytest.raises(DataError, match="image ids that the truth does not list: 41"):
        metric.compute(predictions=processor_outputs({3: 0, 9: 1})[:1], references=[{"image_id": 41}])


def test_a_prediction_whose_parts_differ_in_length(metric: CocoMetric) -> None:
    with pytest.raises(DataError, match="found 1 scores, 2 labels, 1 boxes"):
        metric.add(prediction={"scores": [0.5], "labels": [0, 1], "boxes": [[0, 0, 9, 9]]}, reference={"image_id": 40})


def test_nothing_added(metric: CocoMetric) -> None:
    with pytest.raises(ValueError, match="call `add` or `add_batch`"):
        metric.compute()


def test_the_example_in_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", tmp_path)
    assert doctest.testmod(metric_module).failed == 0
    assert doctest.testmod(metric_module).attempted >= 6
