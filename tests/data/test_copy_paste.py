from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.cache.image_cache import cache_images
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.copy_paste import MOST, paste_objects
from hf_detr_ft.data.dataset import load_split, prepare_coco
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.tile import Tile
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import AugmentConfig, MaskUse
from tests.fixtures import tiny_processor

COLOURS = ((250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250), (250, 0, 250))
SHAPES = ((60, 90), (90, 60), (80, 80), (50, 97))


def tile(labels: list[int], height: int, width: int, size: float = 0.3) -> Tile:
    """A black image with a triangle in the colour of each label, unlike its mirror image, side by side."""
    image, boxes, masks = Image.new("RGB", (width, height)), [], []
    for place, label in enumerate(labels):
        left, top = (place + 0.5) * width / (len(labels) + 1), height * 0.3
        box = [round(left), round(top), round(left + width * size), round(top + height * size)]
        mask = Image.new("L", (width, height))
        for canvas, colour in ((image, COLOURS[label]), (mask, 1)):
            (x0, y0), (x1, y1) = box[:2], (box[2] - 1, box[3] - 1)
            ImageDraw.Draw(canvas).polygon([(x0, y0), (x1, y0), (x0, y1)], fill=colour)
        boxes.append([box[0], box[1], box[2] - box[0], box[3] - box[1]])
        masks.append(np.asarray(mask))
    stacked = np.stack(masks) if masks else np.zeros((0, height, width), dtype=np.uint8)
    areas = stacked.sum(axis=(1, 2)).astype(np.float32)
    boxes_xywh_px = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Tile(np.asarray(image), boxes_xywh_px, np.array(labels, dtype=np.int64), areas, stacked)


def seen(pixels: np.ndarray, label: int) -> np.ndarray:
    return np.abs(pixels.astype(int) - COLOURS[label]).sum(axis=-1) < 200


def test_objects_lie_on_the_image_with_boxes_and_masks_around_what_is_seen_of_them() -> None:
    one, other = tile([0, 1], 60, 90), tile([2, 3, 4], 90, 60, 0.2)
    pasted, covered, sizes = set(), 0, []
    for seed in range(60):
        made = paste_objects(one, other, np.random.default_rng(seed), 0.1)
        assert made.pixels.shape == one.pixels.shape and made.masks is not None
        assert len(made.boxes_xywh_px) == len(made.labels) == len(made.areas) == len(made.masks)
        pasted |= set(made.labels.tolist()) - {0, 1}
        for box, label, area, mask in zip(made.boxes_xywh_px, made.labels, made.areas, made.masks, strict=True):
            found = seen(made.pixels, label)
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            around = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            np.testing.assert_allclose((*box[:2], *(box[:2] + box[2:])), around, atol=1e-4)
            assert (found != mask.astype(bool)).sum() <= 0.7 * np.sqrt(mask.sum()) * 4  # about its edge
            assert mask.sum() == pytest.approx(area, rel=0.2)
            covered += bool(label < 2 and area < one.areas[label] * 0.95)
            if label >= 2:
                sizes.append(float(np.sqrt(area / other.areas[label - 2])))
    assert pasted == {2, 3, 4} and covered > 10
    assert min(sizes) < 0.6 < 1.3 < max(sizes) < 1.6


def test_what_would_be_larger_than_the_image_fills_it_and_keeps_its_shape() -> None:
    wide, sizes = tile([2], 40, 90, 0.6), []
    for seed in range(30):
        box = paste_objects(tile([], 60, 60), wide, np.random.default_rng(seed), 0.1).boxes_xywh_px[0]
        assert box[2] / box[3] == pytest.approx(54 / 24, rel=0.1)
        sizes.append(box[2])
    assert max(sizes) == 60


