"""Synthetic photos: the same each time, varied, and annotated exactly where things are to be seen."""

import hashlib
from types import MappingProxyType

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.synthetic import render as synthetic
from hf_detr_ft.synthetic.render import (
    CLASSES,
    MAX_OBJECTS,
    SyntheticImage,
    coco_annotations,
    coco_categories,
    mask_outlines,
    render,
)
from hf_detr_ft.synthetic.scene import MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE


def digest(photo: SyntheticImage) -> str:
    return hashlib.sha256(photo.image.tobytes() + repr(photo.objects).encode()).hexdigest()


def raster(polygons: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    """COCO's own reading of polygons, [height, width]."""
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *size))).astype(bool)


@pytest.fixture(scope="module")
def photos() -> list[SyntheticImage]:
    return [render(index, seed=5) for index in range(100)]


@pytest.fixture(scope="module")
def balloons() -> list[SyntheticImage]:
    return [render(index, classes=["balloon"]) for index in range(40)]


def test_a_photo_depends_on_seed_and_index_alone():
    first = [digest(render(index, seed=3)) for index in (0, 1, 10**9)]
    np.random.seed(0)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        again = [digest(render(index, seed=3)) for index in (10**9, 1, 0)]
    finally:
        cv2.setNumThreads(threads)
    assert again == first[::-1]
    assert len({*first, digest(render(0, seed=4))}) == 4


def test_boxes_areas_and_polygons_are_of_the_same_pixels(photos: list[SyntheticImage]):
    for photo in photos:
        height, width = photo.image.shape[:2]
        for thing in photo.objects:
            mask = raster(thing.polygons, (height, width))
            assert min(thing.area, mask.sum()) / max(thing.area, mask.sum()) > 0.97, thing.name
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            x, y, w, h = thing.box_xywh_px
            assert 0 <= x < x + w <= width and 0 <= y < y + h <= height
            ends = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose([x, y, x + w, y + h], ends, atol=1)
            assert thing.area >= MIN_VISIBLE_PIXELS and thing.visible_share >= MIN_VISIBLE_SHARE


def test_no_pixel_belongs_to_two_objects(photos: list[SyntheticImage]):
    shared = total = 0
    for photo in photos:
        count = sum(raster(thing.polygons, photo.image.shape[:2]).astype(int) for thing in photo.objects)
        shared, total = shared + np.sum(count > 1), total + np.sum(count > 0)
    assert shared < 0.002 * total  # polygons of larger objects cut the corners of pixels


def test_photos_vary(photos: list[SyntheticImage]):
    things = [thing for photo in photos for thing in photo.objects]
    assert {thing.name for thing in things} == set(CLASSES) and len(CLASSES) >= 8
    areas = np.array([thing.area for thing in things])
    assert np.mean(areas < 32**2) > 0.2 and np.mean(areas > 96**2) > 0.03
    counts = [len(photo.objects) for photo in photos]
    assert min(counts) == 0 and 6 <= max(counts) <= MAX_OBJECTS
    sizes = {photo.image.shape[:2] for photo in photos}
    assert {int(np.sign(height - width)) for height, width in sizes} == {-1, 0, 1}
    assert all(240 <= min(size) <= 320 for size in sizes)
    assert np.std([photo.image.mean() for photo in photos]) > 20


def test_objects_are_cut_off_by_the_border_and_by_one_another(photos: list[SyntheticImage]):
    truncated, occluded, divided = 0, 0, 0
    for photo in photos:
        for thing in photo.objects:
            x, y, w, h = thing.box_xywh_px
            inside = x > 0 and y > 0 and x + w < photo.image.shape[1] and y + h < photo.image.shape[0]
            truncated += not inside and thing.visible_share < 0.95
            occluded += inside and thing.visible_share < 0.95
            divided += len(thing.polygons) > 1
    assert truncated > 10 and occluded > 10 and divided > 3


