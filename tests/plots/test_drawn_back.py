"""Boxes drawn back from the tensors of training lie on the objects, whatever was done to the photo on the way.

Photos of a grey ground and three rectangles, red, green and blue by label, go through `load_split`, `DetrTransform` and
`collate`; then the restored picture must change its colour at the restored boxes' edges.
"""

from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image, ImageDraw, ImageOps
from torch.utils.data import DataLoader

from hf_detr_ft.boxes import xywh_to_xyxy
from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.cache.image_cache import cache_images, load_pixels
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.collate import collate
from hf_detr_ft.data.dataset import load_split
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.images import decode_cell_with_size
from hf_detr_ft.data.transform import DetrTransform, Epoch, transformed
from hf_detr_ft.plots.samples import restore_boxes, restore_image
from hf_detr_ft.recipe.sections import AugmentConfig
from hf_detr_ft.training.data_pipeline import build_processor
from tests.fixtures import new_model

EDGE = 160
COLOURS = ((215, 45, 45), (45, 215, 45), (45, 45, 215))
GROUND = (120, 120, 120)
BOXES_XYWH_REL = ((0.06, 0.11, 0.22, 0.31), (0.47, 0.07, 0.33, 0.17), (0.61, 0.55, 0.39, 0.33))
"""The blue one reaches to the right border, and its annotation over it. No flip or turn maps one onto another."""
CATEGORY_IDS = (3, 8, 90)
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF's orientation, and how an upright photo lies in a file with it."""
LANDSCAPE, PORTRAIT, LARGE = (360, 500), (510, 350), (1100, 1500)
PHOTOS = [
    *[((LANDSCAPE, PORTRAIT)[number % 2], orientation) for number, orientation in enumerate(STORED_AS)],
    *[(size, 1) for size in (LANDSCAPE, PORTRAIT, LARGE)],
    (LARGE[::-1], 6),
]
"""(height, width) of the upright photo, and its orientation in the file."""
MARGIN = 1.5
"""Pixels on both sides of an edge where resampling mixes colours."""


def draw(size: tuple[int, int], orientation: int, path: Path) -> list[list[float]]:
    """Writes a JPEG and returns its boxes, xywh in pixels of the upright photo."""
    height, width = size
    image = Image.new("RGB", (width, height), GROUND)
    boxes = (np.array(BOXES_XYWH_REL) * [width, height, width, height]).round()
    for colour, (x0, y0, x1, y1) in zip(COLOURS, xywh_to_xyxy(boxes).tolist(), strict=True):
        ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill=colour)
    turn = STORED_AS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (image if turn is None else image.transpose(turn)).save(path, quality=95, subsampling=0, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path))).astype(int)
    assert np.abs(upright - np.asarray(image)).mean() < 3, "the test's own photo lies wrongly"
    boxes[2, 2] += 10  # over the border
    return boxes.tolist()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    folder = tmp_path_factory.mktemp("photos")
    images, annotations = [], []
    for number, (size, orientation) in enumerate(PHOTOS):
        image_id, name = 10 * number, f"{number}.jpg"
        images.append({"id": image_id, "file_name": name, "height": size[0], "width": size[1]})
        for category_id, box in zip(CATEGORY_IDS, draw(size, orientation, folder / name), strict=True):
            annotations.append({"image_id": image_id, "category_id": category_id, "bbox": box})
    categories = [{"id": id_, "name": f"colour {id_}"} for id_ in CATEGORY_IDS]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        yield load_split(coco, folder, LabelMap.from_coco(coco))


def object_mask(image: Image.Image, label: int) -> np.ndarray:
    """Mask of the label's colour, `[h, w]`; brightness, contrast and saturation may have changed."""
    pixels = np.asarray(image).astype(int)
    return pixels[..., label] - np.delete(pixels, label, axis=2).max(axis=2) > 25


