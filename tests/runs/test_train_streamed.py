"""Trainings whose images are streamed: as local reading, resumed, from the Hub, and what they refuse."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem

from hf_detr_ft.cli import main
from tests.hub.hub_server import HubServer
from tests.streamed import flags_of_training, train_recorded, write_parquet, write_tars

SEQUENTIAL = {"training__train_sampling_strategy": "sequential"}
EVERY_IMAGE = list(range(1, 17))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streamed")


@pytest.fixture(scope="module")
def root(folder: Path) -> Path:
    return write_parquet(folder / "data")


def in_epochs(steps: list[list[int]]) -> list[list[int]]:
    """Images of the first and of the second half of the steps."""
    half = len(steps) // 2
    return [[image for images in part for image in images] for part in (steps[:half], steps[half:])]


@pytest.mark.parametrize("write", [write_parquet, write_tars])
def test_a_stream_trains_as_local_reading_in_the_order_of_the_shards(folder: Path, write: Callable[..., Path]) -> None:
    """The last batch of an epoch has one image."""
    root = write(folder / write.__name__, train=15)
    losses, epochs = {}, {}
    for name in ("local", "streamed"):
        streaming = {"data__streaming": name == "streamed"}
        flags = flags_of_training(folder, root, folder / name, training__overwrite=True, **SEQUENTIAL, **streaming)
        steps, losses[name] = train_recorded(flags, folder / name)
        epochs[name] = in_epochs(steps)
    assert epochs["streamed"] == epochs["local"] == [EVERY_IMAGE[:-1], EVERY_IMAGE[:-1]]
    assert losses["streamed"] == losses["local"]
    assert len(losses["local"]) == 2 * 8


def test_a_stream_goes_on_within_an_epoch_with_the_images_that_were_left(
    folder: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = {"training__save_strategy": "steps", "training__save_steps": 5, "training__eval_strategy": "no"}
    saved["training__save_total_limit"] = "null"
    settings = {"data__streaming": True, "training__dataloader_num_workers": 2, **saved, "model__config": "{}"}
    whole, resumed = folder / "whole", folder / "resumed"
    steps, losses = train_recorded(flags_of_training(folder, root, whole, **settings), whole)
    assert [sorted(images) for images in in_epochs(steps)] == [EVERY_IMAGE, EVERY_IMAGE]
    shutil.copytree(whole, resumed)
    for step in (10, 15, 16):
        shutil.rmtree(resumed / f"checkpoint-{step}", ignore_errors=True)
    settings["training__resume_from_checkpoint"] = "last"
    other = {**settings, "training__dataloader_num_workers": 1}
    assert main(["train", *flags_of_training(folder, root, resumed, **other)]) == 1
    assert "read with {'processes': 1, 'workers': 2}, found {'processes': 1, 'workers': 1}" in capsys.readouterr().err
    found, found_losses = train_recorded(flags_of_training(folder, root, resumed, **settings), resumed)
    assert found == steps[5:]
    assert found_losses == losses, "dropout included"


@pytest.mark.parametrize("workers", [0, 2])
def test_training_images_of_the_hub_are_not_copied(
    workers: int, folder: Path, root: Path, hub: HubServer, cache_folder: Path, tmp_path: Path
) -> None:
    HfFileSystem.clear_instance_cache()
    files = {f"data/{path.name}": path.read_bytes() for path in (root / "data").iterdir()}
    hub.create("me/pets").commit("main", files, "shards")
    settings = {"data__streaming": True, "training__dataloader_num_workers": workers}
    flags = flags_of_training(folder, Path("hub"), tmp_path / "run", **settings)
    flags[flags.index("hub")] = "hf://datasets/me/pets"
    steps, losses = train_recorded(flags, tmp_path / "run")
    assert [sorted(images) for images in in_epochs(steps)] == [EVERY_IMAGE, EVERY_IMAGE]
    local = flags_of_training(folder, root, tmp_path / "local", **settings)
    assert train_recorded(local, tmp_path / "local") == (steps, losses)
    copied = {path.name for place in (cache_folder, tmp_path / "client") for path in place.rglob("*.p*")}
    assert {"000000_validation_0.png", "000002_validation_2.png"} <= copied
    assert not [name for name in copied if "train" in name or name.endswith(".parquet")]


def spoil(root: Path) -> Path:
    """Cuts off the fourth training image."""
    file = root / "data" / "train-00000.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[3]["image"]["bytes"] = rows[3]["image"]["bytes"][:200]
    pq.write_table(table.from_pylist(rows, schema=table.schema), file, row_group_size=2)
    return file


def test_a_broken_image_of_a_stream_is_named_or_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two workers one has a row less, and fills its last batch up."""
    root = write_parquet(tmp_path / "data", train=15)
    file = spoil(root)
    flags = flags_of_training(tmp_path, root, tmp_path / "run", data__streaming=True, training__num_train_epochs=1)
    assert main(["train", *flags]) == 1
    error = capsys.readouterr().err
    assert f"{file}: 000003_train_3.png: expected a whole image" in error and "on_bad_image skip" in error
    skipping = [*flags, "--data.on_bad_image", "skip", "--training.overwrite", "true"]
    steps, _ = train_recorded([*skipping, "--training.dataloader_num_workers", "2"], tmp_path / "run")
    assert sorted(image for images in steps for image in images) == [image for image in EVERY_IMAGE[:-1] if image != 4]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["skipped"] == {"training": [4]}


def test_check_reads_all_but_the_training_images_of_a_stream(
    folder: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = flags_of_training(folder, root, tmp_path / "run", data__streaming=True)
    assert main(["check", *flags, "--report", str(tmp_path / "check.html")]) == 0
    out = capsys.readouterr().out
    assert "training images are streamed from 2 files: no check reads them or looks for near-duplicates" in out
    assert "training: 16 images, 15 objects" in out
    page = (tmp_path / "check.html").read_text()
    assert "No training image is shown: they are streamed." in page and "cannot be shown" not in page


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("data.synthetic_images", "4"),
        ("data.balance", "0.5"),
        ("data.exif", "stored"),
        ("augment.mosaic", "0.5"),
        ("augment.copy_paste", "0.5"),
        ("training.dataloader_drop_last", "true"),
    ],
)
def test_what_needs_all_images_is_refused(
    root: Path, flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [] if flag == "data.synthetic_images" else ["--data.root", str(root)]
    assert main(["train", *data, "--data.streaming", "true", f"--{flag}", value]) == 2
    assert f"{flag}: expected none beside data.streaming" in capsys.readouterr().err


def test_benchmark_wants_images_at_hand(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {{root: {root}, streaming: true}}")
    assert main(["benchmark", str(recipe)]) == 2
    assert "data.streaming: expected images at hand" in capsys.readouterr().err