def test_balloons_are_where_their_outlines_are(balloons: list[SyntheticImage]):
    """Colours change at the outline, more than at the same outline elsewhere, and differ on its two sides."""
    sharper, apart, seen = 0, 0, 0
    for photo in balloons:
        grey = cv2.GaussianBlur(cv2.cvtColor(photo.image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1)
        edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        for thing in photo.objects:
            if thing.visible_share < 1 or thing.area < 600:
                continue
            mask = raster(thing.polygons, photo.image.shape[:2]).astype(np.uint8)
            outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
            elsewhere = cv2.erode(mask, np.ones((11, 11), np.uint8), borderValue=0)
            elsewhere = cv2.morphologyEx(elsewhere, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
            around = (cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 0) & (mask == 0)
            seen += 1
            sharper += edges[outline].mean() > edges[elsewhere].mean()
            apart += np.abs(photo.image[mask > 0].mean(0) - photo.image[around].mean(0)).max() > 15
    assert seen >= 20
    assert sharper > 0.9 * seen and apart > 0.8 * seen


def test_other_classes_are_not_drawn(monkeypatch: pytest.MonkeyPatch):
    drawn = []

    def noting(name: str):
        draw, lean = synthetic.SHAPES[name]
        return (lambda canvas: (drawn.append(name), draw(canvas))[1]), lean

    monkeypatch.setattr(synthetic, "SHAPES", MappingProxyType({name: noting(name) for name in CLASSES}))
    names = {thing.name for index in range(12) for thing in render(index, classes=["star", "balloon"]).objects}
    assert names == set(drawn) == {"balloon", "star"}


def test_the_order_and_number_of_mentions_of_a_class_do_not_matter():
    assert digest(render(2, classes=["star", "balloon", "star"])) == digest(render(2, classes=("balloon", "star")))


@pytest.mark.parametrize("classes", [["balloon", "ballon"], []])
def test_unknown_classes_are_refused_with_the_known_ones(classes: list[str]):
    with pytest.raises(RecipeError, match="expected some of balloon, star, .*; found ('ballon'|none)"):
        render(0, classes=classes)


def test_sizes_can_be_asked_for():
    assert render(0, size=(90, 160)).image.shape == (90, 160, 3)
    assert {min(render(index, short_side=(64, 65)).image.shape[:2]) for index in range(12)} == {64, 65}


def test_a_ring_has_a_hole():
    rings = [thing for index in range(12) for thing in render(index, classes=["ring"]).objects]
    whole = [thing for thing in rings if thing.visible_share == 1 and thing.area > 1000]
    assert len(whole) >= 5
    for thing in whole:
        x, y, w, h = thing.box_xywh_px
        mask = raster(thing.polygons, (y + h + 1, x + w + 1)).astype(np.uint8)
        outer, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        assert cv2.contourArea(max(outer, key=cv2.contourArea)) > 1.05 * thing.area
        assert len(thing.polygons) == 1


def blobs(seed: int, size: tuple[int, int], smooth: float) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(size)
    return (cv2.GaussianBlur(noise, (0, 0), smooth) > 0).astype(np.uint8)


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((1, 1), np.uint8),
        np.ones((1, 7), np.uint8),
        np.eye(5, dtype=np.uint8),
        np.pad(np.zeros((1, 1), np.uint8), 1, constant_values=1),
        1 - np.eye(6, dtype=np.uint8),
        *(blobs(seed, (22, 25), 1.0) for seed in range(6)),
    ],
)
def test_small_masks_have_exact_outlines(mask: np.ndarray):
    outlines = [(points + 2).ravel().tolist() for points in mask_outlines(mask)]
    np.testing.assert_array_equal(raster(outlines, (mask.shape[0] + 4, mask.shape[1] + 4)), np.pad(mask, 2) > 0)


@pytest.mark.parametrize("seed", range(4))
def test_outlines_of_large_masks_lose_nothing_but_corners(seed: int):
    mask = blobs(seed, (150, 170), 8.0)
    outlines = mask_outlines(mask)
    found = raster([points.ravel().tolist() for points in outlines], mask.shape)
    assert np.sum(found & (mask > 0)) / np.sum(found | (mask > 0)) > 0.985
    assert sum(map(len, outlines)) < 0.5 * np.sum(cv2.Laplacian(mask, cv2.CV_16S) > 0)


def test_annotations_are_numbered_on_and_use_the_selected_classes_ids():
    classes = ["key", "balloon"]
    assert coco_categories(classes) == [{"id": 1, "name": "balloon"}, {"id": 2, "name": "key"}]
    photo = next(photo for photo in (render(i, classes=classes) for i in range(20)) if len(photo.objects) > 2)
    annotations = coco_annotations(photo, 9, classes, first_id=40)
    assert [annotation["id"] for annotation in annotations] == list(range(40, 40 + len(photo.objects)))
    names = ["", "balloon", "key"]
    for annotation, thing in zip(annotations, photo.objects, strict=True):
        assert names[annotation["category_id"]] == thing.name and annotation["image_id"] == 9
        assert annotation["bbox"] == list(thing.box_xywh_px) and annotation["area"] == thing.area
