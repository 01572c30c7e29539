"""A decoder that starts as a reader of the encoder, and the command that asks for it."""

from pathlib import Path

import pytest
import torch
from transformers.models.detr.modeling_detr import DetrSinePositionEmbedding

from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.detector import DetrForObjectDetection
from hf_detr_ft.pretraining.__main__ import build_pretraining_model, main
from hf_detr_ft.pretraining.new_decoder import _embed_points, init_queries_from_encoder
from hf_detr_ft.recipe.sections import ModelConfig, SpeedConfig
from tests.fixtures import SMALL_TRANSFORMER, tiny_detr, write_coco_folder


def build_anew(config: ModelConfig) -> DetrForObjectDetection:
    return build_pretraining_model(config, ["a"], [1], SpeedConfig(), encoder_loss=0.0, new_decoder=True)


def test_the_embedding_of_a_point_is_that_of_its_position() -> None:
    cells = torch.ones(1, 5, 8, dtype=torch.bool)
    grid = DetrSinePositionEmbedding(16, normalize=True)(
        shape=torch.Size([1, 32, 5, 8]), device="cpu", dtype=torch.float32, mask=cells
    )
    point = torch.tensor([[7 / 8, 2 / 5]])  # Transformers counts cells from 1
    torch.testing.assert_close(_embed_points(point, 32)[0], grid[0, :, 1, 6], rtol=0, atol=1e-5)


def test_a_new_decoder_passes_on_what_the_encoder_says_around_each_querys_point() -> None:
    torch.manual_seed(0)
    model = tiny_detr(**{**SMALL_TRANSFORMER, "d_model": 64, "num_queries": 40}).eval()
    init_queries_from_encoder(model)
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


def test_only_the_decoder_is_new(tmp_path) -> None:
    tiny_detr(("a",)).save_pretrained(tmp_path)
    config = ModelConfig(checkpoint=str(tmp_path))
    kept = build_model(config, ["a"], [1])
    anew = build_anew(config)
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
    anew = build_anew(ModelConfig(checkpoint=str(tmp_path), config=size))
    assert anew.model.query_position_embeddings.weight.shape[0] == 7
    assert len(anew.model.decoder.layers) == 3
    assert anew.model.decoder.layers[2].mlp.fc1.out_features == 24
    with pytest.raises(CheckpointError, match=r"would start from noise: .*decoder"):
        build_model(ModelConfig(checkpoint=str(tmp_path), config=size), ["a"], [1])
    encoder = {**size, "encoder_ffn_dim": 24}
    with pytest.raises(CheckpointError, match=r"would start from noise: 'model\.encoder"):
        build_anew(ModelConfig(checkpoint=str(tmp_path), config=encoder))


def test_the_command_teaches_the_encoder_and_saves_a_stock_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_coco_folder(tmp_path / "data")
    arguments = [
        *("--data.root", str(root), "--model.checkpoint", "null", "--model.backbone", "test_resnet"),
        *(word for name, value in SMALL_TRANSFORMER.items() for word in (f"--model.config.{name}", str(value))),
        *("--model.square_edge", "64", "--training.max_steps", "1", "--training.logging_steps", "1"),
        *("--training.eval_strategy", "no", "--training.output_dir", str(tmp_path / "run")),
    ]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("")
    assert main([str(recipe), "--encoder-loss", "0.5", *arguments]) == 0
    assert "loss_encoder_ce" in (tmp_path / "run" / "trainer_state.json").read_text()
    assert DetrForObjectDetection.from_pretrained(tmp_path / "run").config.architectures == ["DetrForObjectDetection"]
    assert main([str(recipe), "--encoder-los", "1"]) == 2
    assert "unknown section 'encoder-los'" in capsys.readouterr().err
