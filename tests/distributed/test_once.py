"""Annotations and images are read by one process of a machine, and what it found, errors too, is all processes'."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.distributed.test_two_processes import launch
from tests.fixtures import write_coco_folder


def read(folder: Path) -> list[dict]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_the_second_process_gets_what_the_first_one_read(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "data")
    launch(2, "-m", "tests.distributed.once", str(tmp_path), str(root))
    first, second = read(tmp_path)
    assert Counter(first["seen"]) == {"read_coco": 2, "read_image": 6, "decode_cell": 4}
    assert second["seen"] == []
    assert first["got"] == second["got"]
    assert first["got"][3] > 0


def test_an_error_of_the_first_process_ends_all_of_them(tmp_path: Path) -> None:
    root = write_coco_folder(tmp_path / "data")
    (root / "train2017" / "01_000.jpg").unlink()
    with pytest.raises(AssertionError):
        launch(2, "-m", "tests.distributed.once", str(tmp_path), str(root))
    first, second = read(tmp_path)
    assert first["got"] == second["got"]
    assert "missing-image" in first["got"][0]
    assert second["seen"] == []
