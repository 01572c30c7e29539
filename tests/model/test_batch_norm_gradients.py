"""Batch norms whose output becomes a sequence, as RT-DETR's do, one image at a time."""

import pytest
import torch
from torch import nn

from hf_detr_ft.model.batch_norm_gradients import repair_gradients


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_one_image_are_right(training: bool, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8).train(training)
    repair_gradients(norm)
    maps = torch.randn(1, 8, 4, 4).contiguous(memory_format=memory_format).requires_grad_()
    wanted = torch.randn(1, 16, 8)
    (norm(maps).flatten(2).transpose(1, 2) * wanted).sum().backward()
    torch.testing.assert_close(norm.bias.grad, wanted.sum((0, 1)))
    reference, other = nn.BatchNorm2d(8).train(training), maps.detach().clone().requires_grad_()
    both = torch.cat([other, other])  # two images are right in torch itself
    (reference(both).flatten(2).transpose(1, 2)[:1] * wanted).sum().backward()
    if not training:
        torch.testing.assert_close(norm.weight.grad, reference.weight.grad)
        torch.testing.assert_close(maps.grad, other.grad)