def faults(image: Image.Image, box_xyxy_px: np.ndarray, label: int) -> list[str]:
    """Signs that the box is not that of the label's rectangle; an edge at the border has no outside."""
    inside = object_mask(image, label)
    low, high = np.ceil(box_xyxy_px[:2] + MARGIN).astype(int), np.floor(box_xyxy_px[2:] - MARGIN).astype(int)
    below, above = np.floor(box_xyxy_px[:2] - MARGIN).astype(int) - 1, np.ceil(box_xyxy_px[2:] + MARGIN).astype(int)
    if (high <= low).any():
        return []  # a crop left a splinter, of which nothing is just inside
    across, down = slice(low[0], high[0]), slice(low[1], high[1])
    x, y = ((box_xyxy_px[:2] + box_xyxy_px[2:]) / 2).astype(int)
    found = [] if inside[y, x] else ["centre"]
    edges = {
        "left": (inside[down, low[0]], inside[down, below[0]] if below[0] >= 0 else None),
        "top": (inside[low[1], across], inside[below[1], across] if below[1] >= 0 else None),
        "right": (inside[down, high[0] - 1], inside[down, above[0]] if above[0] < image.width else None),
        "bottom": (inside[high[1] - 1, across], inside[above[1], across] if above[1] < image.height else None),
    }
    for edge, (within, without) in edges.items():
        found += [] if within.all() else [f"{edge}: other colours inside"]
        found += [] if without is None or not without.any() else [f"{edge}: the object's colour outside"]
    return found


def restored(
    dataset: Dataset, processor: object, batch_size: int = 4
) -> Iterator[tuple[Image.Image, np.ndarray, list]]:
    """Picture, boxes and labels of each image, from padded batches."""
    for batch in DataLoader(dataset, batch_size, collate_fn=collate):
        for pixels, mask, target in zip(batch["pixel_values"], batch["pixel_mask"], batch["labels"], strict=True):
            height, width = target["size"].tolist()
            assert mask[:height, :width].all()
            assert mask.sum() == height * width, "`size` is where the padding begins"
            picture = restore_image(pixels[:, :height, :width], processor)
            yield picture, restore_boxes(target), target["class_labels"].tolist()


WAYS = ("files", "reduced", "stored", "square", "square reduced", "square stored")
"""Ways in which images come in, and shapes that they get."""
CHANGES: dict[str, dict | None] = {
    "evaluation": None,
    "none": {"preset": "none"},
    "light": {"preset": "light"},
    "detr": {"preset": "detr"},
    "horizontal flip": {"preset": "none", "horizontal_flip": 1.0},
    "vertical flip": {"preset": "none", "vertical_flip": 1.0},
    "crop": {"preset": "none", "random_crop": 1.0},
    "multi-scale": {"preset": "none", "multi_scale": True},
    "colours": {"preset": "none", "color_jitter": 0.3},
    "rotation": {"preset": "none", "rotate": 15.0},
    "all but rotation": {"preset": "detr", "vertical_flip": 0.5, "color_jitter": 0.3, "random_crop": 1.0},
}
RANDOM = ("light", "detr", "crop", "multi-scale", "rotation", "all but rotation")
CROPS = ("detr", "crop", "all but rotation")


def prepare(rows: Dataset, way: str, change: str) -> tuple[Dataset, object, Epoch]:
    """The rows with their transform, set up as a training run does, and the processor."""
    square = EDGE if way.startswith("square") else None
    processor = build_processor(new_model(shortest_edge=EDGE, longest_edge=260, square_edge=square))
    settings = CHANGES[change]
    if way.endswith("stored"):
        size = ImageSize.from_processor(processor)
        if square and settings is not None:
            size = ImageSize(EDGE, 8 * EDGE)
        stored = cache_images(rows, size, 1e9)
        assert stored is not None
        rows = stored
    if settings is None:
        return transformed(rows, DetrTransform(processor)), processor, Epoch()
    augmentation = build_augmentation(AugmentConfig(**settings), EDGE)
    least_side = EDGE if way.endswith("reduced") else None
    transform = DetrTransform(processor, augmentation, 5, least_side)
    return transformed(rows, transform), processor, transform.epoch


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", CHANGES)
def test_boxes_lie_on_the_objects(rows: Dataset, way: str, change: str) -> None:
    dataset, processor, epoch = prepare(rows, way, change)
    judged, cut = 0, 0
    for number in range(2 if change in RANDOM else 1):
        epoch.set(number)
        for index, (picture, boxes_xyxy_px, labels) in enumerate(restored(dataset, processor)):
            assert sorted(set(labels)) == labels, "each object once, in its order"
            for box, label in zip(boxes_xyxy_px, labels, strict=True):
                where = f"photo {index} of {PHOTOS[index]}, epoch {number}, colour {label}, box {box.round(1)}"
                if change == "rotation":
                    assert covers(picture, box, label), where  # boxes grow around what is turned
                else:
                    assert not faults(picture, box, label), f"{where}: {faults(picture, box, label)}"
                judged += 1
            missing = set(range(3)) - set(labels)
            assert change in CROPS or not missing
            assert all(is_cut(picture, label) for label in missing), "an object in full view has no box"
            cut += len(missing)
    assert judged >= 2 * len(PHOTOS)
    assert bool(cut) == (change in CROPS)


