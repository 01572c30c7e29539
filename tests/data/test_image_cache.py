"""Photos decoded and resized once: the same tensors as from the files, made again only where they must be."""

import builtins
import errno
import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from PIL import Image
from transformers import DetrImageProcessor

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.cache import image_cache
from hf_detr_ft.data.cache.image_cache import cache_images, cached_sizes, load_pixels, make_pixels
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.dataset import load_split
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.images import decode_cell
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
    stored = cache_images(rows, size, PLENTY)
    assert stored is not None
    transform = DetrTransform(processor(size))
    first, again = list(transformed(stored, transform)), transformed(stored, transform)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one["pixel_values"], other["pixel_values"])
    for ours, expected in zip(first, transformed(rows, transform), strict=True):
        assert torch.equal(ours["pixel_values"], expected["pixel_values"])
        assert ours["labels"].keys() == expected["labels"].keys()
        for key, value in expected["labels"].items():
            assert ours["labels"][key].dtype == value.dtype
            torch.testing.assert_close(ours["labels"][key], value, rtol=1e-5, atol=1e-6)
        others = ours.keys() - {"pixel_values", "labels"}
        assert {key: ours[key] for key in others} == {key: expected[key] for key in others}


def test_training_without_a_change_of_shape_sees_the_very_same_pixels(rows: Dataset) -> None:
    stored = cache_images(rows, SIZE, PLENTY)
    assert stored is not None
    flipped = build_augmentation(AugmentConfig(preset="none", horizontal_flip=1.0), SIZE.shortest_edge)
    transform = DetrTransform(processor(), flipped)
    for ours, row in zip(transformed(stored, transform), rows, strict=True):
        pixels = DetrTransform(processor()).sample(row)["pixel_values"]
        assert torch.equal(ours["pixel_values"].flip(2), pixels)
        torch.testing.assert_close(ours["labels"]["boxes"], torch.tensor([[0.5, 0.625, 0.5, 0.25]]))


def test_crops_of_stored_photos_keep_their_boxes_on_the_objects(rows: Dataset) -> None:
    stored = cache_images(rows, SIZE, PLENTY)
    assert stored is not None
    transform = DetrTransform(processor(), build_augmentation(AugmentConfig(preset="detr"), SIZE.shortest_edge), 3)
    seen = 0
    for ours, expected in zip(transformed(stored, transform), transformed(rows, transform), strict=True):
        assert ours["pixel_values"].shape == expected["pixel_values"].shape
        boxes, wanted = ours["labels"]["boxes"], expected["labels"]["boxes"]
        torch.testing.assert_close(boxes, wanted, rtol=0, atol=0.05)
        seen += len(boxes)
    assert seen >= 3


def load_all(stored: Dataset | None) -> list[np.ndarray]:
    assert stored is not None
    return [load_pixels(row["kept"], row["image"], processor()) for row in stored]


def refuse(*args: object, **kwargs: object) -> None:
    raise DataError("decoded again")


def test_only_photos_that_get_smaller_are_resized(rows: Dataset) -> None:
    stored = cache_images(rows, SIZE, PLENTY)
    assert stored is not None
    kept = [(96, 128), (160, 51), (40, 60), (96, 159)]
    assert [pixels.shape[:2] for pixels in load_all(stored)] == kept
    assert cached_sizes(np.array(list(SIZES.values())), SIZE).tolist() == [list(shape) for shape in kept]
    thin = cached_sizes(np.array([[1000, 2]]), SIZE).tolist()
    assert thin == [[1000, 2]], "resized, nothing would be left; the transform says so"
    assert stored["original_size"][:] == [list(size) for size in SIZES.values()]
    assert [row["image"]["path"] for row in stored] == [row["image"]["path"] for row in rows]


