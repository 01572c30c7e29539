"""Models of facebookresearch/detr in Transformers' classes and back, and files that are refused."""

import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import DetrConfig, DetrForObjectDetection, DetrForSegmentation, pipeline

from hf_detr_ft.errors import CheckpointError, RecipeError
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.checkpoint import Checkpoint
from hf_detr_ft.model.load import load_for_inference
from hf_detr_ft.model.original.coco_names import COCO_IDS, THINGS
from hf_detr_ft.model.original.from_original import convert_original
from hf_detr_ft.model.original.original_file import read_original, wrapped
from hf_detr_ft.model.original.tensor_names import detectron2_name, tensor_names, without_wrapper
from hf_detr_ft.model.original.to_original import write_as_original
from hf_detr_ft.recipe.sections import ModelConfig
from tests.fixtures import tiny_detr
from tests.parity.original_models import Model, random_tensors

Tensors = dict[str, torch.Tensor]
MODEL, PANOPTIC = Model("resnet18"), Model("resnet18", masks=True)


@pytest.fixture(scope="module")
def detector() -> Tensors:
    """Weights of a DETR with 20 classes, by the original's names."""
    return random_tensors(MODEL)


@pytest.fixture(scope="module")
def panoptic() -> Tensors:
    """Weights with a mask head."""
    return random_tensors(PANOPTIC)


def with_rows(tensors: Tensors, rows: int) -> Tensors:
    """The same with another class head."""
    draw = torch.Generator().manual_seed(rows)
    width = tensors["class_embed.weight"].shape[1]
    head = {"weight": torch.randn(rows, width, generator=draw), "bias": torch.randn(rows, generator=draw)}
    return tensors | {f"class_embed.{kind}": value for kind, value in head.items()}


def save(path: Path, tensors: Any, **content: Any) -> Path:
    """A file as the original's main.py writes it."""
    torch.save({"model": tensors, "args": MODEL.arguments, "epoch": 3, **content}, path)
    return path


def equal_bits(found: Tensors, expected: Tensors) -> bool:
    return list(found) == list(expected) and all(
        found[name].dtype == value.dtype and torch.equal(found[name].view(torch.int32), value.view(torch.int32))
        for name, value in expected.items()
    )


FORMS: dict[str, Callable[[Tensors, Tensors], Tensors]] = {
    "as published": lambda detector, _: with_rows(detector, 92),
    "one class": lambda detector, _: with_rows(detector, 2),
    "no class head": lambda detector, _: {k: v for k, v in detector.items() if not k.startswith("class_embed")},
    "panoptic": lambda _, panoptic: panoptic,
    "detectron2": lambda detector, _: {
        **wrapped(with_rows(detector, 81)),
        "pixel_mean": torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1),
        "pixel_std": torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1),
        "criterion.empty_weight": torch.tensor([*[1.0] * 80, 0.1]),
    },
    "detectron2 panoptic": lambda _, panoptic: wrapped(panoptic),
}


@pytest.mark.parametrize("form", FORMS)
def test_there_and_back_is_identical_to_the_bit(
    form: str, detector: Tensors, panoptic: Tensors, tmp_path: Path
) -> None:
    tensors = FORMS[form](detector, panoptic)
    converted = convert_original(save(tmp_path / "theirs.pth", tensors))
    converted.save(tmp_path / "folder")
    to = "detectron2" if form.startswith("detectron2") else "original"
    write_as_original(str(tmp_path / "folder"), tmp_path / "back.pth", to)
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert equal_bits(back["model"], tensors)
    assert back["args"] == {name: vars(MODEL.arguments)[name] for name in back["args"]} | {"masks": "panoptic" in form}


