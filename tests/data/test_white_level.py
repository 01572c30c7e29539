"""Images of 16 bits that hold fewer: `check` says so, and `data.white_level` makes them as bright as they are."""

import io
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DetrImageProcessor

from hf_detr_ft.data.cache.image_cache import cache_images
from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.image_size import ImageSize, white_level_of
from hf_detr_ft.data.images import decode_rgb, decode_row
from hf_detr_ft.data.splits import check_data, load_splits
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.inference.detect_files import Look, detect_files
from hf_detr_ft.recipe.sections import DataConfig
from hf_detr_ft.training.data_pipeline import build_processor
from tests.fixtures import new_model, tiny_detr, tiny_processor, write_coco_folder


def deepen(root: Path, factor: int) -> dict[str, np.ndarray]:
    """Writes the images of both splits in 16 bits, their 8-bit values times `factor`; the 8-bit values by name."""
    grey = {}
    for split in ("train", "val"):
        file = root / "annotations" / f"custom_{split}.json"
        coco = json.loads(file.read_text())
        for image in coco["images"]:
            path = root / f"{split}2017" / image["file_name"]
            values = np.asarray(Image.open(path).convert("L")).copy()
            values[0, 0] = 255
            image["file_name"] = path.with_suffix(".png").name
            Image.fromarray(values.astype(np.uint16) * factor).save(path.with_suffix(".png"))
            grey[image["file_name"]] = values
        file.write_text(json.dumps(coco))
    return grey


def warnings(config: DataConfig) -> list[Problem]:
    problems = check_data(config, decode=True)[1]
    assert not [problem for problem in problems if problem.severity == "error"]
    return [problem for problem in problems if problem.kind in ("white-level", "dark-images")]


@pytest.mark.parametrize(("factor", "bits"), [(2, 9), (4, 10), (16, 12), (64, 14)])
def test_fewer_bits_than_16_are_said_with_the_level_to_set(factor: int, bits: int, tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path)
    deepen(root, factor)
    train, val = warnings(DataConfig(root=str(root)))
    assert train.kind == val.kind == "white-level"
    assert f"found none above {255 * factor}: nearly black" in train.message
    assert "in 4 images of 16 bits" in train.message
    assert f"set data.white_level to {2**bits - 1}" in train.remedy
    assert warnings(DataConfig(root=str(root), white_level=2**bits - 1)) == []


def test_all_16_bits_need_no_word(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path)
    deepen(root, 257)
    assert warnings(DataConfig(root=str(root))) == []


def test_values_above_the_level_are_said(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path)
    deepen(root, 16)
    train, _ = warnings(DataConfig(root=str(root), white_level=1023))
    assert "expected values up to data.white_level, 1023, found up to 4080 in 4 images" in train.message


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_split_that_is_nearly_black_is_said(suffix: str, tmp_path: Path) -> None:
    """Such as 12 bits of each colour in a PNG of 48: only their upper 8 are read."""
    root = write_coco_folder(tmp_path)
    file = root / "annotations" / "custom_train.json"
    coco = json.loads(file.read_text())
    for image in coco["images"]:
        image["file_name"] = f"{image['id']}.{suffix}"
        Image.new("RGB", (image["width"], image["height"]), (9, 5, 12)).save(root / "train2017" / image["file_name"])
    file.write_text(json.dumps(coco))
    [problem] = warnings(DataConfig(root=str(root)))
    assert problem.kind == "dark-images"
    assert "found 4 of 4 images nearly black" in problem.message
    for image in coco["images"][:2]:
        Image.new("RGB", (image["width"], image["height"]), "white").save(root / "train2017" / image["file_name"])
    assert warnings(DataConfig(root=str(root))) == [], "half of them may be of the night"


@pytest.mark.parametrize("way", ["from files", "cached"])
def test_training_sees_images_of_12_bits_as_bright_as_they_are(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    root, size = write_coco_folder(tmp_path / "data"), ImageSize(96, 160)
    grey = deepen(root, 16)
    seen = []
    for white_level in (4095, None):
        rows = load_splits(DataConfig(root=str(root), white_level=white_level), size).train
        shown = np.asarray(decode_row(rows[0]))
        if way == "cached":
            kept = cache_images(rows, size, 1e9)
            assert kept is not None
            rows = kept
        seen.append((shown, transformed(rows, DetrTransform(tiny_processor()))[0]))
    (bright, sample), (dark, dark_sample) = seen
    expected = grey[sample["file_name"]]
    assert np.abs(bright[..., 0].astype(int) - expected).max() <= 1
    assert dark.max() <= 16
    assert sample["pixel_values"].std() > 3 * dark_sample["pixel_values"].std()
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (tiny_processor().image_mean, tiny_processor().image_std)
    )
    pixels = sample["pixel_values"] * std + mean
    assert abs(float(pixels.mean()) - expected.mean() / 255) < 0.02
    assert "white_level" not in sample


def test_the_model_keeps_the_level_for_those_who_predict(tmp_path: Path) -> None:
    build_processor(new_model(shortest_edge=96, longest_edge=160), 4095).save_pretrained(tmp_path)
    processor = DetrImageProcessor.from_pretrained(tmp_path)
    assert white_level_of(processor) == 4095
    assert white_level_of(build_processor(new_model())) is None
    values = (np.arange(40 * 50).reshape(40, 50) % 4096).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    look = Look(tiny_detr(), processor, 1)
    [(_, image)] = detect_files(look, [tmp_path / "a.png"], 0.5, pytest.fail)
    assert np.asarray(image).max() == round(int(values.max()) * 255 / 4095)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_what_is_above_the_level_is_white(dtype: type) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 200, 2048, 4095, 5000, 65535]], dtype)).save(stream, "TIFF")
    decoded = np.asarray(decode_rgb(stream.getvalue(), white_level=4095))
    assert decoded[0, :, 0].tolist() == [0, 12, 128, 255, 255, 255]
    bytes_ = io.BytesIO()
    Image.fromarray(np.array([[0, 200, 255]], np.uint8)).save(bytes_, "PNG")
    assert np.asarray(decode_rgb(bytes_.getvalue(), white_level=4095))[0, :, 0].tolist() == [0, 200, 255]
