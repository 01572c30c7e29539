import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hf_detr_ft.plots.annotated_images import TILE_GAP, decode_segmentation, draw_annotations, tile_images
from hf_detr_ft.plots.draw_boxes import class_colour
from hf_detr_ft.plots.samples import draw_sample

GREY = (120, 120, 120)
PLAIN = Image.new("RGB", (400, 300), GREY)
NAMES = {3: "mug", 7: "cone"}
SQUARE = [[100.0, 50.0, 200.0, 50.0, 200.0, 150.0, 100.0, 150.0]]
BOX = {"bbox": [100, 50, 100, 100], "category_id": 7}


def as_rle(counts_as_text: bool) -> dict:
    pixels = np.zeros((300, 400), dtype=np.uint8)
    pixels[50:150, 100:200] = 1
    if counts_as_text:
        rle = coco_mask.encode(np.asfortranarray(pixels))
        return {"size": rle["size"], "counts": rle["counts"].decode()}
    flat = pixels.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [300, 400], "counts": np.diff([0, *edges.tolist(), flat.size]).tolist()}


@pytest.mark.parametrize("segmentation", [SQUARE, as_rle(True), as_rle(False)])
def test_a_mask_is_that_of_polygons_and_of_both_kinds_of_rle(segmentation: object) -> None:
    mask = decode_segmentation(segmentation, (300, 400))
    assert mask is not None and mask.dtype == bool and mask.shape == (300, 400)
    assert mask[50:150, 100:200].all() and mask.sum() == 10_000


def test_parts_of_an_object_are_one_mask() -> None:
    mask = decode_segmentation([*SQUARE, [0.0, 0.0, 10.0, 0.0, 10.0, 10.0, 0.0, 10.0]], (300, 400))
    assert mask is not None and mask.sum() == 10_100


@pytest.mark.parametrize(
    "segmentation",
    [None, [], [[1, 2, 3]], "polygon", {"size": [300, 400], "counts": "~"}, {"size": [30, 40], "counts": [1200]}],
)
def test_a_damaged_mask_is_none(segmentation: object) -> None:
    assert decode_segmentation(segmentation, (300, 400)) is None


def test_a_mask_is_seen_in_the_colour_of_its_class() -> None:
    drawn = np.asarray(draw_annotations(PLAIN, [{**BOX, "segmentation": SQUARE}], NAMES), dtype=float)
    colour = np.array(class_colour(1).as_rgb())
    assert np.abs(drawn[120, 150] - (0.55 * np.array(GREY) + 0.45 * colour)).max() < 2
    assert drawn[250, 350].tolist() == list(GREY)
    assert set(PLAIN.getcolors()[0][1]) == set(GREY), "the image stays as it was"


@pytest.mark.parametrize("extra", [{}, {"segmentation": SQUARE, "iscrowd": 1}, {"segmentation": [[1, 2, 3]]}])
def test_without_a_mask_boxes_and_names_are_those_of_a_sample(extra: dict) -> None:
    drawn = draw_annotations(PLAIN, [{**BOX, **extra}], NAMES)
    crowd = [bool(extra.get("iscrowd"))]
    assert drawn.tobytes() == draw_sample(PLAIN, np.array([[100, 50, 200, 150]]), [1], ["mug", "cone"], crowd).tobytes()
    assert draw_annotations(PLAIN, [{**BOX, "segmentation": SQUARE}], NAMES, masks=False).size == (400, 300)


def test_an_image_without_annotations_is_only_made_small() -> None:
    assert draw_annotations(PLAIN, [], NAMES, edge=200).size == (200, 150)


def test_images_stand_in_rows_and_none_covers_another() -> None:
    colours = ["red", "lime", "blue", "black"]
    images = [Image.new("RGB", size, colour) for size, colour in zip([(40, 20), (20, 40)] * 2, colours, strict=True)]
    sheet = tile_images(images, columns=3, edge=80)
    assert sheet.size == (80 + 40 + 80 + 2 * TILE_GAP, 80 + TILE_GAP + 80)
    found = {colour: count for count, colour in sheet.getcolors()}
    assert [found[Image.new("RGB", (1, 1), colour).getpixel((0, 0))] for colour in colours] == [3200] * 4
    assert sheet.getpixel((20, 60)) == (255, 255, 255)
