import copy
import pickle
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image, ImageDraw

from hf_detr_ft.data.augment import build_augmentation
from hf_detr_ft.data.augmented import Augmentation
from hf_detr_ft.data.cache.image_cache import cache_images
from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.collate import collate
from hf_detr_ft.data.dataset import load_split
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.images import UPRIGHT
from hf_detr_ft.data.transform import DetrTransform, Epoch, transformed
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import AugmentConfig
from hf_detr_ft.training.data_pipeline import build_processor
from tests.fixtures import draw_split, new_model, tiny_processor

COLUMNS = ["image", "image_id", "objects"]


def row(
    path: Path | bytes, boxes: list, *, labels: list | None = None, areas: list | None = None, image_id: int = 1
) -> dict:
    """A row of `load_split`, as columns of one."""
    is_path = isinstance(path, Path)
    objects = {
        "bbox": boxes,
        "label": labels or [0] * len(boxes),
        "area": areas or [box[2] * box[3] for box in boxes],
    }
    image = {"path": str(path) if is_path else None, "bytes": None if is_path else path}
    return {"image": [image], "image_id": [image_id], "objects": [objects]}


def together(*rows: dict) -> dict:
    return {key: [value for one in rows for value in one[key]] for key in rows[0]}


def photo(path: Path, height: int, width: int, **settings: object) -> Path:
    """Dark, with a bright rectangle over x 10 to 30 and y 20 to 60."""
    image = Image.new("RGB", (width, height), (40, 40, 40))
    ImageDraw.Draw(image).rectangle((10, 20, 29, 59), fill=(250, 250, 250))
    image.save(path, **settings)
    return path


BRIGHT = [10, 20, 20, 40]


def augmentation(**given: object) -> Augmentation:
    return build_augmentation(AugmentConfig(**{"preset": "none", **given}), 96)


def test_boxes_are_relative_to_each_image_without_its_padding(tmp_path: Path) -> None:
    landscape, portrait = photo(tmp_path / "a.png", 100, 200), photo(tmp_path / "b.png", 200, 100)
    rows = together(row(landscape, [BRIGHT], labels=[1], image_id=7), row(portrait, [BRIGHT, [0, 0, 100, 200]]))
    samples = DetrTransform(tiny_processor())(rows)
    batch = collate([dict(zip(samples, values, strict=True)) for values in zip(*samples.values(), strict=True)])
    assert [tuple(pixels.shape) for pixels in samples["pixel_values"]] == [(3, 80, 160), (3, 160, 80)]
    first, second = batch["labels"]
    assert first["boxes"].numpy() == pytest.approx(np.array([[0.1, 0.4, 0.1, 0.4]]))
    assert second["boxes"].numpy() == pytest.approx(np.array([[0.2, 0.2, 0.2, 0.2], [0.5, 0.5, 1, 1]]))
    assert first["image_id"].tolist() == [7]
    assert first["class_labels"].tolist() == [1]
    assert [first["size"].tolist(), first["orig_size"].tolist()] == [[80, 160], [100, 200]]
    assert [second["size"].tolist(), second["orig_size"].tolist()] == [[160, 80], [200, 100]]
    types = {key: value.dtype for key, value in first.items()}
    assert types["class_labels"] == types["image_id"] == types["orig_size"] == types["size"] == torch.int64
    assert types["boxes"] == types["area"] == samples["pixel_values"][0].dtype == torch.float32


def test_pixels_are_normalised_and_the_object_lies_under_its_box(tmp_path: Path) -> None:
    samples = DetrTransform(tiny_processor())(row(photo(tmp_path / "a.png", 100, 200), [BRIGHT]))
    pixels, (cx, cy, w, h) = samples["pixel_values"][0], samples["labels"][0]["boxes"][0].tolist()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    assert pixels[:, 70, 150].numpy() == pytest.approx(((40 / 255 - mean) / std).numpy(), abs=0.02)
    rows, columns = torch.nonzero(pixels[0] > 0, as_tuple=True)
    seen = [columns.min() / 160, rows.min() / 80, (columns.max() + 1) / 160, (rows.max() + 1) / 80]
    assert seen == pytest.approx([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], abs=0.007)


def test_a_photo_is_upright_as_its_exif_tag_says(tmp_path: Path) -> None:
    upright = Image.open(photo(tmp_path / "a.png", 100, 200))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.jpg", exif=exif, quality=95)
    assert Image.open(tmp_path / "b.jpg").size == (100, 200)
    for augmented in (None, augmentation()):
        samples = DetrTransform(tiny_processor(), augmented)(row(tmp_path / "b.jpg", [BRIGHT]))
        assert samples["labels"][0]["orig_size"].tolist() == [100, 200]
        pixels = samples["pixel_values"][0][0]
        assert pixels.shape == (80, 160)
        assert (pixels[18:46, 10:22] > 1.8).all()
        assert (pixels[:14] < 0).all()
        assert (pixels[50:] < 0).all()


