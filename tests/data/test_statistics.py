import json
from pathlib import Path

import numpy as np
import pytest
from transformers import DetrImageProcessor

from hf_detr_ft.data.coco import LabelMap, with_polygon_areas
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.statistics import CHUNK, GRID, describe_split
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.evaluation.detections import Detections

NAMES = {3: "mug", 7: "cone", 90: "fish"}


def coco_of(
    sizes: list[tuple[int, int]], annotations: list[tuple], names: dict[int, str] = NAMES, **given: object
) -> dict:
    """A COCO dict of images 10, 20, … of these (height, width) and annotations (image, category id, box xywh)."""
    return {
        "images": [
            {"id": 10 * (place + 1), "file_name": f"{place}.jpg", "height": height, "width": width}
            for place, (height, width) in enumerate(sizes)
        ],
        "annotations": [
            {"id": place, "image_id": 10 * (image + 1), "category_id": category_id, "bbox": list(box), **given}
            for place, (image, category_id, box) in enumerate(annotations)
        ],
        "categories": [{"id": id_, "name": name} for id_, name in names.items()],
    }


@pytest.fixture
def small() -> dict:
    """Three images; one is empty but for a crowd region."""
    coco = coco_of(
        [(100, 200), (300, 100), (50, 50)],
        [(0, 7, (0, 0, 100, 50)), (0, 7, (150, 50, 100, 100)), (1, 3, (10, 10, 20, 80)), (2, 3, (0, 0, 50, 50))],
    )
    coco["annotations"][0]["area"] = 32**2 - 1
    coco["annotations"][1]["area"] = 32**2
    coco["annotations"][3]["iscrowd"] = 1
    return coco


def test_counts(small: dict) -> None:
    split = describe_split(small)
    assert split.objects_per_image.tolist() == [2, 1, 0]
    assert split.objects_per_class.tolist() == [1, 2, 0]
    assert split.images_per_class.tolist() == [1, 1, 0]
    spread = describe_split(coco_of([(9, 9)] * 4, [(place, 90, (0, 0, 5, 5)) for place in (0, 1, 1, 3)]))
    assert spread.images_per_class.tolist() == [0, 0, 3]
    found = split.as_dict()
    assert (found["images"], found["objects"], found["crowd_regions"]) == (3, 3, 1)
    assert (found["images_without_objects"], found["objects_without_area"]) == (1, 0)
    assert found["classes"][1] == {"category_id": 7, "name": "cone", "objects": 2, "images": 1}
    assert found["classes"][2]["objects"] == 0


def test_shapes_are_those_of_boxes_clipped_to_their_image(small: dict) -> None:
    split = describe_split(small)
    assert split.relative_sizes == pytest.approx([0.5, np.sqrt(50 * 50 / 20_000), np.sqrt(1600 / 30_000)])
    assert split.aspect_ratios == pytest.approx([2, 1, 0.25])
    assert split.image_aspect_ratios == pytest.approx([2, 1 / 3, 1])


@pytest.mark.parametrize("size", [ImageSize(64, 100), ImageSize.exactly(48, 48)], ids=["by edges", "square"])
def test_sides_are_those_in_the_image_that_the_processor_makes(small: dict, size: ImageSize) -> None:
    split, processor = describe_split(small).resized(size, stride=16), DetrImageProcessor(size=size.as_dict())
    made = [
        processor.preprocess(np.zeros((height, width, 3), np.uint8), do_pad=False, return_tensors="pt")
        for height, width in split.image_sizes_px.tolist()
    ]
    shapes = [list(each["pixel_values"].shape[2:]) for each in made]
    assert split.resized_sizes_px.tolist() == shapes
    (high, wide), (upright, narrow) = shapes[:2]
    sides = [min(0.5 * wide, 0.5 * high), min(0.25 * wide, 0.5 * high), min(0.2 * narrow, 80 / 300 * upright)]
    assert split.short_sides_px == pytest.approx(sides)
    assert split.below_cell == sum(side < 16 for side in sides) == split.as_dict()["below_cell"] > 0
    scales = [high * wide / 20_000, high * wide / 20_000, upright * narrow / 30_000]
    areas = np.array([1023, 1024, 1600]) * scales
    assert split.resized_sizes["small"] == (areas < 1024).sum() == 3
    assert sum(split.resized_sizes.values()) == 3


def test_areas_grow_with_both_sides_of_the_resized_image() -> None:
    """Four times as wide and twice as high: 8 times the area, so that 128 square pixels begin to be medium."""
    coco = coco_of([(100, 100)], [(0, 3, (0, 0, 50, 50)), (0, 3, (0, 0, 50, 50)), (0, 3, (0, 0, 50, 50))])
    for annotation, area in zip(coco["annotations"], (127.9, 128, 1152), strict=True):
        annotation["area"] = area
    split = describe_split(coco).resized(ImageSize.exactly(200, 400), stride=32)
    assert split.resized_sizes == {"small": 1, "medium": 1, "large": 1}
    assert split.sizes == {"small": 2, "medium": 1, "large": 0}


