"""The criterion against the paper's formulas, written down plainly in fp64, and against Transformers' own loss."""

import itertools
import math

import numpy as np
import pytest
import torch
from transformers import DetrConfig
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

from hf_detr_ft.model.hungarian_matching import CriterionWeights, UnusableBatchError, match, pad_targets, paired_giou
from hf_detr_ft.model.loss import count_items, set_criterion

WEIGHTS = CriterionWeights()


def random_case(seed: int, counts: list[int], classes: int = 4, queries: int = 6, layers: int = 3):
    """Predictions `[L, B, Q, …]` in fp64 with gradient, and labels."""
    rng = torch.Generator().manual_seed(seed)
    batch = len(counts)
    logits = 2 * torch.randn(layers, batch, queries, classes + 1, generator=rng, dtype=torch.float64)
    boxes = torch.rand(layers, batch, queries, 4, generator=rng, dtype=torch.float64) * 0.6 + 0.2
    labels = [
        {
            "class_labels": torch.randint(0, classes, (count,), generator=rng),
            "boxes": torch.rand(count, 4, generator=rng, dtype=torch.float64) * 0.5 + 0.05,
            "image_id": torch.tensor([1000 + image]),
        }
        for image, count in enumerate(counts)
    ]
    return logits.requires_grad_(), boxes.requires_grad_(), labels


