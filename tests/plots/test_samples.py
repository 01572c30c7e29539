from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.collate import collate
from hf_detr_ft.data.transform import DetrTransform
from hf_detr_ft.plots.box_overlay import CROWD_STYLE
from hf_detr_ft.plots.draw_boxes import class_colour
from hf_detr_ft.plots.samples import draw_sample, draw_training_sample, restore_boxes
from hf_detr_ft.recipe.sections import AugmentConfig
from tests.fixtures import tiny_processor

GREY = (120, 120, 120)
NAMES = ("mug", "cone", "fish")
PLAIN = Image.new("RGB", (800, 600), GREY)
BOX = np.array([[200, 160, 600, 400]])


def colour_of(image: Image.Image, x: int, y: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*np.asarray(image)[y, x])


def hexadecimal(label: int) -> str:
    return class_colour(label).as_hex().lower()


def changed(image: Image.Image) -> np.ndarray:
    """`[h, w]`, where something was drawn on grey."""
    return (np.asarray(image) != GREY).any(axis=-1)


def test_it_is_small_and_the_photo_stays_as_it_was() -> None:
    photo = PLAIN.copy()
    drawn = draw_sample(photo, BOX, [0], NAMES)
    assert (drawn.size, drawn.mode) == ((400, 300), "RGB")
    assert not changed(photo).any()
    assert draw_sample(PLAIN.resize((60, 100)), BOX[:0], [], NAMES, edge=200).size == (120, 200)


def test_lines_are_on_the_box_in_the_colour_of_its_class() -> None:
    drawn = draw_sample(PLAIN, BOX, [2], ["only", "these", "three"])
    assert {colour_of(drawn, *at) for at in ((100, 150), (300, 150), (200, 200), (290, 80))} == {hexadecimal(2)}
    assert colour_of(drawn, 200, 150) == colour_of(drawn, 200, 250) == "#787878"


def test_names_are_written_where_there_is_more_than_one_class() -> None:
    """One class is named once, in the page's text; in the pictures it would only hide something."""
    named, alone = (changed(draw_sample(PLAIN, BOX, [0], names)).sum() for names in (NAMES, NAMES[:1]))
    assert named > alone + 200
    pictures = [draw_sample(PLAIN, BOX, [0], names).tobytes() for names in (NAMES, ("cone", "mug"), ("風", "筝"))]
    assert len(set(pictures)) == 3


def test_names_never_hide_each_other_and_small_boxes_have_the_choice() -> None:
    boxes = np.array([[100, 100, 700, 500]] + [[100 + 4 * place, 100, 140 + 4 * place, 140] for place in range(30)])
    drawn = np.asarray(draw_sample(PLAIN, boxes, [0] + [1] * 30, NAMES))
    label = (drawn == class_colour(1).as_rgb()).all(axis=-1)
    assert label.any()
    crowded = changed(draw_sample(PLAIN, np.tile(BOX, (200, 1)), [0] * 200, NAMES)).mean()
    assert crowded < 0.1, "200 labels of one place are drawn as far as there is room at its edges"


def test_small_boxes_lie_on_top() -> None:
    boxes = np.array([[300, 200, 340, 240], [300, 160, 600, 400]])  # they share a part of the left edge
    for order in ([0, 1], [1, 0]):
        drawn = draw_sample(PLAIN, boxes[order], order, ["a", "b"])
        assert colour_of(drawn, 150, 110) == hexadecimal(0)


def test_crowd_regions_are_grey_and_have_no_name() -> None:
    drawn = draw_sample(PLAIN, BOX, [1], NAMES, crowd=[True])
    assert colour_of(drawn, 100, 150) == CROWD_STYLE.colour
    assert changed(drawn).sum() == changed(draw_sample(PLAIN, BOX, [1], NAMES[:1])).sum()


@pytest.mark.parametrize(
    "box", [(-300, -200, 60, 50), (700, 560, 900, 700), (0, 0, 800, 600), (799, 0, 800, 1), (400, 300, 401, 301)]
)
def test_a_box_over_the_border_or_of_one_pixel_is_seen(box: tuple[int, ...]) -> None:
    drawn = np.asarray(draw_sample(PLAIN, np.array([box]), [0], NAMES[:1]))
    assert (drawn == class_colour(0).as_rgb()).all(axis=-1).sum() >= 1
    assert not changed(Image.fromarray(drawn)).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (2000, 3)])
def test_photos_of_any_shape(size: tuple[int, int]) -> None:
    box = np.array([[0, 0, *size]], dtype=np.float64)
    assert max(draw_sample(Image.new("RGB", size), box, [0], NAMES).size) == 400


def target_of(boxes: list, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "class_labels": torch.arange(len(boxes)),
        "size": torch.tensor(size),
    }


def test_boxes_are_restored_in_pixels_of_the_unpadded_image() -> None:
    target = target_of([[0.5, 0.5, 1, 1], [0.25, 0.5, 0.1, 0.2]], (50, 200))
    assert restore_boxes(target) == pytest.approx(np.array([[0, 0, 200, 50], [40, 20, 60, 30]]), abs=1e-4)
    assert restore_boxes(target_of([], (50, 200))).shape == (0, 4)


def test_a_sample_of_a_padded_batch_is_drawn_without_its_padding() -> None:
    """Half precision, too; white images, so that the padding, which is the mean colour, would be seen."""
    processor = tiny_processor()
    white = torch.ones(3, 40, 80) * (1 - torch.tensor(processor.image_mean)[:, None, None])
    white = white / torch.tensor(processor.image_std)[:, None, None]
    rows = [{"pixel_values": white}, {"pixel_values": white.transpose(1, 2)}]
    batch = collate(rows)
    assert batch["pixel_values"].shape == (2, 3, 80, 80)
    for values, size, shape in zip(batch["pixel_values"], ((40, 80), (80, 40)), ((200, 100), (100, 200)), strict=True):
        for dtype in (torch.float32, torch.bfloat16):
            target = target_of([[0.5, 0.5, 0.5, 0.5]], size)
            drawn = np.asarray(draw_training_sample(values.to(dtype), target, processor, NAMES[:1], edge=200))
            assert drawn.shape == (*shape[::-1], 3)
            assert (drawn[:20] >= 250).all()
            assert (drawn[-20:] >= 250).all()
            assert (drawn == class_colour(0).as_rgb()).all(axis=-1).any()


@pytest.mark.parametrize("boxes", [[], [[5, 5, 1, 1]], [[-10, -10, 400, 400]]], ids=["none", "one pixel", "all"])
def test_a_row_of_the_transform_is_drawn_whatever_it_holds(tmp_path: Path, boxes: list) -> None:
    Image.new("RGB", (120, 90), GREY).save(tmp_path / "a.png")
    processor = tiny_processor()
    objects = {"bbox": boxes, "label": [0] * len(boxes), "area": [1.0] * len(boxes)}
    for preset in ("none", "detr"):
        transform = DetrTransform(processor, build_augmentation(AugmentConfig(preset=preset), 96))
        row = transform.sample(
            {"image": {"path": str(tmp_path / "a.png"), "bytes": None}, "image_id": 1, "objects": objects}
        )
        drawn = draw_training_sample(row["pixel_values"], row["labels"], processor, NAMES, edge=100)
        assert max(drawn.size) == 100
        assert (np.abs(np.asarray(drawn).astype(int) - 120).max() > 20) == bool(len(row["labels"]["boxes"]))
