"""Photos decoded and resized once: the same tensors as from the files, made again only where they must be."""

import errno
import os
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from filelock import FileLock
from PIL import Image
from transformers import DetrImageProcessor

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.cache import image_cache as photo_store
from hf_detr_ft.data.cache import row_cache
from hf_detr_ft.data.cache.image_cache import cache_images, cached_size
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.dataset import load_split
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import AugmentConfig

SIZES = {"wide.jpg": (300, 401), "tall.png": (410, 130), "small.jpg": (40, 60), "turned.jpg": (200, 333)}
"""(height, width) of the upright photos; the last one lies on its side in the file."""
SIZE = ImageSize(96, 160)
PLENTY = 1e9
pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture
def rows(tmp_path: Path) -> Dataset:
    images, annotations = [], []
    for index, (name, (height, width)) in enumerate(SIZES.items()):
        noise = np.random.default_rng(index).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        if name == "turned.jpg":
            image = image.transpose(Image.Transpose.ROTATE_90)
            exif[0x0112] = 6
        image.save(tmp_path / name, exif=exif)
        images.append({"id": index + 5, "file_name": name, "height": height, "width": width})
        box = [width * 0.25, height * 0.5, width * 0.5, height * 0.25]
        annotations.append({"id": index, "image_id": index + 5, "category_id": 1, "bbox": box, "area": 77.0})
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    return load_split(coco, tmp_path, LabelMap.from_coco(coco))


def processor(size: ImageSize = SIZE) -> DetrImageProcessor:
    return DetrImageProcessor(size=size.as_dict())


@pytest.mark.parametrize("size", [SIZE, ImageSize.exactly(96, 96)], ids=["by edges", "square"])
def test_evaluation_sees_the_very_same_pixels(rows: Dataset, size: ImageSize) -> None:
    stored = cache_images(rows, size, PLENTY, "val")
    assert stored is not None
    assert all(row["image"]["bytes"].startswith(b"P6 ") for row in stored)
    transform = DetrTransform(processor(size))
    for ours, expected in zip(transformed(stored, transform), transformed(rows, transform), strict=True):
        assert torch.equal(ours["pixel_values"], expected["pixel_values"])
        assert ours["labels"].keys() == expected["labels"].keys()
        for key, value in expected["labels"].items():
            assert ours["labels"][key].dtype == value.dtype
            torch.testing.assert_close(ours["labels"][key], value, rtol=1e-5, atol=1e-6)
        others = ours.keys() - {"pixel_values", "labels", "original_size"}
        assert {key: ours[key] for key in others} == {key: expected[key] for key in others}


def test_training_without_a_change_of_shape_sees_the_very_same_pixels(rows: Dataset) -> None:
    stored = cache_images(rows, SIZE, PLENTY, "train")
    assert stored is not None
    flipped = build_augmentation(AugmentConfig(preset="none", horizontal_flip=1.0), SIZE.shortest_edge)
    transform = DetrTransform(processor(), flipped)
    for ours, row in zip(transformed(stored, transform), rows, strict=True):
        pixels = DetrTransform(processor()).sample(row["image"], row["image_id"], row["objects"])["pixel_values"]
        assert torch.equal(ours["pixel_values"].flip(2), pixels)
        torch.testing.assert_close(ours["labels"]["boxes"], torch.tensor([[0.5, 0.625, 0.5, 0.25]]))


def test_crops_of_stored_photos_keep_their_boxes_on_the_objects(rows: Dataset) -> None:
    stored = cache_images(rows, SIZE, PLENTY, "train")
    assert stored is not None
    transform = DetrTransform(processor(), build_augmentation(AugmentConfig(preset="detr"), SIZE.shortest_edge), 3)
    seen = 0
    for ours, expected in zip(transformed(stored, transform), transformed(rows, transform), strict=True):
        assert ours["pixel_values"].shape == expected["pixel_values"].shape
        boxes, wanted = ours["labels"]["boxes"], expected["labels"]["boxes"]
        torch.testing.assert_close(boxes, wanted, rtol=0, atol=0.05)
        seen += len(boxes)
    assert seen >= 3


def test_only_photos_that_get_smaller_are_resized(rows: Dataset) -> None:
    stored = cache_images(rows, SIZE, PLENTY, "val")
    assert stored is not None
    kept = [Image.open(BytesIO(row["image"]["bytes"])).size[::-1] for row in stored]
    assert kept == [cached_size(*size, SIZE) for size in SIZES.values()] == [(96, 128), (160, 51), (40, 60), (96, 159)]
    assert cached_size(1000, 2, SIZE) == (1000, 2), "resized, nothing would be left; the transform says so"
    assert stored["original_size"][:] == [list(size) for size in SIZES.values()]
    assert [row["image"]["path"] for row in stored] == [row["image"]["path"] for row in rows]