def reference_giou(box: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """GIoU of two boxes `[4]` cxcywh, by the definition."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = box, other
    overlap_w = torch.relu(torch.min(ax + aw / 2, bx + bw / 2) - torch.max(ax - aw / 2, bx - bw / 2))
    overlap_h = torch.relu(torch.min(ay + ah / 2, by + bh / 2) - torch.max(ay - ah / 2, by - bh / 2))
    union = aw * ah + bw * bh - overlap_w * overlap_h
    hull_w = torch.max(ax + aw / 2, bx + bw / 2) - torch.min(ax - aw / 2, bx - bw / 2)
    hull_h = torch.max(ay + ah / 2, by + bh / 2) - torch.min(ay - ah / 2, by - bh / 2)
    return overlap_w * overlap_h / union - (hull_w * hull_h - union) / (hull_w * hull_h)


def reference_assignment(logits: torch.Tensor, boxes: torch.Tensor, target: dict) -> list[tuple[int, int]]:
    """Pairs (query, target) of least cost, by trying every injection of one side into the other."""
    probabilities = logits.softmax(-1)
    queries, count = len(logits), len(target["boxes"])
    cost = torch.zeros(queries, count, dtype=torch.float64)
    for q, n in itertools.product(range(queries), range(count)):
        cost[q, n] = (
            -WEIGHTS.class_cost * probabilities[q, target["class_labels"][n]]
            + WEIGHTS.bbox_cost * (boxes[q] - target["boxes"][n]).abs().sum()
            - WEIGHTS.giou_cost * reference_giou(boxes[q], target["boxes"][n])
        )
    if count <= queries:
        options = [
            list(zip(chosen, range(count), strict=True)) for chosen in itertools.permutations(range(queries), count)
        ]
    else:
        options = [
            list(zip(range(queries), chosen, strict=True)) for chosen in itertools.permutations(range(count), queries)
        ]
    return min(options, key=lambda pairs: sum(cost[q, n].item() for q, n in pairs))


def reference_loss(
    logits: torch.Tensor, boxes: torch.Tensor, labels: list[dict]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loops and the paper's equations, nothing shared with the code under test."""
    layers, batch, queries, classes = logits.shape
    total_boxes = max(1, sum(len(target["boxes"]) for target in labels))
    loss, parts = torch.zeros((), dtype=torch.float64), {}
    for layer in range(layers):
        entropy = weight = l1 = giou = torch.zeros((), dtype=torch.float64)
        cardinality = wrong = matched_count = 0
        for image in range(batch):
            pairs = dict(
                reference_assignment(logits[layer, image].detach(), boxes[layer, image].detach(), labels[image])
            )
            for query in range(queries):
                is_object = query in pairs
                wanted = int(labels[image]["class_labels"][pairs[query]]) if is_object else classes - 1
                w = 1.0 if is_object else WEIGHTS.no_object
                entropy = entropy - w * logits[layer, image, query].log_softmax(-1)[wanted]
                weight = weight + w
                if is_object:
                    target = labels[image]["boxes"][pairs[query]]
                    l1 = l1 + (boxes[layer, image, query] - target).abs().sum()
                    giou = giou + 1 - reference_giou(boxes[layer, image, query], target)
                    wrong += int(logits[layer, image, query].argmax()) != wanted
                    matched_count += 1
            predicted = int((logits[layer, image].argmax(-1) != classes - 1).sum())
            cardinality += abs(predicted - len(labels[image]["boxes"])) / batch
        loss = loss + entropy / weight + 5 * l1 / total_boxes + 2 * giou / total_boxes
        suffix = "" if layer == layers - 1 else f"_{layer}"
        values = {
            "loss_ce": entropy / weight,
            "loss_bbox": l1 / total_boxes,
            "loss_giou": giou / total_boxes,
            "cardinality_error": torch.tensor(cardinality),
        }
        parts |= {name + suffix: float(value) for name, value in values.items()}
        parts["class_error"] = 100 * wrong / max(1, matched_count)
    return loss, parts


CASES = {
    "two images": [2, 3],
    "an image without objects": [3, 0],
    "only an image without objects": [0],
    "no objects at all": [0, 0, 0],
    "as many objects as queries": [6, 1],
    "more objects than queries": [8, 2],
}


@pytest.mark.parametrize("counts", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_papers_formulas(counts: list[int], seed: int) -> None:
    logits, boxes, labels = random_case(seed, counts)
    expected, expected_parts = reference_loss(logits, boxes, labels)
    expected_gradients = torch.autograd.grad(expected, (logits, boxes), allow_unused=True)
    loss, parts = set_criterion(logits, boxes, labels, WEIGHTS)
    gradients = torch.autograd.grad(loss, (logits, boxes))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(
            gradient, torch.zeros_like(gradient) if wanted is None else wanted, rtol=1e-5, atol=1e-9
        )
    assert parts.keys() == expected_parts.keys()
    for name, value in expected_parts.items():
        assert math.isclose(parts[name].item(), value, rel_tol=1e-5, abs_tol=1e-9), name


@pytest.mark.parametrize("seed", range(3))
def test_fp32_equals_fp64(seed: int) -> None:
    logits, boxes, labels = random_case(seed, [2, 0, 5])
    expected, _ = set_criterion(logits, boxes, labels, WEIGHTS)
    loss, _ = set_criterion(logits.float(), boxes.float(), labels, WEIGHTS)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)


def test_half_precision_predictions_are_matched_and_summed_in_fp32() -> None:
    logits, boxes, labels = random_case(0, [2, 3])
    low = [tensor.detach().bfloat16() for tensor in (logits, boxes)]
    with torch.autocast("cpu", torch.bfloat16):
        loss, parts = set_criterion(*low, labels, WEIGHTS)
    expected, _ = set_criterion(*(tensor.float() for tensor in low), labels, WEIGHTS)
    assert loss.dtype == parts["loss_giou"].dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_equals_transformers_on_one_process(auxiliary: bool) -> None:
    logits, boxes, labels = random_case(5, [2, 0, 3])
    logits, boxes = logits.detach().float(), boxes.detach().float()
    labels = [{**target, "boxes": target["boxes"].float()} for target in labels]
    config = DetrConfig(num_labels=4, auxiliary_loss=auxiliary, decoder_layers=3)
    expected, expected_parts, _ = ForObjectDetectionLoss(
        logits[-1], labels, logits.device, boxes[-1], config, logits, boxes
    )
    shown = slice(None) if auxiliary else slice(-1, None)
    loss, parts = set_criterion(logits[shown], boxes[shown], labels, CriterionWeights.from_config(config))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for name, value in expected_parts.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("split", [[[0, 1], [2, 3]], [[0], [1, 2, 3]], [[0], [1], [2], [3]]])
def test_micro_batches_add_up_to_the_whole_batch(split: list[list[int]]) -> None:
    logits, boxes, labels = random_case(1, [1, 5, 0, 2])
    whole, whole_parts = set_criterion(logits, boxes, labels, WEIGHTS)
    items = count_items(labels, num_queries=6)
    pieces = [
        set_criterion(logits[:, part], boxes[:, part], [labels[i] for i in part], WEIGHTS, items) for part in split
    ]
    torch.testing.assert_close(sum(loss for loss, _ in pieces), whole, rtol=1e-12, atol=0)
    for name, value in whole_parts.items():
        torch.testing.assert_close(sum(parts[name] for _, parts in pieces), value, rtol=1e-6, atol=1e-12, msg=name)


def test_counts_add_up_and_know_the_queries() -> None:
    _, _, labels = random_case(0, [8, 2, 0])
    assert count_items(labels, num_queries=6).tolist() == [10, 8, 3]
    assert sum(count_items([target], 6) for target in labels).tolist() == [10, 8, 3]


def test_matching_gives_each_target_to_one_query() -> None:
    logits, boxes, labels = random_case(2, [4, 0, 6])
    matched = match(logits, boxes, pad_targets(labels, torch.float64), WEIGHTS)
    for layer, (image, target) in itertools.product(range(3), enumerate(labels)):
        assigned = matched[layer, image]
        assert sorted(assigned[assigned >= 0].tolist()) == list(range(len(target["boxes"])))


def test_a_perfect_prediction_costs_nothing() -> None:
    _, _, labels = random_case(3, [3, 2])
    logits = torch.full((1, 2, 6, 5), -40.0)
    boxes = torch.full((1, 2, 6, 4), 0.5)
    logits[..., -1] = 40.0
    for image, target in enumerate(labels):
        for n, label in enumerate(target["class_labels"]):
            logits[0, image, n + 1] = -40.0
            logits[0, image, n + 1, label] = 40.0
            boxes[0, image, n + 1] = target["boxes"][n].float()
    loss, parts = set_criterion(logits, boxes, labels, WEIGHTS)
    assert loss.item() < 1e-5
    assert parts["class_error"] == parts["cardinality_error"] == 0


def test_a_one_pixel_box_has_finite_gradients() -> None:
    logits, boxes, labels = random_case(0, [1])
    labels[0]["boxes"] = torch.tensor([[0.5, 0.5, 1 / 1333, 1 / 1333]])
    loss, _ = set_criterion(logits.float(), boxes.float(), labels, WEIGHTS)
    loss.backward()
    assert all(bool(tensor.grad.isfinite().all()) for tensor in (logits, boxes))


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.0, 0.0), (0.5, 0.5, 1e-30, 0.4)])
def test_a_predicted_box_without_area_has_finite_gradients(box: tuple[float, ...]) -> None:
    logits, _, labels = random_case(0, [2])
    boxes = torch.tensor(box).expand(3, 1, 6, 4).clone().requires_grad_()
    loss, _ = set_criterion(logits.float(), boxes, labels, WEIGHTS)
    loss.backward()
    assert loss.isfinite()
    assert boxes.grad.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["logits", "boxes"])
