"""Twenty planted problems: `check` finds each, `--fix` repairs them, and what it writes passes."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.repair import turn_box
from hf_detr_ft.data.repaired_copy import write_repaired
from hf_detr_ft.data.splits import check_data
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import DataConfig
from tests.data.planted import PLANTED, write_planted

SIZE = ImageSize(96, 128)
BY_NATURE = {"small-validation"}
"""So small a set cannot measure 2 points of AP."""


def kinds(root: Path) -> Counter[str]:
    _, problems = check_data(DataConfig(root=str(root)), SIZE, decode=True, stride=1)
    return Counter(problem.kind for problem in problems)


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    assert set(kinds(write_planted(tmp_path, planted=False))) == BY_NATURE


def test_all_twenty_are_found_and_nothing_else(tmp_path: Path) -> None:
    found = kinds(write_planted(tmp_path))
    assert len(PLANTED) == 20
    assert set(found) - BY_NATURE == PLANTED
    assert {kind: count for kind, count in found.items() if count > 1} == {"category-alike": 2}


def test_a_repaired_copy_passes_and_the_source_stays(tmp_path: Path) -> None:
    root, target = write_planted(tmp_path / "data"), tmp_path / "fixed"
    before = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    sources, _ = check_data(DataConfig(root=str(root)), SIZE, decode=True, stride=1)
    changes = write_repaired(sources, target, SIZE)
    assert set(kinds(target)) - BY_NATURE <= {"box-long"}, "which a person has to look at"
    assert {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()} == before
    assert json.loads((target / "changes.json").read_text()) == changes
    coco = json.loads((target / "annotations" / "custom_train.json").read_text())
    assert [category["name"] for category in coco["categories"]] == ["mug", "cone"]
    assert sum("segmentation" in entry for entry in coco["annotations"]) > 60, "outlines stay"
    assert not any(os.path.samefile(path, root / path.relative_to(target)) for path in target.rglob("*.jpg"))


def test_no_folder_that_is_there_is_written_into(tmp_path: Path) -> None:
    root = write_planted(tmp_path / "data", planted=False)
    sources, _ = check_data(DataConfig(root=str(root)), SIZE, decode=False)
    (tmp_path / "there").mkdir()
    for target in (tmp_path / "there", root):
        with pytest.raises(DataError, match="expected a folder that is not there yet"):
            write_repaired(sources, target, SIZE)
    for folder in ("train2017", "annotations"):
        with pytest.raises(DataError, match="expected a folder beside the data"):
            write_repaired(sources, root / folder / "fixed", SIZE)


def test_an_object_drawn_many_times_is_listed_once_for_each_but_the_first(tmp_path: Path) -> None:
    root = write_planted(tmp_path, planted=False)
    path = root / "annotations" / "custom_train.json"
    coco = json.loads(path.read_text())
    coco["annotations"] += [{**coco["annotations"][5], "id": 1000 + number} for number in range(7)]
    path.write_text(json.dumps(coco))
    assert kinds(root)["box-twice"] == 7


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_boxes_turn_as_the_photo_does(orientation: int) -> None:
    from PIL import Image

    from hf_detr_ft.data.images import UPRIGHT

    stored = Image.new("L", (40, 20))
    stored.paste(255, (5, 3, 17, 9))
    left, top, right, bottom = stored.transpose(UPRIGHT[orientation]).getbbox() or (0, 0, 0, 0)
    assert turn_box([5, 3, 12, 6], orientation, 40, 20) == [left, top, right - left, bottom - top]