def test_ours_becomes_the_originals_and_comes_back(detector: Tensors, tmp_path: Path) -> None:
    convert_original(save(tmp_path / "theirs.pth", detector)).save(tmp_path / "start")
    config = ModelConfig(checkpoint=str(tmp_path / "start"))
    model = build_model(config, ["mug", "cone"], [3, 7])
    model.save_pretrained(tmp_path / "run")
    assert write_as_original(str(tmp_path / "run"), tmp_path / "run.pth", "original") == [
        "class head: 91 rows and no object"
    ]
    head = torch.load(tmp_path / "run.pth", weights_only=True)["model"]["class_embed.bias"]
    assert head.shape == (92,)
    own = model.class_labels_classifier.bias.detach()
    scores = head.softmax(0)
    torch.testing.assert_close(scores[[3, 7, 91]], own.softmax(0), rtol=0, atol=1e-7)
    assert scores[[index for index in range(91) if index not in (3, 7)]].max() == 0
    again = convert_original(tmp_path / "run.pth")
    again.save(tmp_path / "again")
    assert again.model.config.id2label == {0: "mug", 1: "cone"} and again.model.config.category_ids == [3, 7]
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "again"))
    assert equal_bits(after, before)
    write_as_original(str(tmp_path / "run"), tmp_path / "wrapped.pth", "detectron2")
    assert len(read_original(tmp_path / "wrapped.pth").tensors["class_embed.bias"]) == 3
    with pytest.raises(RecipeError, match="--num-classes: expected more than the highest category id, 7, .* found 5"):
        write_as_original(str(tmp_path / "run"), tmp_path / "few.pth", "original", num_classes=5)


def test_the_wrappers_head_has_cocos_80_classes(detector: Tensors, tmp_path: Path) -> None:
    tensors = with_rows(detector, 92)
    converted = convert_original(save(tmp_path / "theirs.pth", tensors))
    assert list(converted.model.config.id2label.values()) == list(THINGS)
    assert [THINGS[index] for index in (0, 1, 12, 13, 90)] == ["N/A", "person", "N/A", "stop sign", "toothbrush"]
    converted.save(tmp_path / "folder")
    write_as_original(str(tmp_path / "folder"), tmp_path / "wrapped.pth", "detectron2")
    weights = torch.load(tmp_path / "wrapped.pth", weights_only=True)["model"]["detr.class_embed.weight"]
    assert torch.equal(weights, tensors["class_embed.weight"][[*COCO_IDS, 91]])
    config = convert_original(tmp_path / "wrapped.pth").model.config
    assert len(config.id2label) == 80 and config.id2label[11] == "stop sign" and config.category_ids[11] == 13


def test_names_of_the_wrapper_are_those_of_detectron2() -> None:
    names = {
        "query_embed.weight": "detr.query_embed.weight",
        "backbone.0.body.bn1.bias": "detr.backbone.0.backbone.stem.conv1.norm.bias",
        "backbone.0.body.layer4.2.conv3.weight": "detr.backbone.0.backbone.res5.2.conv3.weight",
        "backbone.0.body.layer1.0.bn2.running_var": "detr.backbone.0.backbone.res2.0.conv2.norm.running_var",
        "backbone.0.body.layer2.0.downsample.0.weight": "detr.backbone.0.backbone.res3.0.shortcut.weight",
        "detr.backbone.0.body.layer2.0.downsample.1.bias": "detr.detr.backbone.0.backbone.res3.0.shortcut.norm.bias",
        "mask_head.gn1.weight": "detr.mask_head.gn1.weight",
    }
    assert {name: detectron2_name(name) for name in names} == names
    assert {without_wrapper(name) for name in names.values()} == names.keys()