def is_cut(image: Image.Image, label: int) -> bool:
    """True where nothing is seen of the label's rectangle, or it goes on beyond the border."""
    rows, columns = np.nonzero(object_mask(image, label))
    border = (0, image.height - 1, 0, image.width - 1)
    return not rows.size or any(np.equal((rows.min(), rows.max(), columns.min(), columns.max()), border))


def covers(image: Image.Image, box_xyxy_px: np.ndarray, label: int) -> bool:
    """True where the centre has the label's colour, and all that has it is in the box."""
    mask = object_mask(image, label)
    x, y = ((box_xyxy_px[:2] + box_xyxy_px[2:]) / 2).astype(int)
    rows, columns = np.nonzero(mask)
    corners = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    reach = np.concatenate([corners[:2] - box_xyxy_px[:2], box_xyxy_px[2:] - corners[2:]])
    return bool(mask[y, x]) and bool((reach > -MARGIN).all())


def test_the_ways_are_what_they_are_called(rows: Dataset) -> None:
    """Batches are padded, photos are decoded at a reduced size, stored ones are smaller than their files."""
    dataset, _, _ = prepare(rows, "files", "evaluation")
    masks = [batch["pixel_mask"] for batch in DataLoader(dataset, 4, collate_fn=collate)]
    assert all((mask == 0).any() for mask in masks)
    last = rows[len(rows) - 1]["image"]
    reduced, size = decode_cell_with_size(last, EDGE)
    assert size == LARGE[::-1]
    assert reduced.size == (LARGE[0] // 4, LARGE[1] // 4)
    stored, processor, _ = prepare(rows, "stored", "none")
    row = stored.with_format(None)[len(rows) - 1]
    assert load_pixels(row["kept"], row["image"], processor).shape[:2] == (218, 160)
    square, _, _ = prepare(rows, "square", "none")
    assert {tuple(row["pixel_values"].shape) for row in square} == {(3, EDGE, EDGE)}


MISTAKES = {
    "x and y swapped": lambda boxes, w, h: boxes[:, [1, 0, 3, 2]],
    "flipped": lambda boxes, w, h: np.stack([w - boxes[:, 2], boxes[:, 1], w - boxes[:, 0], boxes[:, 3]], axis=1),
    "upside down": lambda boxes, w, h: np.stack([boxes[:, 0], h - boxes[:, 3], boxes[:, 2], h - boxes[:, 1]], axis=1),
    "four pixels to the right": lambda boxes, w, h: boxes + np.array([4, 0, 4, 0]),
    "four pixels too high": lambda boxes, w, h: boxes - np.array([0, 4, 0, 4]),
    "relative to a padded canvas": lambda boxes, w, h: boxes * np.array([1, 0.9, 1, 0.9]),
    "too large": lambda boxes, w, h: boxes + np.array([-4, -4, 4, 4]),
    "too small": lambda boxes, w, h: boxes + np.array([4, 4, -4, -4]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_misplaced_box_is_seen(rows: Dataset, mistake: str) -> None:
    dataset, processor, _ = prepare(rows, "files", "evaluation")
    for picture, boxes, labels in restored(dataset, processor):
        limits = np.array([picture.width, picture.height] * 2)
        wrong = np.clip(MISTAKES[mistake](boxes, picture.width, picture.height), 0, limits)
        found = [faults(picture, box, label) for box, label in zip(wrong, labels, strict=True)]
        assert all(found[:2]), "red and green lie free of the border"
        assert faults(picture, boxes[0], labels[1]), "another label"


def test_a_picture_comes_back_as_it_was(rows: Dataset) -> None:
    """Equal to the last bit where nothing is resized, also without normalisation."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 40, 60), dtype=np.uint8)
    for settings in ({}, {"do_normalize": False}, {"do_rescale": False, "do_normalize": False}):
        processor = build_processor(new_model(shortest_edge=40, longest_edge=60))
        for key, value in settings.items():
            setattr(processor, key, value)
        values = processor.preprocess(torch.from_numpy(noise), do_pad=False, return_tensors="pt")["pixel_values"][0]
        assert np.array_equal(np.asarray(restore_image(values, processor)), noise.transpose(1, 2, 0))
