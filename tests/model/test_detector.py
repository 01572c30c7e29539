"""The network with its own loss: Transformers' without auxiliary losses, facebookresearch/detr's with them."""

import pytest
import torch
import transformers

from hf_detr_ft.model.detector import DetrForObjectDetection
from tests.fixtures import tiny_config, trainable_tiny_detr


def build(seed: int = 0, **overrides: object) -> DetrForObjectDetection:
    """Norms that are not the identity, as in a trained checkpoint."""
    torch.manual_seed(seed)
    model = DetrForObjectDetection(tiny_config(decoder_layers=3, **overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch() -> dict:
    mask = torch.ones(2, 64, 96, dtype=torch.int64)
    mask[1, :, 60:] = 0
    labels = [
        {"class_labels": torch.tensor([0, 1]), "boxes": torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.6, 0.5, 0.1, 0.1]])},
        {"class_labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)},
    ]
    return {"pixel_values": torch.randn(2, 3, 64, 96), "pixel_mask": mask, "labels": labels}


def as_stock(model: DetrForObjectDetection) -> transformers.DetrForObjectDetection:
    stock = transformers.DetrForObjectDetection(model.config).eval()
    stock.load_state_dict(model.state_dict())
    return stock


def stock_forward(model: DetrForObjectDetection, inputs: dict):
    return super(DetrForObjectDetection, model).forward(**inputs)


def test_without_auxiliary_losses_it_is_transformers_model() -> None:
    model, inputs = build(), batch()
    model.auxiliary_losses = False
    outputs, expected = model(**inputs), stock_forward(model, inputs)
    torch.testing.assert_close(outputs.loss, expected.loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-6)
    ours, theirs = (torch.autograd.grad(o.loss, list(model.bbox_predictor.parameters())) for o in (outputs, expected))
    for gradient, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-7)


def test_auxiliary_losses_do_not_change_the_prediction() -> None:
    model, inputs = build(), batch()
    outputs = model(**inputs)
    expected = model(inputs["pixel_values"], inputs["pixel_mask"])
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-6)
    assert {name for name in outputs.loss_dict if name.startswith("loss_ce")} == {"loss_ce", "loss_ce_0", "loss_ce_1"}


def test_transformers_own_auxiliary_losses_do_change_it() -> None:
    """Why ours are computed beside the decoder. If this fails, Transformers was mended, and the detour can go."""
    model, inputs = build(), batch()
    expected = stock_forward(model, inputs).logits
    model.config.auxiliary_loss = True
    assert (stock_forward(model, inputs).logits - expected).abs().max() > 0.01


@pytest.mark.parametrize("layers_read", [1, 2])
def test_an_auxiliary_layer_predicts_what_a_shallower_model_predicts(layers_read: int) -> None:
    """DETR's auxiliary output i is the heads on the normalised state behind layer i."""
    model, inputs = build(), batch()
    inputs.pop("labels")
    shallow = transformers.DetrForObjectDetection(tiny_config(decoder_layers=layers_read)).eval()
    shallow.load_state_dict(model.state_dict(), strict=False)
    expected = shallow(**inputs).logits
    states = model.model(**inputs, output_hidden_states=True).decoder_hidden_states
    found = model.class_labels_classifier(model.model.decoder.layernorm(states[layers_read]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    seen = []
    handle = model.class_labels_classifier.register_forward_hook(lambda module, args, output: seen.append(output))
    model(**inputs, labels=batch()["labels"])
    handle.remove()
    torch.testing.assert_close(seen[0][layers_read - 1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_attention_gets_one_row_of_scores_for_the_padding(implementation: str) -> None:
    """A mask for each query would be made anew in each layer, and asking for padding would stop a GPU."""
    model, inputs = build(), batch()
    model.set_attn_implementation(implementation)
    expected = as_stock(model)(inputs["pixel_values"], inputs["pixel_mask"])
    seen = []
    for layer in (*model.model.encoder.layers, *(layer.encoder_attn for layer in model.model.decoder.layers)):
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs.get("attention_mask", args[1] if len(args) > 1 else None)),
            with_kwargs=True,
        )
    outputs = model(**inputs)
    assert len(seen) == 1 + 3
    assert {tuple(mask.shape) for mask in seen} == {(2, 1, 1, 2 * 3)}
    assert [int((mask == 0).sum()) for mask in seen] == [6 + 4] * 4
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-5, atol=1e-6)


def test_what_lies_in_the_padding_is_not_attended_to() -> None:
    """Noise in padded columns that no convolution carries into the image's own positions changes nothing."""
    model, inputs = build(), batch()
    image = torch.zeros(1, 3, 64, 512)
    image[..., :64] = inputs["pixel_values"][:1, :, :, :64]
    mask = torch.zeros(1, 64, 512, dtype=torch.int64)
    mask[..., :64] = 1
    noisy = image.clone()
    noisy[..., 448:] = 100.0
    torch.testing.assert_close(model(noisy, mask).logits, model(image, mask).logits, rtol=1e-5, atol=1e-6)
    everywhere = torch.ones_like(mask)
    assert (model(noisy, everywhere).logits - model(image, everywhere).logits).abs().max() > 1e-3


def test_mixed_precision_does_not_round_boxes() -> None:
    model = trainable_tiny_detr()
    pixels, mask = torch.rand(1, 3, 64, 64), torch.ones(1, 64, 64, dtype=torch.int64)
    labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = model(pixel_values=pixels, pixel_mask=mask, labels=labels)
    assert outputs.pred_boxes.dtype == outputs.logits.dtype == torch.float32
    assert not torch.equal(outputs.pred_boxes, outputs.pred_boxes.bfloat16().float())


def test_arguments_that_labels_leave_no_use_for_are_refused() -> None:
    model, inputs = build(), batch()
    with pytest.raises(TypeError, match="forward with labels takes no output_attentions, return_dict"):
        model(**inputs, return_dict=True, output_attentions=True)
    inputs.pop("labels")
    assert model(**inputs, output_hidden_states=True).decoder_hidden_states is not None
