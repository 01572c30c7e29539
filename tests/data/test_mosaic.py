from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.dataset import load_split
from hf_detr_ft.data.mosaic import draw_mosaic
from hf_detr_ft.data.tile import Tile
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import AugmentConfig
from tests.fixtures import tiny_processor

COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250))
SHAPES = ((40, 60), (60, 40), (50, 50), (33, 97))


def coloured(index: int, height: int, width: int) -> tuple[Image.Image, list[int]]:
    """A black image with a rectangle in the colour of its index."""
    image, box = Image.new("RGB", (width, height)), [width // 3, height // 4, width // 3, height // 2]
    ImageDraw.Draw(image).rectangle((*box[:2], box[0] + box[2] - 1, box[1] + box[3] - 1), fill=COLOURS[index])
    return image, box


def tile(index: int, height: int, width: int) -> Tile:
    image, box = coloured(index, height, width)
    boxes = np.array([box], dtype=np.float32)
    return Tile(np.asarray(image), boxes, np.array([index]), boxes[:, 2:].prod(axis=1) / 2)


def test_boxes_lie_around_what_is_left_of_their_objects_and_shapes_are_kept() -> None:
    tiles, seen = [tile(index, *shape) for index, shape in enumerate(SHAPES)], set()
    for seed in range(100):
        mosaic = draw_mosaic(tiles, np.random.default_rng(seed), 0.1)
        assert mosaic.pixels.shape == tiles[0].pixels.shape
        assert len(set(mosaic.labels.tolist())) == len(mosaic.labels)
        seen |= set(mosaic.labels.tolist())
        for (x, y, width, height), label, area in zip(mosaic.boxes_xywh_px, mosaic.labels, mosaic.areas, strict=True):
            near = np.abs(mosaic.pixels.astype(int) - COLOURS[label]).sum(axis=-1) < 250
            rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
            found = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            np.testing.assert_allclose((x, y, x + width, y + height), found, atol=1.5)
            assert area == pytest.approx(width * height / 2, rel=1e-4)
    assert seen == {0, 1, 2, 3}


def test_a_rest_smaller_than_min_visibility_goes() -> None:
    tiles = [tile(index, *shape) for index, shape in enumerate(SHAPES)]
    whole, all_rests = 0, 0
    for seed in range(50):
        strict, lenient = (draw_mosaic(tiles, np.random.default_rng(seed), least) for least in (1.0, 0.0))
        np.testing.assert_array_equal(strict.pixels, lenient.pixels)
        whole, all_rests = whole + len(strict.labels), all_rests + len(lenient.labels)
        for box, label in zip(strict.boxes_xywh_px, strict.labels, strict=True):
            of_object = tiles[label].boxes_xywh_px[0, 2:]
            assert box[2] / box[3] == pytest.approx(of_object[0] / of_object[1], rel=1e-3)
    assert 0 < whole < all_rests


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (2, 3)])
def test_images_of_few_pixels_and_without_objects_make_mosaics(shape: tuple[int, int]) -> None:
    tiles = [Tile.empty(*shape), tile(1, 40, 60), Tile.empty(1, 1), tile(3, 1000, 3)]
    for order in (tiles, tiles[::-1]):
        for seed in range(20):
            mosaic = draw_mosaic(order, np.random.default_rng(seed), 0.1)
            assert mosaic.pixels.shape == order[0].pixels.shape
            assert len(mosaic.boxes_xywh_px) == len(mosaic.labels) == len(mosaic.areas)
            assert (mosaic.boxes_xywh_px[:, 2:] > 0).all()


@pytest.fixture
def rows(tmp_path: Path) -> Dataset:
    """Six images of other colours, each with one object of another class."""
    coco: dict = {"images": [], "annotations": [], "categories": []}
    for index in range(len(COLOURS)):
        height, width = SHAPES[index % len(SHAPES)]
        image, box = coloured(index, height, width)
        image.save(tmp_path / f"{index}.png")
        coco["images"].append({"id": index, "file_name": f"{index}.png", "height": height, "width": width})
        coco["annotations"].append({"id": index, "image_id": index, "category_id": index, "bbox": box})
        coco["categories"].append({"id": index, "name": str(index)})
    return load_split(coco, tmp_path, LabelMap.from_coco(coco))


def mosaics(rows: Dataset, epoch: int = 0, on_bad_image: str = "stop", **given: float) -> Dataset:
    augmentation = build_augmentation(AugmentConfig(preset="none", **{"mosaic": 1.0, **given}), 96)
    transform = DetrTransform(tiny_processor(), augmentation, seed=3, on_bad_image=on_bad_image)  # type: ignore[arg-type]
    transform.epoch.set(epoch)
    return transformed(rows, transform)


def test_images_get_objects_of_others_and_differ_by_epoch(rows: Dataset) -> None:
    first, again, later = (mosaics(rows, epoch)[:] for epoch in (0, 0, 1))
    for one, other in zip(first["pixel_values"], again["pixel_values"], strict=True):
        assert torch.equal(one, other)
    assert not all(map(torch.equal, first["pixel_values"], later["pixel_values"]))
    classes = [set(labels["class_labels"].tolist()) for labels in first["labels"]]
    assert any(found - {index} for index, found in enumerate(classes))
    assert max(map(len, classes)) > 1


def test_shapes_are_those_of_the_images_themselves(rows: Dataset) -> None:
    plain = mosaics(rows, mosaic=0.0)[:]["pixel_values"]
    assert [sample.shape for sample in mosaics(rows)[:]["pixel_values"]] == [sample.shape for sample in plain]


def test_half_of_the_images_become_mosaics_where_the_recipe_says_half(rows: Dataset) -> None:
    plain = mosaics(rows, mosaic=0.0)[:]["pixel_values"]
    changed = 0
    for epoch in range(20):
        made = mosaics(rows, epoch, mosaic=0.5)[:]["pixel_values"]
        changed += sum(not torch.equal(one, other) for one, other in zip(made, plain, strict=True))
    assert 40 <= changed <= 80


def test_workers_draw_the_same(rows: Dataset) -> None:
    made = mosaics(rows)
    loader: DataLoader = DataLoader(made, batch_size=None, num_workers=2)  # type: ignore[arg-type]
    for one, other in zip(loader, made[:]["pixel_values"], strict=True):
        assert torch.equal(one["pixel_values"], other)


def test_an_unreadable_image_stops_a_mosaic_or_leaves_it_a_grey_place(rows: Dataset) -> None:
    bad = Path(rows[2]["image"]["path"])
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=bad.name):
        mosaics(rows)[[0, 1, 3, 4, 5]]
    for index in (0, 1, 3, 4, 5):
        labels = mosaics(rows, on_bad_image="skip")[index]["labels"]
        assert "unreadable" not in labels
        assert 2 not in labels["class_labels"]
