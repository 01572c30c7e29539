"""Detections as a file: bit for bit, the same bytes for the same detections, nothing that could run code."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.detections import Detections


def test_a_file_gives_the_same_bits_back() -> None:
    rng = np.random.default_rng(0)
    boxes = rng.normal(0, 300, (50, 4))
    found = Detections(rng.integers(0, 2**40, 50), rng.integers(0, 90, 50), rng.random(50), boxes)
    back = Detections.from_npz(found.to_npz())
    for name in ("image_id", "category_id", "score", "boxes_xywh_px"):
        assert getattr(back, name).tobytes() == getattr(found, name).tobytes(), name
    assert back.to_npz() == found.to_npz()
    assert len(Detections.from_npz(Detections.empty().to_npz())) == 0


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_in_it_is_not_opened(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, image_id=np.array([Bomb(tmp_path / "ran")]), category_id=[1], score=[0.5], boxes_xywh_px=[[0] * 4])
    with pytest.raises(DataError):
        Detections.from_npz(stream.getvalue())
    assert not (tmp_path / "ran").exists()


def test_other_files_are_refused() -> None:
    whole = Detections.empty().to_npz()
    other = io.BytesIO()
    np.savez(other, image_id=np.zeros(1))
    for content in (b"", b"PK", whole[: len(whole) // 2], other.getvalue()):
        with pytest.raises(DataError, match="image_id, category_id, score, boxes_xywh_px"):
            Detections.from_npz(content)
