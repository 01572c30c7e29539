"""DETR with a mask head: the network and the loss of Transformers, of the original in any division of a batch."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import pipeline
from transformers.loss.loss_for_object_detection import ForSegmentationLoss

from hf_detr_ft.errors import CheckpointError, RecipeError
from hf_detr_ft.inference.detect import detect, encode_masks, load_detector
from hf_detr_ft.model.build import build_model, find_family
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.families import family_of
from hf_detr_ft.model.families.detr_masks import DETR_MASKS
from hf_detr_ft.model.load import load_for_inference
from hf_detr_ft.model.loss import count_items
from hf_detr_ft.model.stages import summarise_trainable, train_stages
from hf_detr_ft.recipe.sections import ModelConfig
from tests.families import tiny_model, write_checkpoint
from tests.fixtures import CLASSES, HEADS_FOR_MASKS, plain_image, tiny_detr_with_spread_weights, write_run_folder

SIZES = ((64, 96), (96, 48))
"""Heights and widths of two images, padded to 96 x 96."""


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a DETR that finds boxes, whose queries differ."""
    return write_run_folder(tmp_path_factory.mktemp("boxes"), tiny_detr_with_spread_weights(**HEADS_FOR_MASKS))


def with_masks(folder: Path, names: tuple[str, ...] = CLASSES, **settings: object) -> Detector:
    """A mask head on a DETR, as a recipe makes it; only the head is trained."""
    torch.manual_seed(0)
    config = ModelConfig(checkpoint=str(folder), masks=True, **settings)  # type: ignore[arg-type]
    model = build_model(config, names, range(len(names)))
    train_stages(model, None)
    return model.eval()


def batch(sizes: tuple[tuple[int, int], ...] = SIZES, counts: tuple[int, ...] = (3, 1)) -> dict:
    """Noise, padded, with ellipses on it."""
    draw = torch.Generator().manual_seed(1)
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    pixels, mask = torch.zeros(len(sizes), 3, height, width), torch.zeros(len(sizes), height, width, dtype=torch.int64)
    labels = []
    for image, ((h, w), count) in enumerate(zip(sizes, counts, strict=True)):
        pixels[image, :, :h, :w] = torch.randn(3, h, w, generator=draw)
        mask[image, :h, :w] = 1
        boxes = 0.3 + 0.4 * torch.rand(count, 4, generator=draw)
        y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
        masks = [(2 * (x - cx) / bw) ** 2 + (2 * (y - cy) / bh) ** 2 < 1 for cx, cy, bw, bh in boxes.tolist()]
        labels.append(
            {
                "class_labels": torch.arange(count) % len(CLASSES),
                "boxes": boxes,
                "masks": torch.stack(masks) if masks else torch.zeros(0, h, w, dtype=torch.bool),
                "image_id": torch.tensor([image]),
            }
        )
    return {"pixel_values": pixels, "pixel_mask": mask, "labels": labels}


def test_the_network_and_the_loss_are_those_of_transformers_in_one_process(boxes: Path) -> None:
    model, inputs = with_masks(boxes), batch()
    model.auxiliary_losses = False
    stock = transformers.DetrForSegmentation(model.config).eval()
    stock.load_state_dict(model.state_dict())
    assert type(stock.mask_head).forward == type(model.mask_head).forward != model.mask_head.forward
    expected, found = stock(inputs["pixel_values"], inputs["pixel_mask"]), model(**inputs)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.pred_masks, expected.pred_masks, rtol=1e-4, atol=1e-5)
    fast = model(inputs["pixel_values"], inputs["pixel_mask"])
    torch.testing.assert_close(fast.pred_masks, expected.pred_masks, rtol=1e-4, atol=1e-5)
    logits, places, masks = expected.logits, expected.pred_boxes, expected.pred_masks
    loss, parts, _ = ForSegmentationLoss(logits, inputs["labels"], logits.device, places, masks, model.config)
    for name in ("loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice"):
        torch.testing.assert_close(found.loss_dict[name], parts[name].detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.loss, loss, rtol=1e-5, atol=0)
    assert parts["loss_mask"] > 1e-3


def test_only_the_head_is_trained(boxes: Path) -> None:
    model = with_masks(boxes)
    trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"mask_head", "bbox_attention"}
    assert summarise_trainable(model).stages == []
    before = load_for_inference(str(boxes)).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.detr.state_dict().items())
    drawn = [copy.deepcopy(with_masks(boxes).mask_head.conv1.conv.weight) for _ in range(2)]
    assert torch.equal(*drawn)


