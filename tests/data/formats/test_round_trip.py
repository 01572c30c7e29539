"""One drawn data set in every format comes back with its boxes, classes, splits and sizes."""

import gc
from pathlib import Path
from typing import Any, get_args

import pytest

from hf_detr_ft.cli import main
from hf_detr_ft.data import split_source
from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.find_data import find_data
from hf_detr_ft.data.formats.find_format import FINDERS, READERS, read_layout
from hf_detr_ft.data.split_source import load_source
from hf_detr_ft.recipe.sections import DataConfig, Format
from hf_detr_ft.runs.convert import convert
from tests.data.formats.writers import CLASSES, DRAWN, WRITERS, read_back
from tests.fixtures import as_flags, tiny_detr

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_drawn_comes_back(name: str, tmp_path: Path) -> None:
    write, format = WRITERS[name]
    write(tmp_path / "data")
    config = DataConfig(root=str(tmp_path / "data"))
    assert find_data(config).format == format
    assert set(find_data(config).splits) == set(DRAWN)
    hold_drawn(config, format)


def hold_drawn(config: DataConfig, format: str, exact: bool = False) -> None:
    """Holds what is read to what was drawn."""
    sources = {split: load_source(config, split) for split in DRAWN}
    back = read_back({split: source.coco for split, source in sources.items()})
    for split, images in DRAWN.items():
        assert list(back[split]) == sorted(images)
        for file_name, (width, height, boxes) in images.items():
            found = back[split][file_name]
            assert found[:2] == (width, height)
            assert [box[0] for box in found[2]] == [box[0] for box in boxes]
            for box, expected in zip(found[2], boxes, strict=True):
                assert box[1:] == pytest.approx(expected[1:], abs=1e-6 if exact else 1e-3)
        coco, images_dir = sources[split].coco, sources[split].images_dir
        assert [category["name"] for category in coco["categories"]] == CLASSES
        assert images_dir is not None
        problems = check_coco(coco, sources[split].annotations, images_dir)
        assert [p.kind for p in problems if p.severity == "error"] == []
        assert not format or f"found {format}: " in sources[split].notes[0]


def test_every_writer_writes_the_same_classes() -> None:
    assert {box[0] for images in DRAWN.values() for _, _, boxes in images.values() for box in boxes} == set(CLASSES)


@pytest.mark.parametrize("form", ["xywh", "xyxy", "cxcywh"])
def test_parquet_says_what_its_boxes_are_or_they_are_found_out(form: str, tmp_path: Path) -> None:
    WRITERS["parquet"][0](tmp_path / "data", form)  # type: ignore[call-arg]
    hold_drawn(DataConfig(root=str(tmp_path / "data")), "parquet")


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("name", ["coco", "labelme", "webdataset"])
def test_what_was_converted_comes_back(name: str, to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write, format = WRITERS[name]
    write(tmp_path / "data")
    assert convert(None, tmp_path / "data", tmp_path / "new", to=to) == 0
    hold_drawn(DataConfig(root=str(tmp_path / "new")), to, exact=True)
    out = capsys.readouterr().out
    assert out.startswith(f"found {format}: ")
    assert f"{tmp_path / 'new'} train: 4 images, 6 objects (cone 3, mug 3)" in out


@pytest.mark.parametrize("name", ["yolo", "voc_beside", "via_1", "csv"])
def test_files_of_another_format_can_be_named(name: str, tmp_path: Path) -> None:
    WRITERS[name][0](tmp_path)
    train, images = {
        "yolo": ("data.yaml", "images/train"),
        "voc_beside": ("train", "train"),
        "via_1": ("train/via_region_data.json", "train"),
        "csv": ("train/_annotations.csv", "train"),
    }[name]
    val = {"val_annotations": train.replace("train", "val"), "val_images": images.replace("train", "val")}
    format: Any = WRITERS[name][1]
    hold_drawn(DataConfig(root=str(tmp_path), format=format, train_annotations=train, train_images=images, **val), "")


def test_every_format_of_the_recipe_has_a_finder() -> None:
    assert {*FINDERS} == {*get_args(Format)} == {"coco", *READERS}


def test_all_splits_are_read_once_and_anew_when_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def read(*arguments: Any) -> Any:
        reads.append(arguments)
        return read_layout(*arguments)

    monkeypatch.setattr(split_source, "read_layout", read)
    WRITERS["yolo"][0](tmp_path)
    config = DataConfig(root=str(tmp_path))
    train = load_source(config, "train")
    load_source(config, "val")
    assert len(reads) == 1
    (tmp_path / "labels/val/e.txt").write_text("")
    assert len(load_source(config, "val").coco["annotations"]) == 1
    assert len(reads) == 2
    del train
    gc.collect()
    load_source(config, "train")
    assert len(reads) == 3, "nothing is kept that nobody uses"


def test_a_folder_alone_is_trained_on_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    WRITERS["yolo"][0](tmp_path / "data")
    tiny_detr(("other", "names")).save_pretrained(tmp_path / "model")
    training = {"output_dir": tmp_path / "run", "max_steps": 1, "use_cpu": "true", "bf16": "false"}
    flags = {"data.root": tmp_path / "data", "model.checkpoint": tmp_path / "model", "model.square_edge": 64}
    flags |= {"report.enabled": "false", **{f"training.{name}": value for name, value in training.items()}}
    assert main(["train", *as_flags(flags)]) == 0
    out = capsys.readouterr().out
    assert "found yolo: data.yaml names its classes and folders (train in " in out
    assert "classes (2): cone, mug" in out
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "2 images, 2 objects" in capsys.readouterr().out
