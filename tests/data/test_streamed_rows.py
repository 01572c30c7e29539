"""Images in shards: found, measured, and read by several processes and workers, each once."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_detr_ft.data import streamed_rows
from hf_detr_ft.data.collate import collate
from hf_detr_ft.data.find_data import require_annotations
from hf_detr_ft.data.formats import parquet_rows, unpacked
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.splits import Splits, load_sources, load_splits
from hf_detr_ft.data.streamed_rows import StreamedRows
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import DataConfig
from tests.fixtures import tiny_processor
from tests.streamed import write_parquet, write_tars

WRITERS = (write_parquet, write_tars)


def split(root: Path, **settings: object) -> Splits:
    return load_splits(DataConfig(root=str(root), streaming=True, **settings), ImageSize(64, 107))


def image_ids(stream: StreamedRows, workers: int = 0) -> list[list[int]]:
    """Ids of each batch; 0 of what fills it up."""
    loader = DataLoader(stream, stream.batch_size, collate_fn=collate, num_workers=workers)
    return [[int(target["image_id"]) for target in batch["labels"]] for batch in loader]


@pytest.mark.parametrize("write", WRITERS)
def test_a_streamed_split_is_what_is_read_locally(
    write: Callable[..., Path], tmp_path: Path, cache_folder: Path
) -> None:
    root = write(tmp_path / "data")
    local = load_splits(DataConfig(root=str(root)))
    streamed = split(root)
    assert streamed.label_map == local.label_map
    assert streamed.truth == local.truth
    assert streamed.statistics["training"].as_dict() == local.statistics["training"].as_dict()
    transform = DetrTransform(tiny_processor())
    stream = StreamedRows(streamed.train, streamed.pieces, transform, batch_size=2, order="sequential")
    rows = transformed(local.train, transform)
    assert len(stream) == len(rows) == 16
    for found, row in zip(stream, rows, strict=True):
        assert torch.equal(found["pixel_values"], row["pixel_values"])
        assert all(torch.equal(value, row["labels"][name]) for name, value in found["labels"].items())
    files = [path.name for path in cache_folder.rglob("*") if path.suffix == ".png"]
    assert sum("train" in name for name in files) == 16 * (write is write_parquet), "of local reading alone"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("shards") / "data", train=25)


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (2, 1), (3, 0), (2, 3)])
def test_each_image_comes_once_and_all_processes_have_as_many_batches(
    shards: Path, cache_folder: Path, processes: int, workers: int
) -> None:
    found, orders = split(shards), []
    for epoch in range(2):
        transform = DetrTransform(tiny_processor())
        streams = [
            StreamedRows(found.train, found.pieces, transform, batch_size=2, process=(rank, processes), workers=workers)
            for rank in range(processes)
        ]
        for stream in streams:
            stream.begin_epoch(epoch)
        batches = [image_ids(stream, workers if rank == 0 else 0) for rank, stream in enumerate(streams)]
        if workers > 1:  # which of the other processes were not started
            batches[1:] = [image_ids(stream, workers) for stream in streams[1:]]
        assert {len(of_a_process) for of_a_process in batches} == {streams[0].batches}
        orders.append([image for of_a_process in batches for batch in of_a_process for image in batch if image])
        assert sorted(orders[-1]) == list(range(1, 26))
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


def test_the_order_of_the_shards_is_that_of_each_epoch(
    shards: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed_rows, "PIECES", 1)
    found, transform = split(shards), DetrTransform(tiny_processor())
    stream = StreamedRows(found.train, found.pieces, transform, batch_size=2, order="sequential")
    stream.begin_epoch(1)
    assert [image for batch in image_ids(stream) for image in batch if image] == list(range(1, 26))


def test_images_of_a_batch_have_like_shapes_where_that_is_asked_for(shards: Path, cache_folder: Path) -> None:
    found, transform = split(shards), DetrTransform(tiny_processor(64, 107))
    arguments = (found.train, found.pieces, transform)
    ratios = dict(zip(found.train["image_id"], np.round(found.train["aspect_ratio"], 2), strict=True))
    mixed = {}
    for order in ("random", "group_by_length"):
        batches = image_ids(StreamedRows(*arguments, batch_size=2, order=order))
        mixed[order] = sum(len({ratios[image] for image in batch if image}) > 1 for batch in batches)
    assert mixed["group_by_length"] <= 2 < mixed["random"]


def test_what_an_earlier_run_has_had_is_not_decoded(shards: Path, cache_folder: Path) -> None:
    found, transform = split(shards), DetrTransform(tiny_processor())
    stream = StreamedRows(found.train, found.pieces, transform, batch_size=4, workers=2)
    whole = image_ids(stream, 2)
    stream.begin_epoch(0, passed=3)
    assert image_ids(stream, 2) == [[0] * 4] * 3 + whole[3:]


def test_fewer_row_groups_than_readers_are_said_with_the_remedy(
    tmp_path: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = split(write_parquet(tmp_path / "data", train=4))
    arguments = (found.train, found.pieces, DetrTransform(tiny_processor()))
    with caplog.at_level(logging.WARNING):
        StreamedRows(*arguments, batch_size=2, process=(0, 2), workers=1)
        assert not caplog.text
        StreamedRows(*arguments, batch_size=2, process=(1, 2), workers=2)
        assert not caplog.text, "the first process says it"
        StreamedRows(*arguments, batch_size=2, process=(0, 2), workers=2)
    assert "lie in 2 row groups or archives, which 4 processes and workers read" in caplog.text
    assert "lower training.dataloader_num_workers" in caplog.text


def test_sizes_that_no_column_states_are_read_once(tmp_path: Path, cache_folder: Path) -> None:
    root = write_parquet(tmp_path / "data", sizes=False)
    config = DataConfig(root=str(root), streaming=True)
    with patch.object(unpacked, "upright_size", wraps=unpacked.upright_size) as read:
        first = load_sources(config)["train"].coco["images"]
        assert read.call_count == 16 + 3
        second = load_sources(config)["train"].coco["images"]
        assert read.call_count == 16 + 3
    assert first == second
    assert [(image["height"], image["width"]) for image in first[:3]] == [(96, 128), (128, 96), (96, 96)]
    with patch.object(unpacked, "upright_size", wraps=unpacked.upright_size) as read:
        load_sources(DataConfig(root=str(write_parquet(tmp_path / "stated")), streaming=True))
        assert not read.call_count
    assert not list(cache_folder.rglob("*train*.png"))


def test_a_validation_split_is_made_of_a_stream(tmp_path: Path, cache_folder: Path) -> None:
    root = write_parquet(tmp_path / "data", val=0)
    found = split(root, val_share=0.25)
    trained = [
        image
        for batch in image_ids(StreamedRows(found.train, found.pieces, DetrTransform(tiny_processor()), batch_size=3))
        for image in batch
        if image
    ]
    measured = [image["id"] for image in found.truth["images"]]
    assert len(measured) == 4
    assert Counter([*trained, *measured]) == Counter(range(1, 17))
    assert all(Path(image["path"]).is_file() for image in found.val["image"])
    assert "training images are streamed from 2 files" in "\n".join(found.notes)


def test_a_folder_without_shards_is_refused_with_what_can_be_streamed(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(
        DataError, match="expected Parquet files or tar shards to be streamed, found none among 1 files"
    ):
        split(tmp_path)


def test_shards_without_a_training_split_are_said(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data", train=0)
    with pytest.raises(DataError, match="expected shards of the split train, found others.*val in"):
        require_annotations("train", "val")(DataConfig(root=str(tmp_path / "data"), streaming=True))


def test_a_row_group_without_bytes_is_named(tmp_path: Path, cache_folder: Path) -> None:
    root = write_parquet(tmp_path / "data")
    found = split(root)
    stream = StreamedRows(found.train, found.pieces, DetrTransform(tiny_processor()), batch_size=2, order="sequential")
    with (
        patch.object(
            parquet_rows, "iterate_rows", lambda *_, **__: iter([{"image": {"bytes": None, "path": "a.png"}}])
        ),
        pytest.raises(DataError, match=r"train-00000.parquet, row group 0, row 0: expected the bytes of an image"),
    ):
        next(iter(stream))
