"""Batch norms that are trained, as RT-DETR's are: one image at a time, and in several processes."""

import pytest
import torch
from torch import nn

from hf_detr_ft.model.batch_norms import repair_gradients, share_statistics
from tests.families import tiny_model


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


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_several_images_lie_as_their_maps_do(layout: torch.memory_format) -> None:
    """Others take ten times as long, such as those of maps of several sizes that became one sequence."""
    norm, seen = nn.BatchNorm2d(8), []
    repair_gradients(norm)
    output = norm(torch.randn(2, 8, 4, 4).contiguous(memory_format=layout))
    output.grad_fn.register_prehook(lambda gradients: seen.append(gradients[0].is_contiguous(memory_format=layout)))
    rest = torch.randn(2, 3, 8)
    torch.cat([output.flatten(2).transpose(1, 2), rest], 1).square().sum().backward()
    assert seen == [True]


@pytest.mark.parametrize(("device", "processes", "shared"), [("cuda", 2, True), ("cuda", 1, False), ("cpu", 2, False)])
def test_processes_on_gpus_share_statistics(device: str, processes: int, shared: bool) -> None:
    """No tensor changes, nor its name, nor what is trained."""
    model, same = tiny_model("d_fine"), tiny_model("d_fine")
    share_statistics(model, device, processes)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(norm, nn.SyncBatchNorm) == shared for norm in norms)
    expected = {name: (tensor.tolist(), tensor.requires_grad) for name, tensor in same.named_parameters()}
    assert {name: (tensor.tolist(), tensor.requires_grad) for name, tensor in model.named_parameters()} == expected
    assert [name for name, _ in model.named_buffers()] == [name for name, _ in same.named_buffers()]
    assert torch.equal(model(torch.ones(1, 3, 64, 64)).logits, same(torch.ones(1, 3, 64, 64)).logits)
