"""The same file in two splits, with as little reading as that takes."""

from pathlib import Path

import pytest

from hf_detr_ft.data.checks import equal_images
from hf_detr_ft.data.checks.annotation_fields import Entry
from hf_detr_ft.data.checks.equal_images import PIECE, find_files, find_twins


def write(folder: Path, files: dict[str, bytes]) -> list[Entry]:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [
        Entry({"file_name": name}, place, lambda _, fields: fields["file_name"]) for place, name in enumerate(files)
    ]


def test_each_file_of_a_length_that_both_splits_have_is_read_once_and_few_of_them_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[str, list[str]] = {"digest_pieces": [], "digest_whole": []}
    for name, files in read.items():
        real = getattr(equal_images, name)
        monkeypatch.setattr(
            equal_images, name, lambda file, real=real, files=files: (files.append(Path(file.path).name), real(file))[1]
        )
    body = bytearray(10 * PIECE)
    other_inside = bytearray(body)
    other_inside[2 * PIECE] = 1  # between the pieces that are read first
    same_length = {f"{n}.bmp": bytes([n]) + bytes(10 * PIECE - 1) for n in range(1, 40)}
    train = write(
        tmp_path / "train", {**same_length, "a.bmp": bytes(body), "b.bmp": bytes(other_inside), "long": bytes(50_000)}
    )
    val = write(
        tmp_path / "val",
        {**{f"v{n}.bmp": bytes([n + 100]) + bytes(10 * PIECE - 1) for n in range(40)}, "c.bmp": bytes(body), "d": b"1"},
    )
    files = [list(find_files(images, tmp_path / split)) for split, images in (("train", train), ("val", val))]
    assert [(image.name, other.name) for image, other in find_twins(*files)] == [("c.bmp", "a.bmp")]
    assert sorted(read["digest_pieces"]) == sorted(
        [entry.name for entry in (*train, *val) if entry.name not in ("long", "d")]
    )
    assert sorted(read["digest_whole"]) == ["a.bmp", "b.bmp", "c.bmp"]


def test_one_file_under_two_names_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equal_images, "digest_pieces", lambda file: pytest.fail("read"))
    train, val = write(tmp_path / "train", {"a": b"1"}), write(tmp_path / "val", {})
    (tmp_path / "val" / "b").hardlink_to(tmp_path / "train" / "a")
    val = [train[0]._replace(fields={"file_name": "b"})]
    files = [list(find_files(images, tmp_path / split)) for split, images in (("train", train), ("val", val))]
    assert [(image.name, other.name) for image, other in find_twins(*files)] == [("b", "a")]


def test_a_file_that_has_gone_is_no_twin(tmp_path: Path) -> None:
    train, val = write(tmp_path / "train", {"a": b"1"}), write(tmp_path / "val", {"b": b"1"})
    files = [list(find_files(images, tmp_path / split)) for split, images in (("train", train), ("val", val))]
    (tmp_path / "train" / "a").unlink()
    (tmp_path / "val" / "b").unlink()
    assert find_twins(*files) == []