@pytest.mark.parametrize("way", ["whole", "reduced", "cached"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_lie_on_the_object_whatever_the_orientation(
    orientation: int, suffix: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    upright = Image.open(photo(tmp_path / "upright.png", 200, 400))
    back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)  # the turn that undoes it
    stored = upright.transpose(UPRIGHT[back]) if back in UPRIGHT else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    images = [{"id": 1, "file_name": f"a.{suffix}", "width": 400, "height": 200}]
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": BRIGHT, "area": 800.0}
    coco = {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "bright"}]}
    told = [] if orientation in (1, 5, 6, 7, 8) else ["exif-orientation"]  # where no size tells that boxes are upright
    assert [problem.kind for problem in check_coco(coco, tmp_path / "a.json", tmp_path)] == told
    rows = load_split(coco, tmp_path, LabelMap.from_coco(coco))
    if way == "cached":
        kept = cache_images(rows, ImageSize(96, 160), 1e9)
        assert kept is not None
        rows = kept
    transform = DetrTransform(tiny_processor(), augmentation(), least_side=80 if way == "reduced" else None)
    (sample,) = transformed(rows, transform)
    pixels, labels = sample["pixel_values"], sample["labels"]
    assert pixels.shape == (3, 80, 160)
    torch.testing.assert_close(labels["boxes"], torch.tensor([[0.05, 0.2, 0.05, 0.2]]))
    torch.testing.assert_close(labels["area"], torch.tensor([800 * 0.16]))
    assert (pixels[0, 9:23, 5:11] > 1).all()
    assert (pixels[0, 28:] < 0).all()
    assert (pixels[0, :, 15:] < 0).all()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "PA", "CMYK", "I;16", "1", "F"])
def test_any_mode_becomes_three_channels_with_and_without_augmentation(tmp_path: Path, mode: str) -> None:
    image, path = Image.open(photo(tmp_path / "a.png", 100, 200)), tmp_path / "b.tif"
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert("L").convert(mode) if mode in ("PA", "F") else image.convert(mode)
    image.save(path) if mode != "PA" else image.convert("RGBA").save(path)
    for augmented in (None, augmentation(preset="light")):
        samples = DetrTransform(tiny_processor(), augmented)(row(path, [BRIGHT]))
        assert samples["pixel_values"][0].shape == (3, 80, 160)
        boxes = samples["labels"][0]["boxes"]
        assert boxes.shape == (1, 4)
        x, y = (boxes[0, :2] * torch.tensor([160, 80])).long().tolist()
        assert (samples["pixel_values"][0][:, y, x] > samples["pixel_values"][0][:, 70, 80] + 1).all()


@pytest.mark.parametrize("preset", ["none", "detr", None])
def test_an_image_without_objects_has_empty_labels(tmp_path: Path, preset: str | None) -> None:
    augmented = None if preset is None else augmentation(preset=preset)
    samples = DetrTransform(tiny_processor(), augmented)(row(photo(tmp_path / "a.png", 100, 200), []))
    target = samples["labels"][0]
    assert target["boxes"].shape == (0, 4)
    assert target["class_labels"].shape == target["area"].shape == (0,)
    assert target["class_labels"].dtype == torch.int64
    assert target["image_id"].tolist() == [1]


def test_boxes_over_the_border_are_clipped_and_empty_ones_go_with_their_labels(tmp_path: Path) -> None:
    boxes = [[-10, 0, 30, 50], [50, 50, 0, 10], [150, 80, 500, 500], [20, 20, 1, 1]]
    path = photo(tmp_path / "a.png", 100, 200)
    for augmented in (None, augmentation()):
        target = DetrTransform(tiny_processor(), augmented)(row(path, boxes, labels=[4, 5, 6, 7]))["labels"][0]
        assert target["class_labels"].tolist() == [4, 6, 7]
        wanted = [[0.05, 0.25, 0.1, 0.5], [0.875, 0.9, 0.25, 0.2], [0.1025, 0.205, 0.005, 0.01]]
        assert target["boxes"].numpy() == pytest.approx(np.array(wanted), abs=1e-6)