def test_predictions_that_are_not_finite_name_their_images(where: str, value: float) -> None:
    logits, boxes, labels = random_case(0, [2, 0, 1])
    broken = {"logits": logits.detach().clone(), "boxes": boxes.detach().clone()}
    broken[where][0, 1, 3, 2] = value  # an image without objects, in an auxiliary layer
    with pytest.raises(UnusableBatchError, match="predictions are not finite") as caught:
        set_criterion(broken["logits"], broken["boxes"], labels, WEIGHTS)
    assert caught.value.image_ids == [1001]


@pytest.mark.parametrize("label", [-1, 4, 17])
def test_labels_out_of_range_name_their_images(label: int) -> None:
    logits, boxes, labels = random_case(0, [2, 1, 3])
    labels[2]["class_labels"][1] = label  # 4 is "no object" for four classes
    with pytest.raises(UnusableBatchError, match="labels are out of range") as caught:
        set_criterion(logits, boxes, labels, WEIGHTS)
    assert caught.value.image_ids == [1002]


def test_target_boxes_that_are_not_finite_name_their_images() -> None:
    logits, boxes, labels = random_case(0, [2, 1])
    labels[0]["boxes"][1, 0] = math.nan
    with pytest.raises(UnusableBatchError, match="boxes are not finite") as caught:
        set_criterion(logits, boxes, labels, WEIGHTS)
    assert caught.value.image_ids == [1000]


def test_one_transfer_to_the_host_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: calls.append(tensor.shape) or original(tensor))
    logits, boxes, labels = random_case(0, [2, 3], layers=6)
    set_criterion(logits, boxes, labels, WEIGHTS)
    assert len(calls) == 1


def test_giou_of_known_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 1, 1]])
    others = torch.tensor([[0.0, 0, 2, 2], [1, 0, 2, 1], [2, 0, 3, 1]])
    np.testing.assert_allclose(paired_giou(boxes, others), [1, 0, -1 / 3], rtol=1e-6)