def test_pipeline_opens_the_folder_and_a_recipe_the_file(detector: Tensors, tmp_path: Path) -> None:
    path = save(tmp_path / "detr-r18.pth", with_rows(detector, 2))
    converted = convert_original(path, names={0: "balloon"})
    converted.processor.size = {"shortest_edge": 64, "longest_edge": 128}
    converted.save(tmp_path / "folder")
    photo = Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 80, 3), dtype=np.uint8))
    found = pipeline("object-detection", str(tmp_path / "folder"))(photo, threshold=0.0)
    assert {detection["label"] for detection in found} == {"balloon"} and len(found) == 10
    model = build_model(ModelConfig(checkpoint=str(path)), ["mug"], [3])
    assert torch.equal(model.bbox_predictor.layers[2].weight, detector["bbox_embed.layers.2.weight"])
    assert torch.equal(
        model.model.encoder.layers[0].self_attn.k_proj.bias.detach(),
        detector["transformer.encoder.layers.0.self_attn.in_proj_bias"][128:256],
    )
    assert load_for_inference(str(path)).config.id2label == {0: "LABEL_0"}
    save(path, with_rows(detector, 4))
    os.utime(path, ns=(1, 1))
    assert len(load_for_inference(str(path)).config.id2label) == 3


def test_the_originals_dropout_is_everywhere(detector: Tensors, tmp_path: Path) -> None:
    config = convert_original(save(tmp_path / "model.pth", detector, args={"dropout": 0.2})).model.config
    assert (config.dropout, config.attention_dropout, config.activation_dropout) == (0.2, 0.2, 0.2)
    bare = convert_original(save(tmp_path / "bare.pth", detector, args={})).model.config
    assert (bare.dropout, bare.attention_dropout, bare.activation_dropout) == (0.1, 0.1, 0.1)


def test_images_in_blue_green_red_are_refused(detector: Tensors, tmp_path: Path) -> None:
    tensors = wrapped(detector)
    path = save(tmp_path / "rgb.pth", tensors | {"pixel_mean": torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)})
    assert list(convert_original(path).processor.image_mean) == [0.485, 0.456, 0.406]
    save(path, tensors | {"pixel_mean": torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)})
    assert "'pixel_mean': expected that of images in red, green, blue" in refused(path)


def test_the_mask_head_is_dropped_where_asked(
    panoptic: Tensors, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path / "panoptic.pth", panoptic)
    dropped = convert_original(path, masks=False)
    assert type(dropped.model) is DetrForObjectDetection and dropped.notes[0] == "mask head: left out"
    assert torch.equal(dropped.model.model.query_position_embeddings.weight, panoptic["detr.query_embed.weight"])
    opened = load_for_inference(str(path))
    assert type(opened) is DetrForSegmentation and opened.config.num_labels == 20
    names = list(opened.config.id2label.values())
    boxes = build_model(ModelConfig(checkpoint=str(path)), names, range(20)).state_dict()
    assert all(torch.equal(tensor, boxes[name]) for name, tensor in opened.detr.state_dict().items())
    masks = build_model(ModelConfig(checkpoint=str(path), masks=True), names, range(20)).state_dict()
    assert all(torch.equal(tensor, masks[name]) for name, tensor in opened.state_dict().items())
    assert not caplog.records


def test_no_class_head_stays_no_class_head(detector: Tensors, tmp_path: Path) -> None:
    path = save(tmp_path / "detr.pth", {k: v for k, v in detector.items() if not k.startswith("class_embed")})
    converted = convert_original(path)
    converted.save(tmp_path / "folder")
    assert not [name for name in load_file(tmp_path / "folder" / "model.safetensors") if "classifier" in name]
    assert converted.notes == ["class head: none; it can be fine-tuned from; pipeline() wants one"]
    build_model(ModelConfig(checkpoint=str(tmp_path / "folder")), ["mug"], [3])
    for source in (path, tmp_path / "folder"):
        with pytest.raises(CheckpointError) as caught:
            load_for_inference(str(source))
        said = f"'{source}': expected a model with a class head, found none ('class_labels_classifier.bias' is missing)"
        assert str(caught.value).startswith(said)
        assert f"hf-detr-ft train RECIPE --model.checkpoint {source}, and give the run folder" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "name", "asked", "expected"),
    [
        (None, "detr-r50-dc5-f0fb7ef5.pth", None, True),
        (None, "detr-r50-e632da11.pth", None, False),
        (None, "detr-r50-e632da11.pth", True, True),
        (Namespace(dilation=True, output_dir=Path("/x")), "checkpoint.pth", None, True),
        ({"dilation": False}, "my-dc5.pth", None, False),
    ],
)
def test_dilation_is_that_of_arguments_or_name(
    arguments: Any, name: str, asked: bool | None, expected: bool, detector: Tensors, tmp_path: Path
) -> None:
    content = {"model": detector} if arguments is None else {"model": detector, "args": arguments}
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=arguments is None)
    config: DetrConfig = convert_original(tmp_path / name, dilation=asked).model.config
    assert (config.dilation, getattr(config.backbone_config, "output_stride", None)) == (
        expected,
        16 if expected else None,
    )


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.target}",)