def test_areas_are_in_resized_pixels_and_of_what_is_left(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png", 100, 200)
    plain = row(path, [[20, 20, 40, 40]], areas=[800])
    assert DetrTransform(tiny_processor())(plain)["labels"][0]["area"].tolist() == pytest.approx([800 * 0.64])
    cropped = DetrTransform(tiny_processor(), augmentation(random_crop=1.0, min_visibility=0.0))
    cut = 0
    for image_id in range(40):
        plain["image_id"] = [image_id]
        target = cropped(plain)["labels"][0]
        height, width = target["size"].tolist()
        box_areas = target["boxes"][:, 2:].prod(dim=1) * height * width
        assert target["area"].numpy() == pytest.approx((box_areas / 2).numpy(), rel=1e-4)  # as it was half of its box
        cut += bool(len(box_areas) and box_areas[0] < 40 * 40 * 0.64 * 0.8)
    assert cut > 3


def test_the_drawn_short_side_is_what_the_processor_resizes_to_and_the_long_side_is_capped(tmp_path: Path) -> None:
    wide, square = photo(tmp_path / "a.png", 100, 300), photo(tmp_path / "b.png", 150, 150)
    transform = DetrTransform(tiny_processor(), augmentation(multi_scale=True))
    wide_sizes, square_sizes = set(), set()
    for image_id in range(150):
        rows = together(row(wide, [], image_id=image_id), row(square, [], image_id=image_id))
        first, second = (tuple(pixels.shape[1:]) for pixels in transform(rows)["pixel_values"])
        wide_sizes.add(first)
        square_sizes.add(second)
    assert square_sizes == {(side, side) for side in (58, 61, 65, 69, 73, 77, 81, 84, 88, 92, 96)}
    assert wide_sizes == {(53, 160)}


def equal(one: dict, other: dict) -> bool:
    return torch.equal(one["pixel_values"], other["pixel_values"]) and all(
        torch.equal(one["labels"][key], other["labels"][key]) for key in one["labels"]
    )


def first_sample(transform: DetrTransform, rows: dict) -> dict:
    samples = transform(rows)
    return {key: samples[key][0] for key in samples}


def test_a_square_takes_images_of_any_shape_with_their_boxes(tmp_path: Path) -> None:
    processor = build_processor(new_model(square_edge=64))
    rows = together(
        row(photo(tmp_path / "a.png", 100, 200), [BRIGHT]), row(photo(tmp_path / "b.png", 90, 60), [BRIGHT])
    )
    for transform in (DetrTransform(processor), DetrTransform(processor, augmentation())):
        samples = transform(rows)
        assert [tuple(pixels.shape) for pixels in samples["pixel_values"]] == [(3, 64, 64)] * 2
        expected = torch.tensor([[[0.1, 0.4, 0.1, 0.4]], [[20 / 60, 40 / 90, 20 / 60, 40 / 90]]])
        torch.testing.assert_close(torch.stack([target["boxes"] for target in samples["labels"]]), expected)
        assert [target["orig_size"].tolist() for target in samples["labels"]] == [[100, 200], [90, 60]]


def test_draws_depend_on_seed_epoch_and_image_alone(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png", 100, 200)
    everything = {"preset": "detr", "color_jitter": 0.5, "rotate": 10.0}
    transform = DetrTransform(tiny_processor(), augmentation(**everything), 3)
    epoch = transform.epoch
    here = row(path, [BRIGHT], image_id=5)
    wanted = first_sample(transform, here)
    together_with_others = transform(together(row(path, [], image_id=1), here))
    assert equal(wanted, {key: together_with_others[key][1] for key in wanted})
    assert equal(wanted, first_sample(DetrTransform(tiny_processor(), augmentation(**everything), 3), here))
    epoch.set(1)
    later = first_sample(transform, here)
    assert not equal(wanted, later)
    epoch.set(0)
    assert equal(wanted, first_sample(transform, here))
    assert not equal(wanted, first_sample(DetrTransform(tiny_processor(), augmentation(**everything), 4), here))
    assert not torch.equal(
        wanted["pixel_values"], first_sample(transform, row(path, [BRIGHT], image_id=6))["pixel_values"]
    )


@pytest.mark.parametrize("given", [{"preset": "detr", "rotate": 10.0}, {"preset": "light"}, {"random_crop": 1.0}])
@pytest.mark.parametrize("square_edge", [None, 64])
def test_shapes_are_known_without_the_pixels(tmp_path: Path, given: dict, square_edge: int | None) -> None:
    processor = build_processor(new_model(shortest_edge=96, longest_edge=160, square_edge=square_edge))
    transform = DetrTransform(processor, augmentation(**given), 3)
    sizes = [(100, 200), (333, 250), (90, 90), (700, 100)]
    photos = [photo(tmp_path / f"{height}.png", height, width) for height, width in sizes]
    rows = together(*(row(path, [], image_id=i) for i, path in enumerate(photos)))
    seen = set()
    for epoch in range(8):
        transform.epoch.set(epoch)
        planned = transform.shapes(range(4), [width / height for height, width in sizes])
        actual = [tuple(pixels.shape[1:]) for pixels in transform(rows)["pixel_values"]]
        assert np.abs(planned - np.array(actual)).max() <= 2
        seen |= set(actual)
    assert len(seen) == (1 if square_edge else 4) if given == {"preset": "light"} or square_edge else len(seen) > 10


@pytest.mark.parametrize("image_id", [0, -3, 2**62])
def test_any_image_id_can_be_drawn_for(tmp_path: Path, image_id: int) -> None:
    transform = DetrTransform(tiny_processor(), augmentation(preset="detr"))
    target = transform(row(photo(tmp_path / "a.png", 100, 200), [], image_id=image_id))["labels"][0]
    assert target["image_id"].tolist() == [image_id]


@pytest.fixture
def augmented_split(tmp_path: Path) -> tuple[Dataset, Epoch]:
    coco = draw_split(tmp_path, [(48, 64), (64, 48), (48, 48), (64, 40), (40, 64)], seed=1, objects=[2, 0, 1, 3, 1])
    transform = DetrTransform(tiny_processor(), augmentation(preset="detr", color_jitter=0.5), 0)
    epoch = transform.epoch
    dataset = load_split(coco, tmp_path, LabelMap.from_coco(coco))
    return dataset.with_transform(transform, columns=COLUMNS, output_all_columns=True), epoch


def test_loader_workers_draw_the_same_and_follow_the_epoch(augmented_split: tuple[Dataset, Epoch]) -> None:
    dataset, epoch = augmented_split
    loaders = [
        torch.utils.data.DataLoader(dataset, 1, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0)
        for workers in (0, 2)
    ]
    seen = []
    for number in (0, 1, 0):
        epoch.set(number)
        alone, shared = ([flat(batch) for batch in loader] for loader in loaders)
        assert all(equal(one, other) for one, other in zip(alone, shared, strict=True))
        seen.append(alone)
    assert not any(torch.equal(one["pixel_values"], two["pixel_values"]) for one, two in zip(*seen[:2], strict=True))
    assert all(equal(one, two) for one, two in zip(seen[0], seen[2], strict=True))


def flat(batch: dict) -> dict:
    return {"pixel_values": batch["pixel_values"], "labels": batch["labels"][0]}


def test_a_data_set_runs_it_only_on_the_rows_that_are_read(augmented_split: tuple[Dataset, Epoch]) -> None:
    dataset, _ = augmented_split
    assert set(dataset[0]) == {"pixel_values", "labels", "file_name", "aspect_ratio", "original_size", "crowd"}
    assert [len(target["class_labels"]) for target in dataset[1:2]["labels"]] == [0]
    Path(dataset.with_format(None)[0]["image"]["path"]).unlink()
    assert dataset[2]["labels"]["image_id"].tolist() == [102]
    with pytest.raises(DataError, match="01_000.jpg"):
        dataset[0]


def test_it_travels_to_a_process_that_was_not_forked(tmp_path: Path) -> None:
    rows = row(photo(tmp_path / "a.png", 100, 200), [BRIGHT])
    transform = DetrTransform(tiny_processor(), augmentation(preset="detr"), 3)
    for travelled in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        assert equal(first_sample(transform, rows), first_sample(travelled, rows))


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    broken = photo(tmp_path / "broken.jpg", 100, 200)
    broken.write_bytes(broken.read_bytes()[:-400])
    for path, found in ((broken, "truncated"), (tmp_path / "absent.jpg", "no such file")):
        with pytest.raises(DataError, match=found) as error:
            DetrTransform(tiny_processor(), augmentation())(row(path, [BRIGHT]))
        assert str(path) in str(error.value)


def test_an_image_of_which_resizing_leaves_nothing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "line.png"
    Image.new("RGB", (400, 1)).save(path)
    for augmented in (None, augmentation()):
        with pytest.raises(DataError, match="400 x 1 pixels") as error:
            DetrTransform(tiny_processor(), augmented)(row(path, []))
        assert str(path) in str(error.value)
    Image.new("RGB", (300, 1)).save(path)
    assert DetrTransform(tiny_processor())(row(path, []))["pixel_values"][0].shape[1] == 1


def test_images_in_memory_are_read_too(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png", 100, 200)
    transform = DetrTransform(tiny_processor())
    assert equal(
        first_sample(transform, row(path, [BRIGHT])), first_sample(transform, row(path.read_bytes(), [BRIGHT]))
    )
