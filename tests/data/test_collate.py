import doctest

import pytest
import torch

from hf_detr_ft.data import collate as module
from hf_detr_ft.data.collate import collate, resize_batch


def rows(*sizes: tuple[int, int]) -> list[dict]:
    generator = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.rand(3, *size, generator=generator) + 1} for size in sizes]


def test_the_docstring_says_what_happens():
    result = doctest.testmod(module)
    assert result.attempted == 5
    assert result.failed == 0


def test_images_lie_top_left_and_the_mask_says_where():
    samples = rows((4, 7), (6, 5), (1, 1))
    batch = collate(samples)
    assert batch.keys() == {"pixel_values", "pixel_mask"}
    assert batch["pixel_values"].shape == (3, 3, 6, 7)
    assert batch["pixel_mask"].shape == (3, 6, 7)
    assert batch["pixel_mask"].dtype == torch.int64
    for image, mask, sample in zip(batch["pixel_values"], batch["pixel_mask"], samples, strict=True):
        _, height, width = sample["pixel_values"].shape
        assert torch.equal(image[:, :height, :width], sample["pixel_values"])
        assert mask[:height, :width].all()
        assert mask.sum() == height * width
        assert not image[:, mask == 0].any()


def test_one_shape_needs_no_padding():
    batch = collate(rows((4, 5), (4, 5)))
    assert batch["pixel_values"].shape == (2, 3, 4, 5)
    assert batch["pixel_mask"].all()


def test_labels_are_passed_on_as_they_are():
    samples = rows((4, 8), (8, 4))
    labels = [
        {"boxes": torch.tensor([[0.25, 0.5, 0.25, 0.5]]), "class_labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "class_labels": torch.zeros(0, dtype=torch.int64)},
    ]
    expected = [label["boxes"].clone() for label in labels]
    batch = collate([{**sample, "labels": label, "file": "x"} for sample, label in zip(samples, labels, strict=True)])
    assert batch.keys() == {"pixel_values", "pixel_mask", "labels"}
    for label, passed, boxes in zip(labels, batch["labels"], expected, strict=True):
        assert passed is label
        assert torch.equal(passed["boxes"], boxes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_stays(dtype: torch.dtype):
    samples = [{"pixel_values": row["pixel_values"].to(dtype)} for row in rows((2, 3), (3, 2))]
    assert collate(samples)["pixel_values"].dtype == dtype


def test_a_batch_resized_to_a_square_has_its_labels_and_no_padding():
    samples = [{**row, "labels": {"boxes": torch.rand(2, 4)}} for row in rows((8, 6), (6, 8))]
    batch = collate(samples)
    same, smaller = resize_batch(batch, 8), resize_batch(batch, 4)
    assert same is batch
    assert smaller["pixel_values"].shape == (2, 3, 4, 4)
    assert smaller["pixel_values"][0, 0, 1, 1] == pytest.approx(
        float(batch["pixel_values"][0, 0, 1:5, 1:5].mean()), 0.1
    )
    assert smaller["pixel_mask"].tolist() == [[[1] * 4] * 4] * 2
    assert smaller["labels"] is batch["labels"]