def test_what_is_mostly_covered_goes_and_sides_that_nothing_covers_stay() -> None:
    one, other = tile([0], 60, 90, 0.2), tile([2], 60, 90, 0.4)
    loose = np.array([[-1.0, -1.5, 2.0, 3.0]], dtype=np.float32)
    one = Tile(one.pixels, one.boxes_xywh_px + loose, one.labels, one.areas, one.masks)  # boxes are seldom tight
    gone, moved = 0, 0
    for seed in range(80):
        strict, lenient = (paste_objects(one, other, np.random.default_rng(seed), least) for least in (0.5, 0.0))
        np.testing.assert_array_equal(strict.pixels, lenient.pixels)
        share = int(seen(lenient.pixels, 0).sum()) / float(one.areas[0])
        assert abs(share - 0.5) < 0.12 or (0 in strict.labels) == (share > 0.5)
        assert (0 in lenient.labels) == (share > 0) or share < 0.06
        gone += 0 not in strict.labels
        if 0 in strict.labels:
            (before,), box = one.boxes_xywh_px, strict.boxes_xywh_px[strict.labels.tolist().index(0)]
            moved += not np.allclose(before, box)
            assert (box[:2] >= before[:2]).all() and (box[:2] + box[2:] <= before[:2] + before[2:] + 1e-4).all()
            if np.flatnonzero(seen(strict.pixels, 0).any(axis=1))[0] == before[1] + 1.5 and share < 1:
                assert box[1] == before[1]
    assert gone > 10 and moved > 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2)])
def test_images_of_few_pixels_without_objects_and_with_hundreds_of_them(shape: tuple[int, int]) -> None:
    empty, many = tile([], *shape), tile([0, 1, 2, 3] * 50, 40, 60)
    assert paste_objects(many, tile([], 30, 30), np.random.default_rng(0), 0.1) is many
    for seed in range(20):
        made = paste_objects(empty, many, np.random.default_rng(seed), 0.1)
        assert made.pixels.shape == empty.pixels.shape
        assert 1 <= len(made.labels) <= MOST and (made.boxes_xywh_px[:, 2:] > 0).all()


def split(folder: Path, masks: MaskUse = "some") -> Dataset:
    """Six images of other colours, each with one object of another class; the last two have no outline."""
    coco: dict = {"images": [], "annotations": [], "categories": []}
    for index in range(len(COLOURS)):
        height, width = SHAPES[index % len(SHAPES)]
        image = Image.new("RGB", (width, height))
        box = [width // 3, height // 4, width // 3, height // 2]
        x, y, w, h = box
        outline = [x, y, x + w, y, x + w / 2, y + h]
        ImageDraw.Draw(image).polygon(outline, fill=COLOURS[index])
        image.save(folder / f"{index}.png")
        coco["images"].append({"id": index, "file_name": f"{index}.png", "height": height, "width": width})
        annotation = {"id": index, "image_id": index, "category_id": index, "bbox": box, "segmentation": [outline]}
        annotation |= {4: {"segmentation": []}, 5: {"segmentation": [[1, 2, 3]]}}.get(index, {})
        coco["annotations"].append(annotation)
        coco["categories"].append({"id": index, "name": str(index)})
    prepared = prepare_coco(coco, None, masks)
    return load_split(prepared, folder, LabelMap.from_coco(coco), masks=masks)


def pasted(rows: Dataset, epoch: int = 0, on_bad_image: Any = "stop", seed: int = 3, **given: float) -> Dataset:
    augmentation = build_augmentation(AugmentConfig(preset="none", **{"copy_paste": 1.0, **given}), 96)
    transform = DetrTransform(tiny_processor(), augmentation, seed=seed, on_bad_image=on_bad_image)
    transform.epoch.set(epoch)
    return transformed(rows, transform)


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(*pair) for pair in zip(one, other, strict=True)]


def test_images_get_objects_of_others_and_differ_by_epoch(tmp_path: Path) -> None:
    rows = split(tmp_path)
    first, again, later = (pasted(rows, epoch)[:] for epoch in (0, 0, 1))
    assert all(same(first["pixel_values"], again["pixel_values"]))
    assert not all(same(first["pixel_values"], later["pixel_values"]))
    assert any(set(labels["class_labels"].tolist()) - {index} for index, labels in enumerate(first["labels"]))
    assert all("masks" not in labels for labels in first["labels"])
    plain = pasted(rows, copy_paste=0.0)[:]["pixel_values"]
    assert [sample.shape for sample in first["pixel_values"]] == [sample.shape for sample in plain]
    half = sum(not all(same([a], [b])) for e in range(20) for a, b in zip(
        pasted(rows, e, copy_paste=0.5)[:]["pixel_values"], plain, strict=True))  # fmt: skip
    assert 35 <= half <= 80