def names_only() -> dict[str, torch.Tensor]:
    """A tensor of one number for each name."""
    return {name: torch.zeros(1) for name, _ in tensor_names(MODEL.architecture)}


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        convert_original(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.endswith(".") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    for place in ("args", "model"):
        path = tmp_path / f"{place}.pth"
        torch.save({"model": names_only(), place: Hostile(tmp_path / "ran")}, path)
        assert "found 'posix.system', which could run code" in refused(path)
    assert not (tmp_path / "ran").exists()


STEM = "backbone.0.body.conv1.weight"
OTHERS = {
    "a detectron2 R-CNN": ["backbone.bottom_up.stem.conv1.weight", "roi_heads.box_head.fc1.weight"],
    "a model of detectron2 other than DETR": ["backbone.bottom_up.res2.0.conv1.weight", "head.cls_score.weight"],
    "a Deformable DETR": [STEM, "transformer.encoder.layers.0.self_attn.sampling_offsets.weight"],
    "a Conditional DETR or DAB-DETR": [STEM, "transformer.decoder.layers.0.sa_qcontent_proj.weight"],
    "a DETR of Transformers": ["model.backbone.model.conv1.weight", "class_labels_classifier.weight"],
    "a classifier": ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"],
    "others": ["weight"],
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("key", ["model", None])
def test_other_models_are_named(kind: str, key: str | None, tmp_path: Path) -> None:
    tensors = {name: torch.zeros(1) for name in OTHERS[kind]}
    torch.save({key: tensors} if key else tensors, tmp_path / "other.pth")
    found = kind if kind == "others" else f"those of {kind}"
    assert f"expected tensors of facebookresearch/detr, such as '{STEM}', found {found}" in refused(
        tmp_path / "other.pth"
    )


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "missing": (
        lambda: {k: v for k, v in names_only().items() if "linear1" not in k and k != "query_embed.weight"},
        "expected 173 tensors of a DETR, found 9 missing, such as transformer.encoder.layers.0.linear1.weight, ",
    ),
    "half a head": (
        lambda: {k: v for k, v in names_only().items() if k != "class_embed.bias"},
        "found 1 missing, such as class_embed.bias.",
    ),
    "unexpected": (lambda: names_only() | {"refpoint": torch.zeros(1)}, "found 1 others, such as refpoint."),
    "pre-norm": (
        lambda: names_only() | {"transformer.encoder.norm.weight": torch.zeros(1)},
        "found a model that was trained with --pre_norm",
    ),
    "blocks": (
        lambda: {k: v for k, v in names_only().items() if "layer4.1" not in k},
        "expected one of the backbones resnet18, resnet34, resnet50, resnet101, resnet152, found (2, 2, 2, 1) blocks",
    ),
    "no tensor": (
        lambda: names_only() | {"class_embed.bias": [1, 2]},
        "'class_embed.bias': expected a tensor of floating-point numbers, found a list.",
    ),
    "integers": (
        lambda: names_only() | {"class_embed.bias": torch.zeros(1, dtype=torch.int64)},
        "a tensor of torch.int64",
    ),
    "one number": (lambda: names_only() | {"class_embed.bias": torch.tensor(1.0)}, "found a single number."),
    "inflated": (
        lambda: names_only() | {"query_embed.weight": torch.zeros(1).expand(10**9, 256)},
        "'query_embed.weight': expected a tensor of floating-point numbers, found a shape of (1000000000, 256) over 4",
    ),
    "sparse": (
        lambda: names_only() | {"query_embed.weight": torch.zeros(2, 2).to_sparse()},
        "found a tensor of layout torch.sparse_coo",
    ),
    "flat queries": (names_only, "'query_embed.weight': expected a table of queries whose width the 8 heads"),
    "a list": (
        lambda: [1, 2],
        "expected tensors by their names, alone or under 'model', found ['model', 'args', 'epoch']",
    ),
    "nothing": (dict, "expected tensors by their names"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_the_tensors_is_said(case: str, tmp_path: Path) -> None:
    make, message = WRONG[case]
    assert message in refused(save(tmp_path / "wrong.pth", make()))


def test_wrong_shapes_arguments_and_categories_are_named(detector: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pth"
    save(path, detector | {"bbox_embed.layers.2.weight": torch.zeros(5, 128)})
    assert "'bbox_embed.layers.2.weight': expected the shape (4, 128), found (5, 128)." in refused(path)
    for name, value, expected in (("nheads", "8", "a int such as 8"), ("eos_coef", True, "a float such as 0.1")):
        save(path, detector, args={name: value})
        assert f"args.{name}: expected {expected}, found {value!r}" in refused(path)
    save(path, detector, args={"nheads": 7})
    assert "'query_embed.weight': expected a table of queries whose width the 7 heads divide" in refused(path)
    save(path, detector, args={"set_cost_bbox": 2.5})
    assert "args: expected values that transformers.DetrConfig takes" in refused(path)
    save(path, detector, class_names={"3": "mug"})
    assert "class_names: expected names by category id, found {'3': 'mug'}" in refused(path)
    save(path, detector | {"class_embed.bias": torch.zeros(4)})
    assert "'class_embed': expected a weight and a bias of two rows or more, found [21, 4]." in refused(path)
    save(path, with_rows(detector, 2))
    message = "expected a row for each category id up to 1 and one for no object, found 2 rows"
    assert message in refused(path, names={1: "balloon"})


def test_damaged_files_are_named(detector: Tensors, tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.pth", detector).read_bytes()
    torch.save({"model": detector}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old.pth").read_bytes()
    damaged = {"cut": whole[: len(whole) // 2], "empty": b"", "old": old[: len(old) // 2], "text": b"<html>Not found"}
    for name, content in damaged.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        message = refused(path)
        assert message.startswith("expected a file that torch.save wrote, but it cannot be read: "), message
        assert message.endswith("copy or download it again.") and "weights_only" not in message
    assert refused(tmp_path / "gone.pth") == "expected a .pth file, found no file. Check the path."


def test_a_recipes_file_is_named_with_its_field(tmp_path: Path) -> None:
    path = tmp_path / "some.pth"
    with pytest.raises(CheckpointError, match=r"^model.checkpoint: '.*some.pth': expected a file of facebook"):
        Checkpoint(str(path), "model.checkpoint").check_exists()
    path.write_bytes(b"no pickle")
    with pytest.raises(CheckpointError, match=rf"^model.checkpoint: {path}: expected a file that torch.save wrote"):
        Checkpoint(str(path), "model.checkpoint").check_exists()


def test_what_the_original_has_not_is_not_written(tmp_path: Path) -> None:
    tiny_detr().save_pretrained(tmp_path / "tiny")
    with pytest.raises(CheckpointError, match=r"found the backbone 'test_resnet', where it has resnet18, resnet34"):
        write_as_original(str(tmp_path / "tiny"), tmp_path / "tiny.pth", "original")
    assert not (tmp_path / "tiny.pth").exists()
