"""Attention weights: those of Transformers' eager mode, for the rows asked for, of a model that stays as it was."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import transformers
from transformers import DetrConfig, ResNetConfig

from hf_detr_ft.attention.caught_layers import Projected
from hf_detr_ft.attention.recorded_forward import RecordedForward, record_attention
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.recipe.sections import ModelConfig
from tests.families import tiny_model
from tests.fixtures import SMALL_TRANSFORMER, tiny_detr_with_spread_weights

QUERIES = np.array([7, 0, 11])
BACKBONES = (
    ("test_resnet", 32),
    ("resnet50", 32),
    ("resnet50", 16),
    ("tf_efficientnet_lite0", 32),
    ("tf_efficientnet_lite0", 16),
    ("test_convnext", 32),
)
"""Names, and pixels of the image for each step of the feature map."""


def timm_model(backbone: str, stride: int) -> transformers.DetrForObjectDetection:
    torch.manual_seed(0)
    config = ModelConfig(checkpoint=None, backbone=backbone, backbone_stride=stride, config=dict(SMALL_TRANSFORMER))
    return build_model(config, ["a", "b"], [1, 2]).eval()


def native_model() -> transformers.DetrForObjectDetection:
    """DETR of stock Transformers, with its own ResNet."""
    resnet = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    torch.manual_seed(0)
    config = DetrConfig(use_timm_backbone=False, backbone_config=resnet, **SMALL_TRANSFORMER)
    return transformers.DetrForObjectDetection(config).eval()


def image(height: int, width: int) -> torch.Tensor:
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def eager(
    model: transformers.DetrForObjectDetection, pixel_values: torch.Tensor, pixel_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """All cross-attention `[L, M, Q, h * w]`, and the last encoder layer's `[M, h * w, h * w]`, as Transformers does.

    Of a copy: with Transformers' own ResNet there is no way back from "eager".
    """
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    outputs = model(pixel_values[None], pixel_mask[None], output_attentions=True)
    return torch.cat(outputs.cross_attentions), outputs.encoder_attentions[-1][0]


def check_whole_image(
    model: transformers.DetrForObjectDetection, stride: int, height: int, width: int, rounded: Callable = math.ceil
) -> None:
    """Shapes, sums, the reference's weights, and the logits of a forward without all this."""
    pixel_values = image(height, width)
    recorded = record_attention(model, pixel_values)
    h, w = rounded(height / stride), rounded(width / stride)
    assert recorded.size == (h, w)
    maps = recorded.cross_attention(QUERIES)
    assert maps.shape == (2, 3, 4, h, w)
    points = np.array([[0.01, 0.01], [0.99, 0.3], [0.5, 0.99]])
    own = recorded.self_attention(points)
    assert own.shape == (3, 4, h, w)
    for part in (maps, own):
        assert part.dtype == np.float32
        np.testing.assert_allclose(part.sum((-2, -1)), 1, atol=1e-4)
    cross, encoder = eager(model, pixel_values, torch.ones(height, width))
    np.testing.assert_allclose(maps, cross[:, :, QUERIES].transpose(1, 2).unflatten(-1, (h, w)), atol=1e-4)
    cells = [int(y * h) * w + int(x * w) for x, y in points]
    np.testing.assert_allclose(own, encoder[:, cells].transpose(0, 1).unflatten(-1, (h, w)), atol=1e-4)
    with torch.inference_mode():
        outputs = model(pixel_values[None].contiguous(memory_format=torch.channels_last))
    assert torch.equal(recorded.logits, outputs.logits[0])
    assert torch.equal(recorded.pred_boxes, outputs.pred_boxes[0])


@pytest.mark.parametrize(("backbone", "stride"), BACKBONES)
def test_the_weights_are_transformers_own_for_every_backbone(backbone: str, stride: int) -> None:
    model = timm_model(backbone, stride)
    for height, width in ((64, 64), (97, 131), (150, 70)):
        # ConvNeXt's patches do not reach over the border.
        check_whole_image(model, stride, height, width, math.floor if "convnext" in backbone else math.ceil)