def gradients(model: Detector, parts: list[dict], items: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients and losses of a batch in parts, added up."""
    model.zero_grad()
    sums: dict[str, torch.Tensor] = {}
    for part in parts:
        outputs = model(**part, num_items_in_batch=items)
        outputs.loss.backward()
        for name, value in outputs.loss_dict.items():
            sums[name] = sums.get(name, torch.zeros(())) + value
    return {**sums, **{name: each.grad for name, each in model.named_parameters() if each.grad is not None}}


def test_a_batch_in_parts_has_the_gradient_of_the_whole(boxes: Path) -> None:
    """Parts are what processes and micro-batches have; of other sizes padding would differ, as in the original."""
    model, whole = with_masks(boxes).train(), batch(((64, 96),) * 4, (1, 4, 0, 2))
    items = count_items(whole["labels"], model.config.num_queries)
    parts = [{name: values[start : start + 2] for name, values in whole.items()} for start in (0, 2)]
    for dropout in (module for module in model.modules() if hasattr(module, "dropout")):
        dropout.dropout = 0.0
    one, several = gradients(model, [whole], items), gradients(model, parts, items)
    assert {"loss_mask", "loss_dice", "mask_head.output_conv.weight", "bbox_attention.q_proj.bias"} <= one.keys()
    assert one.keys() == several.keys()
    for name, value in one.items():
        torch.testing.assert_close(several[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_images_without_objects_leave_the_head_as_it_is(boxes: Path) -> None:
    model, inputs = with_masks(boxes).train(), batch(counts=(0, 0))
    outputs = model(**inputs)
    outputs.loss.backward()
    assert outputs.loss_dict["loss_mask"] == outputs.loss_dict["loss_dice"] == 0
    assert all(not each.grad.any() for each in model.parameters() if each.requires_grad)
    assert outputs.pred_masks is None  # in training they would be computed for nothing


def test_a_photo_that_cannot_be_read_has_no_masks(boxes: Path) -> None:
    model, inputs = with_masks(boxes).train(), batch(counts=(1, 0))
    del inputs["labels"][1]["masks"]
    assert model(**inputs).loss_dict["loss_mask"] > 0


def test_a_saved_model_opens_in_transformers_and_again_here(boxes: Path, tmp_path: Path) -> None:
    model = with_masks(boxes)
    write_run_folder(tmp_path, model)
    found = pipeline("image-segmentation", str(tmp_path), threshold=0.0, overlap_mask_area_threshold=0.0)(
        plain_image(70, 90, seed=0)
    )
    assert found and {entry["label"] for entry in found} <= set(CLASSES)
    again = load_for_inference(str(tmp_path), with_loss=True)
    assert family_of(again) is DETR_MASKS
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    more = with_masks(tmp_path)
    assert all(torch.equal(tensor, more.state_dict()[name]) for name, tensor in model.state_dict().items())
    plain = build_model(ModelConfig(checkpoint=str(tmp_path)), CLASSES, (3, 7))
    assert type(plain).__name__ == "DetrForObjectDetection"
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in model.detr.state_dict().items())
    (found,) = detect(*load_detector(str(tmp_path)), [plain_image(70, 90, seed=0)])
    assert found.masks is not None and found.above(0.0).masks.decode().shape == (12, 70, 90)


def test_masks_come_back_to_the_original_size() -> None:
    """Padding is cut off before a mask is enlarged, as in the original's `PostProcessSegm`."""
    pixel_mask = torch.zeros(1, 32, 48, dtype=torch.int64)
    pixel_mask[:, :16, :40] = 1
    logits = torch.full((1, 30, 8, 12), -5.0)
    logits[0, :, 1:3, 2:5] = 5.0  # rows 4 to 12 and columns 8 to 20 of the padded image
    (masks,) = encode_masks(logits, pixel_mask, [(32, 80)])
    found = masks.decode()
    assert found.shape == (30, 32, 80)
    rows, columns = np.nonzero(found[0].any(1))[0], np.nonzero(found[0].any(0))[0]
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (8, 24, 16, 40)
    assert (masks.areas() == found.sum((1, 2))).all()


def test_boxes_come_first(boxes: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="finds the data's classes already.*mug, cone.*Fine-tune its boxes first"):
        with_masks(boxes, ("mug", "star"))
    with pytest.raises(RecipeError, match=r"model\.masks: expected a model\.checkpoint that finds boxes already"):
        find_family(ModelConfig(checkpoint=None, backbone="resnet18", masks=True))
    write_checkpoint(tmp_path, "rt_detr")
    with pytest.raises(RecipeError, match=r"model\.masks: expected the checkpoint of a DETR, .* a RT-DETR"):
        find_family(ModelConfig(checkpoint=str(tmp_path), masks=True))


def test_a_backbone_hands_out_finer_maps_for_the_mask_head(tmp_path: Path) -> None:
    """A new DETR reads one map; its run has to take a mask head, too, as far as its backbone has finer maps."""
    model = tiny_model("detr", **HEADS_FOR_MASKS)
    assert model.config.backbone_config.out_indices == [4]
    write_run_folder(tmp_path / "32", model)
    assert with_masks(tmp_path / "32").config.backbone_config.out_indices == [1, 2, 3, 4]
    coarse = ModelConfig(
        checkpoint=None, backbone="test_resnet", backbone_stride=8, config={"d_model": 32, **HEADS_FOR_MASKS}
    )
    write_run_folder(tmp_path / "8", build_model(coarse, CLASSES, (3, 7)))
    with pytest.raises(CheckpointError, match="3 feature maps finer than the one that the transformer reads.*found 2"):
        with_masks(tmp_path / "8")
    write_run_folder(tmp_path / "4 heads", tiny_model("detr"))
    with pytest.raises(CheckpointError, match="whose sum is a multiple of 8, for the mask head, found 32 and 4"):
        with_masks(tmp_path / "4 heads")
