"""Masks from outlines to the model's labels, through every step that moves pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.coco import LabelMap, read_coco
from hf_detr_ft.data.dataset import load_split, prepare_coco
from hf_detr_ft.data.masks import Masks, decode_masks, encode_pixels, encode_segmentation, resize_nearest
from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.data.transform import DetrTransform
from hf_detr_ft.recipe.sections import AugmentConfig, DataConfig
from tests.fixtures import draw_split, tiny_processor, write_coco_folder

SQUARE = [[10.0, 20.0, 30.0, 20.0, 30.0, 60.0, 10.0, 60.0]]


def pixels_of(box: list[float], shape: tuple[int, int]) -> np.ndarray:
    """The mask of a box xywh of whole pixels."""
    x, y, w, h = (int(value) for value in box)
    mask = np.zeros(shape, dtype=np.uint8)
    mask[y : y + h, x : x + w] = 1
    return mask


def test_every_kind_of_outline_is_the_same_mask() -> None:
    expected = pixels_of([10, 20, 20, 40], (80, 50))
    compressed = coco_mask.encode(np.asfortranarray(expected))
    runs = [int(run) for run in np.diff(np.flatnonzero(np.diff(np.r_[-1, expected.T.ravel().astype(int), -1]) != 0))]
    outlines = (
        SQUARE,
        [[10.0, 20.0, 30.0, 20.0, 30.0, 45.0, 10.0, 45.0], [10.0, 40.0, 30.0, 40.0, 30.0, 60.0, 10.0, 60.0]],
        {"size": [80, 50], "counts": runs},
        {"size": [80, 50], "counts": compressed["counts"].decode()},
    )
    for outline in outlines:
        encoded = encode_segmentation(outline, 80, 50)
        assert encoded["size"] == [80, 50] and isinstance(encoded["counts"], str)
        np.testing.assert_array_equal(decode_masks([encoded["counts"]], (80, 50), (80, 50))[0], expected)


def test_masks_are_resized_as_torch_does() -> None:
    masks = np.random.default_rng(0).integers(0, 2, (3, 37, 53), dtype=np.uint8)
    for shape in ((37, 53), (74, 106), (20, 31), (96, 40)):
        expected = torch.nn.functional.interpolate(torch.from_numpy(masks)[None].float(), shape, mode="nearest")[0]
        np.testing.assert_array_equal(resize_nearest(masks, shape), expected.numpy())


def test_masks_of_several_images_are_chosen_and_joined() -> None:
    one = encode_pixels(np.stack([pixels_of([1, 2, 3, 4], (9, 8)), pixels_of([0, 0, 1, 1], (9, 8))]))
    two = encode_pixels(pixels_of([0, 0, 2, 2], (5, 6))[None])
    joined = Masks.concat([one, Masks.empty(1), two, encode_pixels(np.zeros((0, 3, 3)))])
    assert joined.areas().tolist() == [12, 1, 0, 4]
    assert joined.sizes.tolist() == [[9, 8], [9, 8], [0, 0], [5, 6]]
    assert joined.select([3]).as_dicts() == two.as_dicts()


def with_a_crowd(coco: dict) -> dict:
    """A crowd region, as COCO has them, on the first image."""
    image = coco["images"][0]
    runs = {"size": [image["height"], image["width"]], "counts": [5, 7, image["height"] * image["width"] - 12]}
    crowd = {"image_id": image["id"], "category_id": 3, "bbox": [0, 5, 1, 7], "area": 7, "iscrowd": 1}
    return {**coco, "annotations": [*coco["annotations"], {**crowd, "id": 99, "segmentation": runs}]}


def rows_of(folder: Path) -> tuple[dict, list[dict]]:
    """A split with masks: of 1, 4 and no objects, and a crowd region."""
    coco = with_a_crowd(draw_split(folder, [(96, 128), (128, 96), (64, 64)], seed=0, objects=(1, 4, 0)))
    file = folder / "train.json"
    file.write_text(json.dumps(coco))
    read = read_coco(file, outlines=True)
    assert [problem for problem in check_coco(read, file, folder, masks=True) if problem.severity == "error"] == []
    prepared = prepare_coco(read, None, masks=True)
    return prepared, list(load_split(prepared, folder, LabelMap.from_coco(coco), masks=True))


def test_rows_have_the_masks_of_objects_and_not_of_crowds(tmp_path: Path) -> None:
    prepared, rows = rows_of(tmp_path)
    assert [len(row["objects"]["mask"]) for row in rows] == [1, 4, 0]
    assert prepared["annotations"][-1]["segmentation"]["size"] == [96, 128]  # COCO's evaluation needs it
    for row in rows:
        shape = tuple(row["original_size"])
        masks = decode_masks(row["objects"]["mask"], shape, shape)
        for mask, box in zip(masks, row["objects"]["bbox"], strict=True):
            np.testing.assert_array_equal(mask, pixels_of(box, shape))


def test_without_being_asked_for_there_are_none(tmp_path: Path) -> None:
    coco = draw_split(tmp_path, [(96, 128)], seed=0)
    prepared = prepare_coco(coco, None)
    (row,) = load_split(prepared, tmp_path, LabelMap.from_coco(coco))
    assert "segmentation" not in prepared["annotations"][0] and "mask" not in row["objects"]


@pytest.mark.parametrize(
    "augment",
    [
        None,
        {"horizontal_flip": 1.0},
        {"vertical_flip": 1.0},
        {"random_crop": 1.0, "multi_scale": True},
        {"rotate": 30.0},
        {"random_crop": 1.0, "horizontal_flip": 1.0, "color_jitter": 0.5},
    ],
    ids=str,
)
def test_masks_go_where_the_boxes_of_their_objects_go(augment: dict | None, tmp_path: Path) -> None:
    """Objects are rectangles: but for rotations, a mask fills its box."""
    _, rows = rows_of(tmp_path)
    augmentation = None if augment is None else build_augmentation(AugmentConfig(**{"preset": "none", **augment}), 96)
    transform, seen = DetrTransform(tiny_processor(), augmentation), 0
    for epoch in range(4):
        transform.epoch.set(epoch)
        for row in rows:
            (pixels,), (labels,) = transform({name: [row[name]] for name in row}).values()
            masks = labels["masks"]
            assert masks.dtype == torch.bool and masks.shape == (len(labels["boxes"]), *pixels.shape[1:])
            for mask, box in zip(masks, labels["boxes"], strict=True):
                seen += 1
                cx, cy, w, h = (box * box.new_tensor(pixels.shape[1:]).flip(0).repeat(2)).tolist()
                corners = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
                y, x = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
                found = np.array([x[0], y[0], x[-1] + 1, y[-1] + 1])
                if augment is None or "rotate" not in augment:
                    np.testing.assert_allclose(found, corners, atol=1.6)
                    assert mask.sum() == pytest.approx(w * h, rel=0.15)
                else:
                    assert (found[:2] > corners[:2] - 2).all() and (found[2:] < corners[2:] + 2).all()
    assert seen > 4


def test_boxes_of_which_nothing_is_inside_go_with_their_masks(tmp_path: Path) -> None:
    _, rows = rows_of(tmp_path)
    row = rows[1]
    row["objects"]["bbox"][1] = [200.0, 10.0, 20.0, 20.0]
    (_,), (labels,) = DetrTransform(tiny_processor())({name: [row[name]] for name in row}).values()
    assert len(labels["boxes"]) == len(labels["masks"]) == 3
    assert labels["masks"][1].sum() == pytest.approx(
        float(labels["boxes"][1][2:].prod() * labels["masks"][1].numel()), rel=0.1
    )


def test_drawn_photos_have_masks(cache_folder: Path) -> None:
    config = DataConfig(synthetic_images=3, synthetic_val_images=1, synthetic_short_side=(64, 64))
    splits = load_splits(config, masks=True)
    objects = [row["objects"] for row in splits.train]
    assert sum(len(each["mask"]) for each in objects) == sum(len(each["bbox"]) for each in objects) > 0
    assert all("counts" in annotation["segmentation"] for annotation in splits.truth["annotations"])


def without(coco: dict) -> None:
    del coco["annotations"][0]["segmentation"]


def empty(coco: dict) -> None:
    coco["annotations"][0]["segmentation"] = []


def of_two_points(coco: dict) -> None:
    coco["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]


def of_another_size(coco: dict) -> None:
    coco["annotations"][0]["segmentation"] = {"size": [128, 96], "counts": [128 * 96]}


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (without, "found none"),
        (empty, "found none"),
        (of_two_points, "found one that has 4 values in polygon 0"),
        (of_another_size, "found run lengths of 96x128 pixels on the 128x96 image"),
    ],
)
def test_an_annotation_without_a_mask_is_refused_where_masks_are_trained(spoil, found: str, tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path, train_sizes=[(96, 128)] * 2)
    file = root / "annotations" / "custom_train.json"
    coco = json.loads(file.read_text())
    spoil(coco)
    file.write_text(json.dumps(coco))
    (problem,) = [each for each in check_coco(read_coco(file, True), file, None, masks=True) if each.kind == "mask"]
    name = coco["images"][0]["file_name"]
    assert str(problem).startswith(f"error [mask] {file}: annotation id 1 (image '{name}'): expected a mask")
    assert found in str(problem) and "model.masks" in problem.remedy
    assert [each for each in check_coco(read_coco(file), file, None) if each.severity == "error"] == []