def test_sizes_are_counted_as_the_evaluation_counts_them(small: dict) -> None:
    assert describe_split(small).sizes == evaluate_detections(small, Detections.empty()).sizes
    assert describe_split(small).sizes == {"small": 1, "medium": 2, "large": 0}


def test_the_balloon_validation_split(balloon: Path) -> None:
    """Its right counts, 3, 17 and 30, are known by hand; the file's own areas would give others."""
    file = balloon / "annotations" / "custom_val.json"
    split = describe_split(with_polygon_areas(json.loads(file.read_text()))[0])
    assert split.sizes == {"small": 3, "medium": 17, "large": 30}
    assert (split.images, split.objects) == (13, 50)


def test_an_object_is_spread_over_the_cells_of_its_box() -> None:
    """The first covers the left half of its image, the second a quarter of one cell; both count the same."""
    cell = 1600 // GRID
    boxes = [(0, 3, (0, 0, 800, 1600)), (0, 3, (2 * cell + 10, 5 * cell + 20, cell / 2, cell / 2))]
    positions = describe_split(coco_of([(1600, 1600)], boxes)).positions
    expected = np.zeros((GRID, GRID))
    expected[:, : GRID // 2] = 0.5 * 2
    expected[5, 2] += 0.5 * GRID**2
    assert positions == pytest.approx(expected)


def test_rows_of_the_map_are_from_the_top_and_many_objects_are_taken_in_parts() -> None:
    boxes = [(0, 3, (0, 0, 200, 10))] * (CHUNK + 1) + [(0, 3, (0, 90, 200, 10))]
    positions = describe_split(coco_of([(100, 200)], boxes)).positions
    assert positions.mean() == pytest.approx(1)
    assert positions[0].sum() == pytest.approx((CHUNK + 1) * positions[-1].sum())
    assert positions[0] == pytest.approx(positions[0, 0])


def test_what_has_no_area_in_its_image_is_counted_but_has_no_shape() -> None:
    boxes = [(0, 3, (10, 10, 0, 5)), (0, 3, (500, 10, 20, 20)), (0, 3, (99, 99, 1, 1)), (0, 3, (-20, -20, 300, 300))]
    split = describe_split(coco_of([(100, 200)], boxes))
    assert (split.objects, split.as_dict()["objects_without_area"]) == (4, 2)
    assert split.relative_sizes == pytest.approx([np.sqrt(1 / 20_000), 1])
    assert split.aspect_ratios == pytest.approx([1, 2])
    assert np.isfinite(split.positions).all()


@pytest.mark.parametrize(
    "coco",
    [
        coco_of([], []),
        coco_of([(40, 60)], []),
        coco_of([(40, 60)], [(0, 3, (1, 1, 9, 9))], iscrowd=1),
        coco_of([(40, 60)], [(0, 3, (1, 1, 0, 9))]),
        coco_of([(40, 60)], [(0, 3, (1, 1, 9, 9))], {3: "mug"}),
    ],
    ids=["no images", "no objects", "crowd alone", "an empty box alone", "one object of one class"],
)
def test_little_or_nothing(coco: dict) -> None:
    split = describe_split(coco)
    found = split.as_dict()
    json.dumps(found, allow_nan=False)
    shaped = split.placed.sum()
    assert (found["relative_sizes"] is None) == (found["aspect_ratios"] is None) == (shaped == 0)
    assert split.positions.mean() == pytest.approx(float(shaped > 0))
    assert found["objects_per_image"] == (
        {"least": split.objects, "median": split.objects, "most": split.objects} if split.images else None
    )


def test_ids_may_be_sparse_unsorted_and_in_any_order_of_the_file() -> None:
    names = {id_: f"class {id_}" for id_ in range(160, 0, -2)}
    coco = coco_of([(40, 60), (60, 40)], [(1, 160, (0, 0, 40, 60)), (0, 2, (0, 0, 6, 4))], names)
    coco["images"].reverse()
    split = describe_split(coco)
    assert split.label_map.category_ids == tuple(range(2, 161, 2))
    assert split.objects_per_class.tolist() == [1, *[0] * 78, 1]
    assert split.relative_sizes == pytest.approx([1, 0.1])
    assert split.image_sizes_px[split.image_indices].tolist() == [[60, 40], [40, 60]]


def test_areas_of_the_file_stay_where_they_are_and_the_box_stands_in_for_others() -> None:
    coco = coco_of([(100, 100)], [(0, 3, (0, 0, 10, 10)), (0, 3, (0, 0, 10, 20)), (0, 3, (0, 0, 10, 30))])
    coco["annotations"][0]["area"] = 0
    coco["annotations"][1]["area"] = None
    assert describe_split(coco).areas_px.tolist() == [0, 200, 300]


def test_the_labels_are_those_of_the_label_map(small: dict) -> None:
    assert describe_split(small).label_map == LabelMap.from_coco(small)
