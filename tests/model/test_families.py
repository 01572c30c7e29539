"""Every family: the original's heads, every tensor loaded, the network of Transformers, batches without boxes."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import pipeline
from transformers.models.d_fine.modeling_d_fine import distance2bbox, weighting_function

from hf_detr_ft.errors import CheckpointError, RecipeError
from hf_detr_ft.inference.detect import detect, load_detector
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.families import FAMILIES
from hf_detr_ft.model.load import load_weights
from hf_detr_ft.model.loss import count_items
from hf_detr_ft.model.speed.bf16_backbone import is_faster_in_bf16
from hf_detr_ft.model.stages import feature_stride
from hf_detr_ft.recipe.sections import ModelConfig
from hf_detr_ft.run_folder import CONFIG, WEIGHTS
from tests.families import EDGE, SETTINGS, new_section, some_labels, tiny_model, write_checkpoint
from tests.fixtures import CLASSES, plain_image

every_family = pytest.mark.parametrize("family", FAMILIES)
of_real_time = ("rt_detr", "rt_detr_v2", "d_fine")
real_time = pytest.mark.parametrize("family", of_real_time)


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, EDGE, EDGE, generator=torch.Generator().manual_seed(0))


def test_the_tiny_models_are_of_every_family() -> None:
    assert SETTINGS.keys() == FAMILIES.keys()


@every_family
def test_the_network_is_that_of_transformers(family: str) -> None:
    model = tiny_model(family)
    stock = FAMILIES[family].stock_class(model.config).eval()
    stock.load_state_dict(model.state_dict())
    with torch.no_grad():
        ours, expected = model(images(), labels=some_labels(2, 1)), stock(images())
    torch.testing.assert_close(ours.logits, expected.logits)
    torch.testing.assert_close(ours.pred_boxes, expected.pred_boxes)
    torch.testing.assert_close(model(images()).logits, expected.logits)


@every_family
def test_a_saved_model_opens_in_pipeline_and_finds_what_we_find(family: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, family)
    assert json.loads((folder / CONFIG).read_text())["architectures"] == [FAMILIES[family].architecture]
    photo = plain_image(70, 90, seed=0)
    expected = pipeline("object-detection", str(folder), threshold=0.0)(photo)
    (found,) = detect(*load_detector(str(folder)), [photo])
    found = found.above(0.0)
    assert len(expected) == len(found)
    assert {entry["label"] for entry in expected} <= set(CLASSES)
    scores = sorted((entry["score"] for entry in expected), reverse=True)
    torch.testing.assert_close(torch.tensor(scores), torch.from_numpy(found.scores), atol=1e-5, rtol=0)


@every_family
def test_every_tensor_is_loaded_again_whatever_it_is_called_in_the_file(family: str, tmp_path: Path) -> None:
    saved, model = tiny_model(family, seed=1), tiny_model(family, seed=0)
    saved.save_pretrained(tmp_path)
    as_trainer_loads = tiny_model(family, seed=0)
    as_trainer_loads.load_state_dict(load_file(tmp_path / WEIGHTS), strict=False)
    expected = saved.state_dict()
    is_whole = all(torch.equal(value, expected[name]) for name, value in as_trainer_loads.state_dict().items())
    assert is_whole == (family in ("dab-detr", "table-transformer")), "no others keep their names"
    load_weights(model, tmp_path, "training.resume_from_checkpoint", "Resume from another one.")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@every_family
@pytest.mark.parametrize("labels", [("balloon",), ("balloon", "star")])
def test_heads_for_other_classes_are_new_and_the_rest_is_loaded(
    family: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    tiny_model(family, seed=1).save_pretrained(tmp_path)
    before = tiny_model(family, seed=1).state_dict()
    model = build_model(ModelConfig(checkpoint=str(tmp_path), square_edge=EDGE), labels, range(len(labels)))
    heads = FAMILIES[family].class_heads
    same = {
        name: torch.equal(value, before[name])
        for name, value in model.state_dict().items()
        if value.dim() > 1 and value.shape == before[name].shape
    }
    assert all(same[name] for name in same if not name.startswith(heads))
    assert not any(same[name] for name in same if name.startswith(heads))
    kept = build_model(ModelConfig(checkpoint=str(tmp_path), square_edge=EDGE), CLASSES, [0, 1]).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in kept.items())


@real_time
@pytest.mark.parametrize("labels", [("balloon",), ("balloon", "star", "cone")])
def test_new_heads_start_from_the_prior_of_the_original(family: str, labels: tuple[str, ...], tmp_path: Path) -> None:
    tiny_model(family).save_pretrained(tmp_path)
    torch.manual_seed(1)
    model = build_model(ModelConfig(checkpoint=str(tmp_path), square_edge=EDGE), labels, range(len(labels)))
    inner: nn.Module = model.model
    heads = [*inner.decoder.class_embed, inner.enc_score_head]
    assert len(heads) == 3
    for head in heads:
        assert head.out_features == len(labels)
        torch.testing.assert_close(head.bias, torch.full_like(head.bias, -math.log(99)))
    embedding = inner.denoising_class_embed.weight
    assert embedding.shape[0] == len(labels) + 1
    assert not embedding[-1].any()
    assert 0.7 < float(embedding[:-1].std()) < 1.3


@every_family
@pytest.mark.parametrize("counts", [(2, 1), (3, 0), (0, 0)], ids=["boxes", "an image without", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_every_trained_parameter_has_a_gradient_also_without_boxes(
    family: str, counts: tuple[int, ...], dtype: torch.dtype
) -> None:
    model = tiny_model(family).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = model(images(), labels=some_labels(*counts))
    outputs.loss.backward()
    assert outputs.logits.dtype == outputs.pred_boxes.dtype == torch.float32
    assert outputs.logits.shape[1] == SETTINGS[family]["num_queries"] * SETTINGS[family].get("group_detr", 1)
    assert outputs.loss.isfinite()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@every_family
def test_micro_batches_add_up_to_the_whole_batch(family: str) -> None:
    dtype = (
        torch.float32 if family == "dab-detr" else torch.float64
    )  # its positions are in fp32 whatever it computes in
    close = {"rtol": 1e-3, "atol": 1e-4} if family == "dab-detr" else {}
    # With a query for each of the 84 places, equal scores cannot change which places become queries.
    overrides = {"num_denoising": 0, "num_queries": 84} if family in of_real_time else {}
    model = tiny_model(family, dropout=0.0, **overrides).to(dtype).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    labels = some_labels(3, 0, 1, 2)
    batch = images(4).to(dtype)
    whole = model(batch, labels=labels)
    whole.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    items = sum(count_items([target], model.config.num_queries) for target in labels)
    parts = [model(batch[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=items) for i in range(4)]
    for part in parts:
        part.loss.backward()
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss, **close)
    if family == "d_fine":
        return  # its box losses are divided by the objects that are matched, which one micro-batch alone does not know
    for name, p in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(p.grad, gradients[name], **close)


def test_boxes_of_rt_detr_look_forward_twice() -> None:
    model = tiny_model("rt_detr")
    stock = FAMILIES["rt_detr"].stock_class(model.config)
    stock.load_state_dict(model.state_dict())
    first = {}
    for name, one in (("ours", model), ("stock", stock)):
        one.eval()
        for head in one.model.decoder.bbox_embed:
            nn.init.constant_(head.layers[-1].bias, 0.1)
        boxes = (
            one.family.predict(one, images(), None, some_labels(1, 1)).layers.boxes_cxcywh_rel[-1]
            if name == "ours"
            else one(images()).pred_boxes
        )
        boxes.sum().backward()
        first[name] = one.model.decoder.bbox_embed[0].layers[-1].bias.grad
    assert not first["stock"].any()
    assert first["ours"].any()


def edited(folder: Path, **settings: object) -> Path:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **settings}))
    return folder


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "grounding-dino"}, r"expected a DETR .*detr, rt_detr.*found 'grounding-dino': it wants a text"),
        ({"auto_map": {"AutoModel": "x.y"}}, "found 'detr': it brings code of its own"),
    ],
    ids=["another model", "code of its own"],
)
def test_models_that_are_not_taken_are_refused_with_the_reason(settings: dict, message: str, tmp_path: Path) -> None:
    tiny_model("detr").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        build_model(ModelConfig(checkpoint=str(edited(tmp_path, **settings))), CLASSES, [0, 1])


def test_a_family_that_is_not_the_checkpoints_is_refused(tmp_path: Path) -> None:
    tiny_model("detr").save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"model\.family: expected 'detr', which the checkpoint .* found 'rt_detr'"):
        build_model(ModelConfig(checkpoint=str(tmp_path), family="rt_detr"), CLASSES, [0, 1])
    with pytest.raises(RecipeError, match=r"model\.family: expected one of detr, .* found 'rtdetr'.*did you mean"):
        build_model(ModelConfig(checkpoint=None, backbone="test_resnet", family="rtdetr"), CLASSES, [0, 1])


@real_time
@pytest.mark.parametrize("training", [True, False])
def test_the_encoders_places_have_boxes_and_gradients_only_where_the_decoder_reads_them(
    family: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(tiny_model(family)).train(training)
    proposals = model.model.enc_bbox_head.forward.__self__
    weights = [next(module.parameters()) for module in proposals.modules]
    with_gradient: list[tuple[int, int]] = []
    linear = nn.functional.linear

    def note(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if torch.is_grad_enabled():
            with_gradient.extend((number, x.shape[1]) for number, one in enumerate(weights) if one is weight)
        return linear(x, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", note)

    def loss_and_gradients() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)  # denoising queries are drawn
        model.zero_grad()
        loss = model(images(), labels=some_labels(2, 1)).loss
        loss.backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        return {"loss": loss.detach(), **gradients}

    some, every = model.config.num_queries, (EDGE // 8) ** 2 + (EDGE // 16) ** 2 + (EDGE // 32) ** 2
    found = loss_and_gradients()
    assert with_gradient == [(0, some if training else every), (1, some if training else every), (2, some)]
    for module, forward in zip(proposals.modules, proposals.everywhere, strict=True):
        module.forward = forward
    plain = loss_and_gradients()
    assert with_gradient[3:] == [(0, every), (1, every), (2, every)]
    assert any(name.startswith("model.enc_bbox_head") for name in found)
    torch.testing.assert_close(found, plain)


@real_time
def test_the_losses_of_all_layers_are_needed(family: str) -> None:
    section = new_section(family)
    section.auxiliary_losses = False
    with pytest.raises(RecipeError, match=r"model\.auxiliary_losses: expected true"):
        build_model(section, CLASSES, [0, 1])


@real_time
@pytest.mark.parametrize(("edge", "nearest"), [(100, 96), (20, 32), (None, 800)])
def test_a_size_that_does_not_halve_evenly_is_refused_with_the_nearest(
    family: str, edge: int | None, nearest: int
) -> None:
    section = new_section(family)
    section.square_edge = edge
    with pytest.raises(RecipeError, match=rf"expected a multiple of 32, .* found {edge}\. The nearest is {nearest}\."):
        build_model(section, CLASSES, [0, 1])


@pytest.mark.parametrize("two_stage", [False, True])
def test_deformable_detr_refines_boxes_also_in_two_stages(two_stage: bool, tmp_path: Path) -> None:
    settings = {"with_box_refine": True, "two_stage": two_stage, "two_stage_num_proposals": 12}
    model = tiny_model("deformable_detr", **settings).train()
    stock = model.family.stock_class(model.config).train()
    stock.load_state_dict(model.state_dict())
    for one in (model, stock):
        for module in one.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
    outputs = model(images(), labels=some_labels(2, 0))
    outputs.loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert ("loss_ce_enc" in outputs.loss_dict) == two_stage
    heads = model.class_embed
    assert len(heads) == 2 + two_stage
    assert all(torch.equal(head.bias, torch.full_like(head.bias, -math.log(99))) for head in heads)
    assert len({head.weight.data_ptr() for head in heads}) == len(heads), "each layer has a head of its own"
    model.save_pretrained(tmp_path)
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    again = tiny_model("deformable_detr", seed=1, **settings)
    load_weights(again, tmp_path, "training.resume_from_checkpoint", "Resume from another one.")
    assert all(torch.equal(value, saved[name]) for name, value in again.state_dict().items())


def test_proposals_of_two_stages_lie_where_they_do_in_fp32_also_in_bf16() -> None:
    model = tiny_model("deformable_detr", two_stage=True, with_box_refine=True, two_stage_num_proposals=84)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled), torch.no_grad():
            found.append(model.family.predict(model, images(), None, []).encoder)
    centres = [encoder.boxes_cxcywh_rel[..., :2].sort(-2).values for encoder in found]
    torch.testing.assert_close(centres[0], centres[1], atol=1e-5, rtol=0)


@real_time
@pytest.mark.parametrize("training", [True, False])
def test_places_of_the_encoder_lie_where_they_do_in_fp32_also_in_bf16(family: str, training: bool) -> None:
    model = tiny_model(family, num_queries=84, anchor_image_size=[EDGE, EDGE]).train(training)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(model.family.predict(model, images(), None, some_labels(1, 1)).encoder)
    centres = [encoder.boxes_cxcywh_rel[..., :2].sort(-2).values for encoder in found]
    torch.testing.assert_close(centres[0], centres[1], atol=1e-5, rtol=0)


@every_family
def test_probes_of_the_backbone_have_a_size_that_it_takes(family: str) -> None:
    model = tiny_model(family)
    windows = 3 if family == "rf_detr" else None
    if windows:  # 48 pixels a window, which neither 224 nor 256 is a multiple of
        backbone = {**SETTINGS[family]["backbone_config"], "num_windows": windows, "image_size": 96}
        model = tiny_model(family, backbone_config=backbone)
    assert feature_stride(model) == {"detr": 32, "conditional_detr": 32, "dab-detr": 32, "table-transformer": 32}.get(
        family, 16 if family in ("rf_detr", "lw_detr") else 8
    )
    assert is_faster_in_bf16(model) in (True, False)


@every_family
@pytest.mark.parametrize("sure", [30.0, -30.0], ids=["of all", "of none"])
def test_sure_scores_in_half_precision_have_finite_gradients(family: str, sure: float) -> None:
    model = tiny_model(family).train()
    for name, parameter in model.named_parameters():
        if name.startswith(FAMILIES[family].class_heads) and name.endswith("bias"):
            nn.init.constant_(parameter, sure)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(images(), labels=some_labels(2, 1))
    outputs.loss.backward()
    assert outputs.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("family", ["rf_detr", "lw_detr"])
def test_an_evaluation_has_one_group_of_queries(family: str) -> None:
    """With a group's queries for all of the training's groups, no loss of an evaluation could become 0."""
    model = tiny_model(family)
    found = {}
    for training in (True, False):
        model.train(training)
        predictions = model.family.predict(model, images(), None, some_labels(1, 1))
        found[training] = predictions.groups, predictions.layers.logits.shape[2], predictions.encoder.logits.shape[2]
    assert found == {True: (3, 36, 36), False: (1, 12, 12)}


def test_boxes_of_d_fine_are_those_of_their_distributions() -> None:
    model = tiny_model("d_fine").train()
    for head in model.model.decoder.bbox_embed:
        nn.init.normal_(head.layers[-1].weight)
    predictions = model.family.predict(model, images(), None, some_labels(2, 1))
    decoder, config = model.model.decoder, model.config
    project = weighting_function(config.max_num_bins, decoder.up, decoder.reg_scale)
    for layers in (predictions.layers, predictions.denoising.layers):
        assert len(layers.boxes_cxcywh_rel) == len(layers.corners) == 2
        for boxes, corners, reference in zip(
            layers.boxes_cxcywh_rel, layers.corners, layers.reference_boxes, strict=True
        ):
            distances = decoder.integral(corners, project)
            expected = distance2bbox(reference, distances, decoder.reg_scale)
            torch.testing.assert_close(boxes, expected)


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.timm_backbone])
def test_attention_of_a_new_model_begins_as_that_of_torch(family: str) -> None:
    inner: nn.Module = tiny_model(family).model
    layers = [m for part in (inner.encoder, inner.decoder) for m in part.modules() if hasattr(m, "k_proj")]
    assert layers
    for layer in layers:
        for projection in (layer.q_proj, layer.k_proj, layer.v_proj):
            bound = math.sqrt(6 / (4 * projection.in_features))
            assert 0.9 * bound < projection.weight.abs().max() <= bound
            assert not projection.bias.any()


def test_boxes_of_a_new_deformable_detr_begin_small_also_with_one_head_for_all_layers() -> None:
    model = tiny_model("deformable_detr")
    assert [head.layers[-1].bias.tolist() for head in model.bbox_embed] == [[0, 0, -2, -2]] * 2


def test_boxes_of_a_new_dab_detr_begin_as_torch_draws_layers_though_its_decoder_has_them() -> None:
    for layer in tiny_model("dab-detr").bbox_predictor.layers[:-1]:
        bound = layer.in_features**-0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound


def test_anchors_of_a_new_dab_detr_begin_as_torch_draws_embeddings() -> None:
    spread = {}
    for random in (False, True):
        model = tiny_model("dab-detr", num_queries=300, random_refpoints_xy=random)
        spread[random] = model.model.query_refpoint_embeddings.weight[:, :2].std()
    assert 0.9 < spread[False] < 1.1
    assert 1.6 < spread[True] < 2.0  # of the logit of what is uniform