def test_no_image_is_decoded_before_it_is_asked_for_and_none_twice(
    rows: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    monkeypatch.setattr(
        image_cache, "decode_cell", lambda cell, white_level: (decoded.append(cell["path"]), decode_cell(cell))[1]
    )
    stored = cache_images(rows, SIZE, PLENTY)
    assert decoded == []
    expected = load_all(stored)
    assert len(decoded) == len(rows)
    for again in (stored, cache_images(rows, SIZE, PLENTY)):
        assert all(np.array_equal(*pair) for pair in zip(load_all(again), expected, strict=True))
    assert len(decoded) == len(rows)


def test_they_are_made_again_when_a_photo_or_the_size_changes(
    rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_all(cache_images(rows, SIZE, PLENTY))
    monkeypatch.setattr(image_cache, "decode_cell", refuse)
    load_all(cache_images(rows, SIZE, PLENTY))
    with pytest.raises(DataError, match="decoded again"):
        load_all(cache_images(rows, SIZE.with_shortest_edge(90), PLENTY))
    os.utime(tmp_path / "small.jpg", (1, 1))
    with pytest.raises(DataError, match="decoded again"):
        load_all(cache_images(rows, SIZE, PLENTY))


def load_in_turn(stored: Dataset, backwards: bool) -> None:
    for row in reversed(list(stored)) if backwards else stored:
        load_pixels(row["kept"], row["image"], processor())


def test_several_processes_keep_images_beside_each_other(rows: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = cache_images(rows, SIZE, PLENTY)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=load_in_turn, args=(stored, bool(n % 2))) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "decode_cell", refuse)
        kept = load_all(stored)
    for pixels, row in zip(kept, rows, strict=True):
        assert np.array_equal(pixels, make_pixels(row["image"], pixels.shape[:2], processor()))


@pytest.mark.parametrize("damage", ["half written", "a wrong byte", "cut off", "removed"])
def test_what_is_damaged_is_made_anew(damage: str, rows: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    stored = cache_images(rows, SIZE, PLENTY)
    assert stored is not None
    expected, place = load_all(stored), stored[1]["kept"]
    file = Path(place["file"])
    content = bytearray(file.read_bytes())
    if damage == "half written":
        end = place["start"] + image_cache.HEAD + 3 * place["height"] * place["width"]
        content[end - 1000 : end] = bytes(1000)
    elif damage == "a wrong byte":
        content[place["start"] + 500] ^= 1
    file.write_bytes(content[: place["start"] + 50] if damage == "cut off" else content)
    if damage == "removed":
        file.unlink()
    for _ in range(2):
        assert all(np.array_equal(*pair) for pair in zip(load_all(stored), expected, strict=True))
    assert ("No such file" in caplog.text) == (damage == "removed")


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_cache_that_cannot_be_written_costs_time_alone(
    error: int, rows: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept, empty = (cache_images(rows, size, PLENTY) for size in (SIZE, SIZE.with_shortest_edge(80)))
    expected = load_all(kept)
    real, real_os = open, os.open

    def writes(path: object, mode: str) -> bool:
        return str(path).endswith(image_cache.SUFFIX) and "+" in mode

    def fail(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if writes(path, mode):
            raise OSError(error, os.strerror(error))
        return real(path, mode, *args, **kwargs)

    def fail_os(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if writes(path, "+" if flags & os.O_RDWR else ""):
            raise OSError(error, os.strerror(error))
        return real_os(path, flags, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", fail)
    monkeypatch.setattr(os, "open", fail_os)
    image_cache.warn.cache_clear()
    shapes = [pixels.shape for pixels in load_all(empty)]
    assert len(shapes) == len(rows)
    assert caplog.text.count(os.strerror(error)) == 1
    assert "decoded anew in every epoch" in caplog.text
    assert cache_images(rows, SIZE.with_shortest_edge(90), PLENTY) is None
    monkeypatch.setattr(image_cache, "decode_cell", refuse)
    again = cache_images(rows, SIZE, PLENTY)
    assert all(np.array_equal(*pair) for pair in zip(load_all(again), expected, strict=True))


def test_a_disk_without_room_is_said_at_once(
    rows: Dataset, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    image_cache.warn.cache_clear()
    assert cache_images(rows, SIZE, PLENTY) is None
    assert "are needed and not free" in caplog.text


def test_nothing_is_made_beyond_the_limit(rows: Dataset, cache_folder: Path) -> None:
    needed = 3 * (96 * 128 + 160 * 51 + 40 * 60 + 96 * 159)
    assert cache_images(rows, SIZE, needed - 1) is None
    assert cache_images(rows, SIZE, 0) is None
    assert not cache_folder.exists()
    assert cache_images(rows, SIZE, needed) is not None


def test_a_damaged_photo_is_named(rows: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "wide.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    for _ in range(2):
        with pytest.raises(DataError, match=r"wide\.jpg: expected a whole image"):
            load_all(cache_images(rows, SIZE, PLENTY))


def test_what_was_not_used_for_days_goes_when_there_is_too_much(rows: Dataset, cache_folder: Path) -> None:
    def store(edge: int) -> int:
        """Makes one and returns how many there are; the limit is what the smallest of them takes."""
        load_all(cache_images(rows, SIZE.with_shortest_edge(edge), 3 * 96 * 160 * 4))
        return len(list((cache_folder / "hf_detr_ft" / "resized").iterdir()))

    assert [store(edge) for edge in (60, 64, 68, 72, 76, 80)] == [1, 2, 3, 4, 5, 6], "all of them are in use"
    files = sorted((cache_folder / "hf_detr_ft" / "resized").iterdir(), key=lambda file: file.stat().st_mtime)
    for age, file in enumerate(files):
        os.utime(file, (time.time() - image_cache.UNUSED_SECONDS - 1000 + age,) * 2)
    os.utime(files[2])
    left = store(96)
    assert 1 < left < 7
    assert not files[0].exists()
    assert files[2].exists()


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
