"""Loss of the encoder's positions."""

import pytest
import torch

from hf_detr_ft.model import detector
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.hungarian_matching import CriterionWeights
from hf_detr_ft.model.loss import count_items
from hf_detr_ft.pretraining.encoder_loss import assign_positions, encoder_criterion, position_centres
from hf_detr_ft.pretraining.taught_encoder import teach_encoder
from hf_detr_ft.recipe.sections import ModelConfig
from tests.fixtures import SMALL_TRANSFORMER

WEIGHTS = CriterionWeights()
QUERIES = 10


def test_centres_are_relative_to_the_image_without_its_padding() -> None:
    mask = torch.zeros(2, 4, 6, dtype=torch.bool)
    mask[0] = True
    mask[1, :2, :3] = True
    centres = position_centres(mask).view(2, 4, 6, 2)
    torch.testing.assert_close(centres[0, 3, 5], torch.tensor([11 / 12, 7 / 8]))
    torch.testing.assert_close(centres[1, 1, 2], torch.tensor([5 / 6, 3 / 4]))


def test_positions_belong_to_the_smallest_object_around_them() -> None:
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    boxes = torch.tensor([[[0.5, 0.5, 1.0, 1.0], [0.375, 0.375, 0.05, 0.05], [0.5, 0.5, 1.0, 1.0]]])
    present = torch.tensor([[True, True, False]])
    index = assign_positions(boxes, present, mask).view(4, 4)
    # The middle half of the image is the large object's, but for the cell that the small one is centred on.
    expected = torch.tensor([[-1, -1, -1, -1], [-1, 1, 0, -1], [-1, 0, 0, -1], [-1, -1, -1, -1]])
    assert torch.equal(index, expected)


def test_padding_belongs_to_nothing() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :2, :2] = True
    index = assign_positions(torch.tensor([[[0.5, 0.5, 2.0, 2.0]]]), torch.tensor([[True]]), mask).view(4, 4)
    assert torch.equal(index >= 0, mask[0])


def random_batch(seed: int, images: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[dict]]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, 20, 4, generator=generator, dtype=torch.float64)
    boxes = torch.rand(images, 20, 4, generator=generator, dtype=torch.float64) * 0.5 + 0.25
    mask = torch.ones(images, 4, 5, dtype=torch.bool)
    mask[-1, 3:] = False
    labels = []
    for _ in range(images):
        count = int(torch.randint(0, 4, (), generator=generator))
        labels.append(
            {
                "class_labels": torch.randint(0, 3, (count,), generator=generator),
                "boxes": torch.rand(count, 4, generator=generator, dtype=torch.float64) * 0.4 + 0.2,
            }
        )
    return logits, boxes, mask, labels


def loss_by_loops(logits: torch.Tensor, boxes: torch.Tensor, mask: torch.Tensor, labels: list[dict]) -> torch.Tensor:
    """The definition, position by position."""
    background = WEIGHTS.no_object * QUERIES
    ce, l1, giou = 0.0, 0.0, 0.0
    for image, target in enumerate(labels):
        height, width = int(mask[image, :, 0].sum()), int(mask[image, 0].sum())
        owner: dict[tuple[int, int], int] = {}
        for i in range(height):
            for j in range(width):
                best = None
                for k, (cx, cy, w, h) in enumerate(target["boxes"].tolist()):
                    near_x = abs((j + 0.5) / width - cx) <= max(w / 4, 0.5001 / width)
                    near_y = abs((i + 0.5) / height - cy) <= max(h / 4, 0.5001 / height)
                    if near_x and near_y and (best is None or w * h < best[0]):
                        best = (w * h, k)
                owner[i, j] = -1 if best is None else best[1]
        empty = sum(k < 0 for k in owner.values())
        for (i, j), k in owner.items():
            cell = i * mask.shape[2] + j
            log_p = logits[image, cell].log_softmax(-1)
            if k < 0:
                ce = ce - log_p[-1] * background / empty
                continue
            share = 1 / sum(other == k for other in owner.values())
            ce = ce - log_p[target["class_labels"][k]] * share
            wanted, found = target["boxes"][k], boxes[image, cell]
            l1 = l1 + (found - wanted).abs().sum() * share
            low = torch.maximum(found[:2] - found[2:] / 2, wanted[:2] - wanted[2:] / 2)
            high = torch.minimum(found[:2] + found[2:] / 2, wanted[:2] + wanted[2:] / 2)
            overlap = (high - low).clamp(min=0).prod()
            union = found[2:].prod() + wanted[2:].prod() - overlap
            hull_low = torch.minimum(found[:2] - found[2:] / 2, wanted[:2] - wanted[2:] / 2)
            hull_high = torch.maximum(found[:2] + found[2:] / 2, wanted[:2] + wanted[2:] / 2)
            hull = (hull_high - hull_low).prod()
            giou = giou + (1 - overlap / union + (hull - union) / hull) * share
    objects = sum(len(target["class_labels"]) for target in labels)
    ce = ce / (objects + background * len(labels))
    return ce + (WEIGHTS.bbox_loss * l1 + WEIGHTS.giou_loss * giou) / max(objects, 1)


@pytest.mark.parametrize("seed", range(6))
def test_the_loss_equals_its_definition(seed: int) -> None:
    logits, boxes, mask, labels = random_batch(seed, images=3)
    logits.requires_grad_(), boxes.requires_grad_()
    loss, parts = encoder_criterion(logits, boxes, mask, labels, WEIGHTS, QUERIES)
    expected = loss_by_loops(logits, boxes, mask, labels)
    torch.testing.assert_close(loss, expected)
    for mine, theirs in zip(
        torch.autograd.grad(loss, (logits, boxes)), torch.autograd.grad(expected, (logits, boxes)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
    weighted = parts["loss_encoder_ce"] + 5 * parts["loss_encoder_bbox"] + 2 * parts["loss_encoder_giou"]
    torch.testing.assert_close(weighted, expected.detach())


def test_parts_of_a_batch_add_up() -> None:
    logits, boxes, mask, labels = random_batch(7, images=4)
    items = count_items(labels, QUERIES)
    whole, _ = encoder_criterion(logits, boxes, mask, labels, WEIGHTS, QUERIES)
    halves = [
        encoder_criterion(logits[part], boxes[part], mask[part], labels[part], WEIGHTS, QUERIES, items)[0]
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(halves[0] + halves[1], whole)


def test_the_model_has_it_in_training_alone() -> None:
    config = ModelConfig(checkpoint=None, backbone="test_resnet", config=dict(SMALL_TRANSFORMER))
    torch.manual_seed(0)
    model = build_model(config, ["a", "b"], [1, 2])
    teach_encoder(model, 0.5)
    images, mask = torch.randn(2, 3, 64, 96), torch.ones(2, 64, 96)
    mask[1, :, 50:] = 0
    labels = [
        {"class_labels": torch.tensor([0, 1]), "boxes": torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.6, 0.4, 0.5]])},
        {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.9, 0.9]])},
    ]
    model.train()
    for module in model.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.0
    outputs = model(images, pixel_mask=mask, labels=labels)
    extra = sum(
        weight * outputs.loss_dict[f"loss_encoder_{name}"] for name, weight in (("ce", 1), ("bbox", 5), ("giou", 2))
    )
    plain = detector.DetrForObjectDetection.forward(model, images, pixel_mask=mask, labels=labels)
    assert "loss_encoder_ce" not in plain.loss_dict
    torch.testing.assert_close(outputs.loss, plain.loss + 0.5 * extra)
    assert "loss_encoder_ce" not in model.eval()(images, pixel_mask=mask, labels=labels).loss_dict
