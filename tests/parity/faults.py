"""Measures of what is wrong with Transformers' losses, taken of any criterion; faults have the numbers of the docs."""

from dataclasses import replace

import torch

from hf_detr_ft.model.predictions import LayerPredictions
from tests.parity.cases import COUNTS, Run, leaves, losses_and_gradients, random_case


def taught_proposals(run: Run, name: str) -> float:
    """Largest gradient of the encoder's scores (fault 6)."""
    result = losses_and_gradients(run, *random_case(name, COUNTS["objects"]))
    return float(result["d encoder.logits"].abs().max())


def outputs_without_gradient(run: Run, name: str) -> int:
    """Tensors that a batch without objects leaves without a gradient, or with one that is not finite (fault 8)."""
    predictions, labels = random_case(name, COUNTS["no objects"])
    loss, _ = run(predictions, labels)
    gradients = torch.autograd.grad(loss, [tensor for _, tensor in leaves(predictions)], allow_unused=True)
    return sum(gradient is None or not bool(gradient.isfinite().all()) for gradient in gradients)


def box_loss_of_perfect_evaluation(run: Run, name: str) -> float:
    """L1 loss where each object has one query with exactly its box and class, in evaluation (fault 9)."""
    predictions, labels = random_case(name, COUNTS["objects"])
    one_group = predictions.layers.logits.shape[2] // predictions.groups
    logits = torch.full_like(predictions.layers.logits[:, :, :one_group], -8.0)
    boxes = predictions.layers.boxes_cxcywh_rel.detach()[:, :, :one_group].clone()
    for image, label in enumerate(labels):
        for query, (class_label, box) in enumerate(zip(label["class_labels"], label["boxes"], strict=True)):
            logits[:, image, query, class_label] = 8.0
            boxes[:, image, query] = box
    perfect = LayerPredictions(logits, boxes)
    encoder = LayerPredictions(logits[:1], boxes[:1])
    _, parts = run(replace(predictions, layers=perfect, encoder=encoder, groups=1), labels)
    return float(parts["loss_bbox"])


def is_finite_when_sure(run: Run, name: str) -> bool:
    """The loss of scores that are 0 or 1 in bf16, and its gradients, are finite (fault 10)."""
    predictions, labels = random_case(name, COUNTS["objects"])
    for key, tensor in leaves(predictions):
        if key.endswith("logits"):
            tensor.data = (tensor.sign() * 12).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        result = losses_and_gradients(run, predictions, labels)
    return all(bool(value.isfinite().all()) for value in result.values())


def untaught_layers(run: Run, name: str) -> int:
    """Decoder layers whose scores or boxes have no gradient (fault 12)."""
    predictions, labels = random_case(name, COUNTS["objects"])
    result = losses_and_gradients(run, predictions, labels)
    prefixes = ["layers.", "denoising.layers."]
    gradients = [result[f"d {prefix}{key}"] for prefix in prefixes for key in ("logits", "boxes_cxcywh_rel", "corners")]
    return sum(int((gradient.flatten(1).abs().amax(1) == 0).sum()) for gradient in gradients)