def test_the_weights_are_transformers_own_for_its_own_resnet() -> None:
    for height, width in ((64, 64), (97, 131), (150, 70)):
        check_whole_image(native_model(), 32, height, width)


@pytest.mark.parametrize("family", ["conditional_detr", "dab-detr", "table-transformer"])
def test_the_weights_of_other_families_with_maps_are_transformers_own(family: str) -> None:
    model = tiny_model(family)
    spread(model)
    recorded = record_attention(model, image(97, 131))
    cross, encoder = eager(model, image(97, 131), torch.ones(97, 131))
    np.testing.assert_allclose(
        recorded.cross_attention(QUERIES), cross[:, :, QUERIES].transpose(1, 2).unflatten(-1, recorded.size), atol=1e-4
    )
    own = recorded.self_attention(np.array([[0.99, 0.99]]))[0]
    np.testing.assert_allclose(own, encoder[:, -1].unflatten(-1, recorded.size), atol=1e-4)
    assert np.ptp(recorded.cross_attention(QUERIES), axis=1).max() > 0.01


def sampled(
    model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, *inputs: torch.Tensor
) -> tuple[RecordedForward, np.ndarray, np.ndarray]:
    """What is recorded; points `[L, K, M, S, 2]` in [0, 1] of the padded image and weights as the model reads them."""
    places: list[torch.Tensor] = []
    original = torch.nn.functional.grid_sample
    stock = model.family.stock_class(model.config)  # which samples by it, also on a CPU
    stock.load_state_dict(model.state_dict())
    model = stock.eval()

    def watched(values: torch.Tensor, grid: torch.Tensor, **settings: object) -> torch.Tensor:
        if grid.shape[1] == model.config.num_queries:  # and not the encoder's
            places.append((grid + 1) / 2)
        return original(values, grid, **settings)

    weights: list[torch.Tensor] = []
    for layer in model.model.decoder.layers:
        attention = layer.encoder_attn if hasattr(layer, "encoder_attn") else layer.cross_attn
        attention.register_forward_hook(lambda *call: weights.append(call[-1][1][0].flatten(2)))
    monkeypatch.setattr(torch.nn.functional, "grid_sample", watched)
    recorded = record_attention(model, *inputs)
    layers = len(weights)
    points = [torch.cat(places[i * len(places) // layers : (i + 1) * len(places) // layers], 2) for i in range(layers)]
    return recorded, torch.stack(points).transpose(1, 2)[:, QUERIES].numpy(), torch.stack(weights)[:, QUERIES].numpy()


@pytest.mark.parametrize("family", ["rt_detr", "rt_detr_v2", "d_fine", "rf_detr", "lw_detr", "deformable_detr"])
def test_points_are_those_that_the_model_samples(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(family, **({"decoder_n_points": [2, 4, 3]} if family == "d_fine" else {}))
    spread(model)
    width = 64 if FAMILIES[family].size.square else 128
    recorded, expected, weights = sampled(model, monkeypatch, image(64, width))
    points, found = recorded.sampled_points(QUERIES)
    np.testing.assert_allclose(points, expected, atol=1e-5)
    np.testing.assert_allclose(found, weights, atol=1e-6)
    assert np.ptp(found, axis=-1).max() > 0.01 and len({tuple(point) for point in points[0, 0, 0].round(3)}) > 2


def test_points_are_those_of_the_image_without_its_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("deformable_detr")
    spread(model)
    pixel_mask = torch.zeros(96, 256, dtype=torch.int64)
    pixel_mask[:64, :64] = 1
    recorded, of_padded, _ = sampled(model, monkeypatch, image(96, 256), pixel_mask)
    np.testing.assert_allclose(recorded.sampled_points(QUERIES)[0], of_padded * (256 / 64, 96 / 64), atol=1e-4)


def spread(model: torch.nn.Module) -> None:
    """Gives the model attention that is not the same everywhere."""
    generator = torch.Generator().manual_seed(0)
    names = ("sampling_offsets", "attention_weights", "content_proj", "sine_proj", "pos_proj", "q_proj", "k_proj")
    for name, parameter in model.named_parameters():
        if any(part in name for part in names):
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


def test_heads_layers_and_queries_are_told_apart() -> None:
    """The comparisons above would see nothing if all maps were alike."""
    maps = record_attention(tiny_detr_with_spread_weights(), image(160, 224)).cross_attention(QUERIES)
    for axis in (0, 1, 2):
        assert np.ptp(maps, axis=axis).max() > 0.05


@pytest.mark.parametrize(("height", "width"), [(128, 64), (100, 150), (97, 131)])
def test_padding_has_no_weight(height: int, width: int) -> None:
    model = tiny_detr_with_spread_weights()
    pixel_values, pixel_mask = torch.zeros(3, 192, 224), torch.zeros(192, 224, dtype=torch.int64)
    pixel_values[:, :height, :width], pixel_mask[:height, :width] = image(height, width), 1
    recorded = record_attention(model, pixel_values, pixel_mask)
    h, w = recorded.size
    assert (h, w) == (math.ceil(height / 32), math.ceil(width / 32))
    maps, own = recorded.cross_attention(QUERIES), recorded.self_attention(np.array([[0.99, 0.99]]))
    np.testing.assert_allclose(maps.sum((-2, -1)), 1, atol=1e-4)
    np.testing.assert_allclose(own.sum((-2, -1)), 1, atol=1e-4)

    cross, encoder = eager(model, pixel_values, pixel_mask)
    cross, encoder = cross[:, :, QUERIES].transpose(1, 2).unflatten(-1, (6, 7)), encoder.unflatten(-1, (6, 7))
    np.testing.assert_allclose(maps, cross[..., :h, :w], atol=1e-4)
    np.testing.assert_allclose(cross[..., :h, :w].sum((-2, -1)), 1, atol=1e-4)
    np.testing.assert_allclose(own[0], encoder[:, (h - 1) * 7 + w - 1, :h, :w], atol=1e-4)


def test_points_at_and_over_the_border_belong_to_the_cells_there() -> None:
    recorded = record_attention(tiny_detr_with_spread_weights(), image(96, 160))
    assert recorded.size == (3, 5)
    centres = recorded.self_attention(np.array([[0.1, 1 / 6], [0.9, 1 / 6], [0.1, 5 / 6], [0.9, 5 / 6]]))
    corners = recorded.self_attention(np.array([[0, 0], [1, -0.5], [-3, 1], [1.0001, 1]]))
    np.testing.assert_array_equal(centres, corners)
    assert len(np.unique(centres.reshape(4, -1), axis=0)) == 4


def test_only_projections_are_kept() -> None:
    """Not a map of all places from all places, of which a large image's would fill the memory."""
    model = tiny_detr_with_spread_weights()
    recorded = record_attention(model, image(640, 672))
    assert recorded.encoder is not None
    layers = [layer for layer in (*recorded.decoder, recorded.encoder) if isinstance(layer, Projected)]
    kept = sum(part.numel() for one in layers for part in (one.queries, one.keys))
    assert kept < 0.2 * 4 * (20 * 21) ** 2


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_model_stays_as_it_was_also_after_an_error(implementation: str) -> None:
    model = tiny_detr_with_spread_weights()
    model.set_attn_implementation(implementation)

    def hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())

    before, state = hooks(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    record_attention(model, image(64, 96))
    with pytest.raises(RuntimeError):
        record_attention(model, torch.zeros(5, 64, 96))
    assert hooks() == before
    assert model.config._attn_implementation == implementation
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_model_in_training_mode_is_looked_at_without_dropout() -> None:
    model = tiny_detr_with_spread_weights().train()
    first, second = (record_attention(model, image(64, 96)).cross_attention(QUERIES) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_model_without_encoder_layers_has_no_self_attention() -> None:
    recorded = record_attention(tiny_detr_with_spread_weights(encoder_layers=0), image(64, 96))
    assert recorded.cross_attention(QUERIES).shape == (2, 3, 4, 2, 3)
    with pytest.raises(ValueError, match="encoder_layers 0"):
        recorded.self_attention(np.zeros((1, 2)))
