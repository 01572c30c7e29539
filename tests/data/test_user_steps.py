"""Steps of a recipe's own pipeline on images with boxes and masks: in a training's transform, from any source."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.cache.image_cache import cache_images
from hf_detr_ft.data.coco import LabelMap, read_coco
from hf_detr_ft.data.dataset import load_split, prepare_coco
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import AugmentConfig
from hf_detr_ft.report.collect import collect_data_summary
from tests.data.test_augment import GRID, coloured_image, digest
from tests.fixtures import draw_split, tiny_processor, write_coco_folder

CHANGES = [{"GaussNoise": {"p": 1}}, {"Affine": {"rotate": 15, "p": 0.7}}, {"OneOf": ["Blur", "RandomRotate90"]}]


@pytest.fixture
def rows(tmp_path: Path) -> Dataset:
    """Three images with masks, larger than the model takes them."""
    coco = draw_split(tmp_path, [(240, 320), (320, 240), (200, 200)], seed=0, objects=(1, 4, 0))
    file = tmp_path / "train.json"
    file.write_text(json.dumps(coco))
    prepared = prepare_coco(read_coco(file, outlines=True), None, masks=True)
    return load_split(prepared, tmp_path, LabelMap.from_coco(coco), masks=True)


def samples(rows: Dataset, *, epoch: int = 0, **given: Any) -> list[dict[str, Any]]:
    augmentation = build_augmentation(AugmentConfig(**{"preset": "none", **given}), 96)
    transform = DetrTransform(tiny_processor(), augmentation, seed=3)
    transform.epoch.set(epoch)
    return list(transformed(rows, transform))


def test_pixels_in_arguments_are_the_models_whether_images_are_kept_or_not(rows: Dataset, cache_folder: Path) -> None:
    kept = cache_images(rows, ImageSize(96, 160), 1e9)
    assert kept is not None
    crop = [{"CenterCrop": {"height": 48, "width": 48}}]  # half of the short side
    for source in (rows, kept):
        wide, _, square = samples(source, pipeline=crop)
        assert [tuple(sample["pixel_values"].shape) for sample in (wide, square)] == [(3, 96, 96)] * 2
        plain = samples(source)[0]["pixel_values"]
        middle = torch.nn.functional.interpolate(plain[None, :, 24:72, 40:88], (96, 96), mode="bilinear")[0]
        assert (wide["pixel_values"] - middle).abs().mean() < 0.05


def test_boxes_and_masks_go_with_their_objects_and_what_is_cut_off_goes(rows: Dataset) -> None:
    steps: list[Any] = [{"Affine": {"translate_percent": [0.3, 0.3], "p": 1}}, "Transpose"]
    seen, before = 0, 0
    for epoch in range(4):
        for sample in samples(rows, epoch=epoch, pipeline=steps, min_visibility=0.5):
            labels, (_, height, width) = sample["labels"], sample["pixel_values"].shape
            assert len(labels["boxes"]) == len(labels["masks"]) == len(labels["class_labels"])
            for box, mask in zip(labels["boxes"], labels["masks"], strict=True):
                y, x = (torch.nonzero(mask.any(dim=axis)).flatten() for axis in (1, 0))
                found = torch.tensor(
                    [x[0] + x[-1] + 1, y[0] + y[-1] + 1, 2 * (x[-1] + 1 - x[0]), 2 * (y[-1] + 1 - y[0])]
                )
                assert torch.allclose(found / 2, box * torch.tensor([width, height] * 2), atol=2.5)
                seen += 1
        before += 5
    assert 0 < seen < before


def test_a_seed_gives_the_same_whatever_was_drawn_before(rows: Dataset) -> None:
    augmentation = build_augmentation(AugmentConfig(pipeline=CHANGES), 96)
    drawn = []
    for global_seed in (1, 2):
        random.seed(global_seed)
        np.random.seed(global_seed)
        torch.manual_seed(global_seed)
        drawn.append([digest(augmentation(coloured_image(), np.array(GRID), seed)) for seed in (3, 4, 3)])
    assert drawn[0] == drawn[1] and drawn[0][0] == drawn[0][2] != drawn[0][1]
    plain = samples(rows, preset="detr", mosaic=0.0)
    with_steps = samples(rows, preset="detr", pipeline=[{"InvertImg": {"p": 1}}])
    for one, other in zip(plain, with_steps, strict=True):
        assert one["pixel_values"].shape == other["pixel_values"].shape, "what the preset draws stays"


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (
            {"RandomCrop": {"height": 500, "width": 10}},
            "on an image of 96 x 128 pixels a step stops with CropSizeError",
        ),
        ({"ToGray": {"num_output_channels": 1, "p": 1}}, "a step gives no image of three colours in 8 bits"),
    ],
)
def test_a_step_that_does_not_work_on_an_image_is_an_error_in_words(rows: Dataset, step: Any, expected: str) -> None:
    with pytest.raises(RecipeError, match="augment.pipeline: ") as error:
        samples(rows, pipeline=[step])
    assert expected in str(error.value)


def test_steps_that_change_the_size_are_known_to(rows: Dataset) -> None:
    for steps, expected in ((["Blur"], False), ([{"OneOf": ["Blur", "RandomRotate90"]}], True)):
        assert build_augmentation(AugmentConfig(preset="none", pipeline=steps), 96).draws_shapes is expected


def test_the_page_shows_training_images_as_the_steps_leave_them(tmp_path: Path) -> None:
    write_coco_folder(tmp_path, train_sizes=[(64, 64)] * 2)
    flags = ["--data.root", str(tmp_path), "--training.use_cpu", "true", "--augment.preset", "none"]
    model = ["--model.checkpoint", "null", "--model.backbone", "resnet18", "--model.shortest_edge", "64"]
    recipe = load_recipe(None, [*flags, *model, "--augment.pipeline", "[{InvertImg: {p: 1}}]"])
    summary, failed = collect_data_summary(recipe, load_splits(recipe.data), 32, tiny_processor(64, 64))
    assert failed == [] and len(summary.samples) == 2
    for (_, plain), (_, seen) in zip(summary.images, summary.samples, strict=True):
        corners = [np.asarray(image)[:3, :3].astype(int) for image in (plain, seen)]
        assert np.abs(corners[0] + corners[1] - 255).max() < 25
