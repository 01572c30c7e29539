"""One drawn data set in every format comes back with its boxes, classes, splits and sizes."""

from pathlib import Path

import pytest

from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.find_data import find_data
from hf_detr_ft.data.split_source import load_source
from hf_detr_ft.recipe.sections import DataConfig
from tests.data.formats.writers import CLASSES, DRAWN, WRITERS, read_back


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_drawn_comes_back(name: str, tmp_path: Path) -> None:
    write, format = WRITERS[name]
    write(tmp_path)
    config = DataConfig(root=str(tmp_path))
    assert find_data(config).format == format
    sources = {split: load_source(config, split) for split in DRAWN}
    back = read_back({split: source.coco for split, source in sources.items()})
    for split, images in DRAWN.items():
        assert list(back[split]) == sorted(images)
        for file_name, (width, height, boxes) in images.items():
            found = back[split][file_name]
            assert found[:2] == (width, height)
            assert [box[0] for box in found[2]] == [box[0] for box in boxes]
            for box, expected in zip(found[2], boxes, strict=True):
                assert box[1:] == pytest.approx(expected[1:], abs=0.5 if name != "yolo" else 1e-3)
        coco, images_dir = sources[split].coco, sources[split].images_dir
        assert [category["name"] for category in coco["categories"]] == CLASSES
        assert images_dir is not None
        problems = check_coco(coco, sources[split].annotations, images_dir)
        assert [p.kind for p in problems if p.severity == "error"] == []
        assert f"found {format}: " in sources[split].notes[0]


def test_every_writer_writes_the_same_classes() -> None:
    assert {box[0] for images in DRAWN.values() for _, _, boxes in images.values() for box in boxes} == set(CLASSES)
