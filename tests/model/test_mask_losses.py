"""Losses of masks beside those of facebookresearch/detr at 29901c5 (`SetCriterion.loss_masks`), by its values."""

import numpy as np
import pytest
import torch

from hf_detr_ft.model.criteria.mask_losses import mask_losses
from hf_detr_ft.model.predictions import MaskPredictions

SIZES = ((24, 32), (32, 16))
"""Heights and widths of two images, padded to 32 x 32."""
MATCHED = torch.tensor([[-1, 0, -1, 1, -1], [0, -1, -1, -1, -1]])


def case(padded: tuple[int, int] = (32, 32)) -> tuple[torch.Tensor, MaskPredictions, list[dict]]:
    """Logits `[2, 5, 8, 8]` with gradient, the predictions that give them, and labels of 2 and 1 objects."""
    draw = np.random.RandomState(0)
    logits = torch.from_numpy(3 * draw.standard_normal((2, 5, 8, 8))).float().requires_grad_()
    labels = []
    for count, (height, width) in zip((2, 1), SIZES, strict=True):
        smooth = draw.standard_normal((count, height // 8, width // 8)).repeat(8, 1).repeat(8, 2)
        labels.append({"masks": torch.from_numpy(smooth > 0)})
    return logits, MaskPredictions(lambda images, queries: logits[images, queries], padded), labels


def test_losses_and_gradients_are_the_originals_padding_included() -> None:
    logits, masks, labels = case()
    losses = mask_losses(masks, MATCHED, labels, torch.tensor(3.0))
    assert losses["loss_mask"].item() == pytest.approx(0.41324305534, rel=1e-5)
    assert losses["loss_dice"].item() == pytest.approx(0.63726848364, rel=1e-5)
    (gradient,) = torch.autograd.grad(losses["loss_mask"] + losses["loss_dice"], logits)
    assert gradient.abs().sum().item() == pytest.approx(0.33399480581, rel=1e-5)
    assert gradient[0, 1, 2, 3].item() == pytest.approx(1.8761168758e-4, rel=1e-4)
    assert gradient[1, 0, 5, 2].item() == pytest.approx(-1.8572831759e-3, rel=1e-4)
    assert not gradient[0, 0].any()


def test_parts_add_up_to_the_whole() -> None:
    """An image alone has other padding; with its own, its share of both losses is what it is in the batch."""
    _, masks, labels = case()
    whole = mask_losses(masks, MATCHED, labels, torch.tensor(3.0))
    nothing = torch.full_like(MATCHED[0], -1)
    halves = [torch.stack([MATCHED[0], nothing]), torch.stack([nothing, MATCHED[1]])]
    parts = [mask_losses(masks, half, labels, torch.tensor(3.0)) for half in halves]
    for name, value in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], value)


def test_padding_beyond_the_largest_image_does_not_count() -> None:
    """Batches are padded to multiples of pixels, so that their shapes come again."""
    _, masks, labels = case((64, 64))  # the same logits over four times the area
    left = [{"masks": target["masks"][:, :16, :16]} for target in labels]
    logits = torch.nn.functional.interpolate(
        masks.logits(torch.tensor([0]), torch.tensor([1]))[:, None], (64, 64), mode="bilinear"
    )[:, :, :16, :16]
    alone = torch.full_like(MATCHED, -1)
    alone[0, 1] = 0
    losses = mask_losses(masks, alone, left, torch.tensor(1.0))
    share, wanted = logits[0, 0].sigmoid(), left[0]["masks"][0].float()
    expected = 1 - (2 * (share * wanted).sum() + 1) / (share.sum() + wanted.sum() + 1)
    torch.testing.assert_close(losses["loss_dice"], expected)
