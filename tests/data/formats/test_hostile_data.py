"""Broken and hostile data sets of all formats: each is refused in words, and nothing is written beside them."""

import re
import tarfile
from pathlib import Path

import pytest

from hf_detr_ft import cli
from hf_detr_ft.data.split_source import load_source
from hf_detr_ft.errors import DataError
from hf_detr_ft.formatting import printable_lines
from hf_detr_ft.recipe.sections import DataConfig
from tests.data.formats.hostile_cases import CASES, PIXEL, REGULAR, SYMLINK, Case, shard
from tests.data.formats.writers import WRITERS

pytestmark = pytest.mark.usefixtures("cache_folder")


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused(case: Case, tmp_path: Path) -> None:
    root = tmp_path / "data"
    WRITERS[case.base][0](root)
    case.damage(root)
    before = listing(tmp_path)
    with pytest.raises(DataError, match=case.words) as caught:
        load_source(DataConfig(root=str(root)), "train")
    assert len(str(caught.value)) < 20_000
    printable_lines(caught.value).encode()
    assert [name for name in listing(tmp_path) if not name.startswith("cache")] == before


def test_there_are_enough_and_each_has_a_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60
    assert {case.base for case in CASES} >= {"yolo", "voc", "via_1", "labelme", "createml", "openimages", "csv"}
    assert {case.base for case in CASES} >= {"imagefolder", "parquet", "webdataset"}


def test_members_of_a_shard_are_written_nowhere_but_into_the_cache(tmp_path: Path, cache_folder: Path) -> None:
    root, evil = tmp_path / "data", f"{tmp_path}/evil"
    WRITERS["webdataset"][0](root)
    label = b'[{"bbox": [0, 0, 2, 2], "category": "mug"}]'
    shard(
        [
            ("../../evil.png", REGULAR, PIXEL),
            ("../../evil.json", REGULAR, label),
            (f"{evil}.png", REGULAR, PIXEL),
            (f"{evil}.json", REGULAR, label),
            ("device.png", tarfile.CHRTYPE, b""),
            ("link.json", SYMLINK, b""),
        ]
    )(root)
    before = {name for name in listing(tmp_path) if not name.startswith("cache")}
    source = load_source(DataConfig(root=str(root)), "train")
    assert [image["file_name"] for image in source.coco["images"]] == ["000000_evil.png", "000001_evil.png"]
    assert source.images_dir is not None and source.images_dir.is_relative_to(cache_folder)
    assert {name for name in listing(tmp_path) if not name.startswith("cache")} == before


def test_control_codes_in_names_are_shown_escaped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    WRITERS["csv"][0](tmp_path / "data")
    table = tmp_path / "data/train/_annotations.csv"
    table.write_text(table.read_text().replace("mug", "\x1b]0;owned\x07mug").replace("a.png", "\x1b[2Ja.png"))
    assert cli.main(["convert", str(tmp_path / "data"), str(tmp_path / "new")]) == 1
    err = capfd.readouterr().err
    assert r"\x1b[2Ja.png" in err and not re.search("[\x07\x1b]", err)
    table.write_text(table.read_text().replace("\x1b[2Ja.png", "a.png"))
    assert cli.main(["convert", str(tmp_path / "data"), str(tmp_path / "new")]) == 0
    out = capfd.readouterr().out
    assert r"\x1b]0;owned\x07mug 3" in out and not re.search("[\x07\x1b]", out)