def test_they_are_made_once_and_again_when_a_photo_or_the_size_changes(
    rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache_images(rows, SIZE, PLENTY, "val")
    assert first is not None
    expected = list(first)

    def refuse(cell: object, white_level: int | None) -> None:
        raise DataError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(photo_store, "decode_cell", refuse)
        assert list(cache_images(rows, SIZE, PLENTY, "val") or []) == expected
        with pytest.raises(DataError, match="decoded again"):
            cache_images(rows, SIZE.with_shortest_edge(90), PLENTY, "val")
        path = tmp_path / "small.jpg"
        os.utime(path, (1, 1))
        with pytest.raises(DataError, match="decoded again"):
            cache_images(rows, SIZE, PLENTY, "val")


def test_a_read_only_cache_is_read_and_its_lack_costs_time_alone(
    rows: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = cache_images(rows, SIZE, PLENTY, "val")
    assert first is not None

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(photo_store, "decode_cell", refuse)
    again = cache_images(rows, SIZE, PLENTY, "val")
    assert again is not None
    assert list(again) == list(first)
    assert again.features == first.features
    assert cache_images(rows, SIZE.with_shortest_edge(90), PLENTY, "val") is None
    assert "Read-only file system" in caplog.text
    assert "decoded anew in every epoch" in caplog.text


def test_nothing_is_made_beyond_the_limit(rows: Dataset, cache_folder: Path) -> None:
    needed = 3 * (96 * 128 + 160 * 51 + 40 * 60 + 96 * 159)
    assert cache_images(rows, SIZE, needed - 1, "val") is None
    assert cache_images(rows, SIZE, 0, "val") is None
    assert not cache_folder.exists()
    assert cache_images(rows, SIZE, needed, "val") is not None


def test_a_damaged_photo_is_named(rows: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "wide.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"wide\.jpg: expected a whole image"):
        cache_images(rows, SIZE, PLENTY, "val")
    with pytest.raises(DataError, match=r"wide\.jpg: expected a whole image"):
        cache_images(rows, SIZE, PLENTY, "val")


def test_more_photos_than_are_decoded_in_advance_stay_in_order(rows: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_store, "AHEAD", 3)
    stored = cache_images(rows, SIZE, PLENTY, "val")
    assert stored is not None
    assert stored["original_size"][:] == [list(size) for size in SIZES.values()]


def test_what_was_not_used_for_days_goes_when_there_is_too_much(rows: Dataset, cache_folder: Path) -> None:
    def store(edge: int) -> int:
        """Makes one and returns how many there are; the limit is what the smallest of them takes."""
        assert cache_images(rows, SIZE.with_shortest_edge(edge), 3 * 96 * 160 * 4, "val") is not None
        return len(list((cache_folder / "hf_detr_ft" / "resized" / "generator").iterdir()))

    assert [store(edge) for edge in (60, 64, 68, 72, 76, 80)] == [1, 2, 3, 4, 5, 6], "all of them are in use"
    entries = sorted((cache_folder / "hf_detr_ft" / "resized" / "generator").iterdir(), key=lambda e: e.stat().st_mtime)
    for age, entry in enumerate(entries):
        mark = entry / "last_use"
        assert mark.exists()
        os.utime(mark, (time.time() - row_cache.UNUSED_SECONDS - 1000 + age,) * 2)
    (entries[2] / "last_use").touch()
    left = store(96)
    assert 1 < left < 7
    assert not entries[0].exists()
    assert entries[2].exists()


def test_photos_that_are_not_stored_are_decoded_at_a_reduced_size(rows: Dataset) -> None:
    plain = build_augmentation(AugmentConfig(preset="none"), 48)
    size = ImageSize(48, 80)
    whole = DetrTransform(processor(size), plain)
    reduced = DetrTransform(processor(size), plain, least_side=48)
    for ours, expected in zip(transformed(rows, reduced), transformed(rows, whole), strict=True):
        assert ours["pixel_values"].shape[1:] == pytest.approx(expected["pixel_values"].shape[1:], abs=1)
        torch.testing.assert_close(ours["labels"]["boxes"], expected["labels"]["boxes"], rtol=0, atol=1e-4)
        small, large = (F.adaptive_avg_pool2d(one["pixel_values"], 6) for one in (ours, expected))
        assert (small - large).abs().mean() < 0.1
