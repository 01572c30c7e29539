"""`get balloon FOLDER` and `get synthetic FOLDER`: what they print; what they write is tested with the data."""

from pathlib import Path

import pytest

from hf_detr_ft.cli import main
from hf_detr_ft.data.formats import balloon_archive
from tests.data.test_balloon_archive import assert_whole, release, zipped


def test_balloon_is_downloaded_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(balloon_archive, "download", lambda url: (asked.append(url), zipped(release()))[1])
    root = tmp_path / "sets" / "balloon"
    assert main(["get", "balloon", str(root)]) == 0
    out = capsys.readouterr().out
    assert f"{root} train: 2 images, 2 objects (balloon 2); 2 small, 0 medium, 0 large" in out
    assert f"--data.root {root}" in out
    monkeypatch.chdir(root.parent)
    assert main(["get", "balloon", "balloon/../balloon"]) == 0
    assert capsys.readouterr().out == f"{root}: complete already, nothing was downloaded\n"
    assert asked == [balloon_archive.URL]
    assert_whole(root)


def test_balloon_takes_no_folder_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["get", "balloon", str(tmp_path)]) == 1
    assert "is not this data set; give a new or empty folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_synthetic_says_what_it_drew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--images", "2", "--val-images", "1", "--classes", "balloon", "--short-side", "64", "64", "--workers", "1"]
    assert main(["get", "synthetic", str(tmp_path / "drawn"), *flags]) == 0
    train, val = capsys.readouterr().out.splitlines()
    assert train.startswith(f"{tmp_path / 'drawn'} train: 2 images, ")
    assert val.startswith(f"{tmp_path / 'drawn'} val: 1 images, ")