def test_objects_without_an_outline_are_whole_boxes(tmp_path: Path) -> None:
    shares = []
    rows = split(tmp_path)
    for place, row in enumerate(rows):
        (counts,), (_, _, width, height) = row["objects"]["outline"], row["objects"]["bbox"][0]
        assert counts
        transform = DetrTransform(tiny_processor())
        masks = transform._read(row, outlines=True)[0].masks
        assert masks is not None
        shares.append(masks.sum() / (width * height))
        assert masks[0].sum() > 0, place
    assert shares == pytest.approx([0.5] * 4 + [1.0] * 2, abs=0.06)


def test_masks_that_a_head_learns_are_of_what_is_seen(tmp_path: Path) -> None:
    coco_rows = split(tmp_path, "some").select(range(4))
    objects = [{**{k: v for k, v in row["objects"].items() if k != "outline"}, "mask": row["objects"]["outline"]}
               for row in coco_rows]  # fmt: skip
    with_masks = Dataset.from_list([{**row, "objects": each} for row, each in zip(coco_rows, objects, strict=True)])
    overlaps = 0
    for epoch in range(6):
        for sample in pasted(with_masks, epoch):
            labels = sample["labels"]
            masks, boxes = labels["masks"], labels["boxes"]
            assert len(masks) == len(boxes) == len(labels["class_labels"])
            assert int(masks.sum(dim=0).max()) == 1, "what lies below is not seen"
            overlaps += len(masks) > 1
            for mask, box in zip(masks, boxes, strict=True):
                y, x = (torch.nonzero(mask.any(dim=axis)).flatten() for axis in (1, 0))
                wanted = box * torch.tensor(mask.shape[::-1]).repeat(2)
                found = [(x[0] + x[-1] + 1) / 2, (y[0] + y[-1] + 1) / 2, x[-1] + 1 - x[0], y[-1] + 1 - y[0]]
                assert torch.allclose(torch.stack(found), wanted, atol=5)  # tips are lost in resizing
    assert overlaps > 8


@pytest.mark.parametrize("kept", [False, True])
def test_workers_draw_the_same_beside_mosaics_and_from_kept_images(
    tmp_path: Path, cache_folder: Path, kept: bool
) -> None:
    rows = split(tmp_path)
    if kept:
        stored = cache_images(rows, ImageSize(40, 80), 1e9)
        assert stored is not None
        rows = stored
    made = pasted(rows, mosaic=0.5, horizontal_flip=0.5)
    loader: DataLoader = DataLoader(made, batch_size=None, num_workers=2)  # type: ignore[arg-type]
    for one, other in zip(loader, made[:]["pixel_values"], strict=True):
        assert torch.equal(one["pixel_values"], other)
    without = pasted(rows, mosaic=0.5, horizontal_flip=0.5, copy_paste=0.0)[:]["pixel_values"]
    alone = pasted(rows, mosaic=0.0, horizontal_flip=0.5)[:]["pixel_values"]
    assert not all(same(made[:]["pixel_values"], without)) and not all(same(made[:]["pixel_values"], alone))


def test_an_unreadable_image_stops_it_or_nothing_of_it_is_pasted(tmp_path: Path) -> None:
    rows = split(tmp_path)
    bad = Path(rows[2]["image"]["path"])
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=bad.name):
        all(pasted(rows, epoch)[[0, 1, 3, 4, 5]] for epoch in range(20))
    for epoch in range(4):
        for labels in pasted(rows, epoch, on_bad_image="skip")[[0, 1, 3, 4, 5]]["labels"]:
            assert "unreadable" not in labels and 2 not in labels["class_labels"]


def test_images_without_objects_are_passed_over(tmp_path: Path) -> None:
    rows = split(tmp_path)
    nothing: dict = {"bbox": [], "label": [], "area": [], "outline": []}
    cleared = [{**row, "objects": row["objects"] if row["image_id"] % 2 else nothing} for row in rows]
    made = pasted(Dataset.from_list(cleared, features=rows.features))
    assert all(len(labels["class_labels"]) for labels in made[:]["labels"])
