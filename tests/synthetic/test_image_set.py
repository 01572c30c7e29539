"""Photos as a data set has them: the same from any number of processes, numbered and named by their indices."""

import multiprocessing

import pytest

from hf_detr_ft.errors import DataError
from hf_detr_ft.synthetic.image_set import (
    ImageSetConfig,
    build_coco,
    draw_image,
    draw_images,
    find_faults,
    split_indices,
)
from hf_detr_ft.synthetic.render import VALIDATION_START

SERIES = ImageSetConfig(("balloon", "star"), seed=4, short_side=(48, 64))
RIGHT = {"images": 3, "val_images": 2, "classes": None, "seed": 0, "short_side": (32, 32)}


def test_any_number_of_processes_draws_the_same_in_the_same_order() -> None:
    indices = range(5, 25)  # three chunks, the last of them short
    with draw_images(indices, SERIES, 1) as photos:
        alone = list(photos)
    with draw_images(indices, SERIES, 2) as photos:
        assert list(photos) == alone
    assert alone[3] == draw_image(8, SERIES)
    assert [photo.image["file_name"] for photo in alone] == [f"{index:012d}.jpg" for index in indices]


def test_few_photos_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*args: object) -> None:
        raise AssertionError("started")

    monkeypatch.setattr(multiprocessing, "get_context", start)
    with draw_images(range(8), SERIES, 2) as photos:
        assert len(list(photos)) == 8
    with pytest.raises(AssertionError, match="started"), draw_images(range(9), SERIES, 2):
        pass


def test_a_process_that_is_killed_is_reported() -> None:
    before = set(multiprocessing.active_children())

    def draw_and_kill() -> None:
        with draw_images(range(4000), SERIES, 2) as photos:
            next(photos)
            for process in set(multiprocessing.active_children()) - before:
                process.kill()
            list(photos)

    with pytest.raises(DataError, match="a process that draws them was killed"):
        draw_and_kill()
    assert set(multiprocessing.active_children()) <= before


def test_objects_are_numbered_through_all_photos() -> None:
    with draw_images(range(6), SERIES, 1) as photos:
        entries = [(photo.image, photo.annotations) for photo in photos]
    coco = build_coco(entries, SERIES.classes)
    assert [image["id"] for image in coco["images"]] == list(range(6))
    assert [entry["id"] for entry in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    assert [entry["image_id"] for entry in coco["annotations"]] == [
        image["id"] for image, objects in entries for _ in objects
    ]
    assert coco["categories"] == [{"id": 1, "name": "balloon"}, {"id": 2, "name": "star"}]
    assert coco == build_coco(entries, SERIES.classes), "the entries were changed"


def test_no_photo_is_in_both_splits() -> None:
    assert split_indices(3, 2) == {"train": range(3), "val": range(VALIDATION_START, VALIDATION_START + 2)}
    most = split_indices(VALIDATION_START, 1)
    assert most["train"].stop <= most["val"].start


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"images": 0}, "expected at least 1, found 0"),
        ({"images": VALIDATION_START + 1}, "expected at most 1000000000, where validation begins, found 1000000001"),
        ({"val_images": -1}, "expected at least 1, found -1"),
        ({"seed": -1}, "expected at least 0, found -1"),
        ({"short_side": (64, 63)}, "expected least and largest, 32 pixels or more, found 64 63"),
        ({"short_side": (31, 63)}, "expected least and largest, 32 pixels or more, found 31 63"),
        ({"short_side": (64,)}, "expected least and largest, 32 pixels or more, found 64"),
        ({"classes": ["star", "dog", "Star"]}, "found 'dog', 'Star'"),
        ({"classes": []}, "found none"),
    ],
)
def test_a_wrong_argument_is_named(wrong: dict, fault: str) -> None:
    faults = find_faults(**{**RIGHT, **wrong})
    assert faults.keys() == wrong.keys()
    assert faults[next(iter(wrong))].endswith(fault)


def test_right_arguments_have_no_faults() -> None:
    assert find_faults(**RIGHT) == {}
    assert find_faults(**{**RIGHT, "images": VALIDATION_START, "classes": ["star"]}) == {}
