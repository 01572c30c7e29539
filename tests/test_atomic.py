"""Files written beside, what killed processes leave of them, locks of folders, and ways through links."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hf_detr_ft import atomic
from hf_detr_ft.atomic import follow_links, lock_folder, remove, sweep_leftovers, write_files_beside

HOLD = """
import os, sys, time
from pathlib import Path
from hf_detr_ft.atomic import lock_folder
with lock_folder(Path(sys.argv[1])) as owner:
    child = os.fork() if "fork" in sys.argv else 1
    if child:
        print(owner or "held", child, flush=True)
    time.sleep(100)
"""


@contextmanager
def holder(lock: Path, *more: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """A process that has a folder, and its child's number."""
    command = [sys.executable, "-c", HOLD, str(lock), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        word, child = process.stdout.readline().split()
        assert word == "held"
        try:
            yield process, int(child)
        finally:
            process.kill()


def test_a_lock_names_its_process_and_goes_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "run" / "run.lock"
    with holder(lock) as (process, _):
        with lock_folder(lock) as owner:
            assert owner.startswith(f"process {process.pid} of {socket.gethostname()}, there since 2")
        assert lock.exists(), "it is not ours to remove"
        process.kill()
        process.wait()
        assert str(process.pid) in lock.read_text(), "nobody removed it"
        with lock_folder(lock) as owner:
            assert owner == ""
            assert str(os.getpid()) in lock.read_text()
    assert not lock.exists()


def test_a_lock_is_not_inherited_by_processes_that_read_images(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    with holder(lock, "fork") as (process, child):
        process.kill()
        process.wait()
        os.kill(child, 0)
        try:
            with lock_folder(lock) as owner:
                assert owner == ""
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    ("process", "host", "taken"),
    [
        (os.getppid(), socket.gethostname(), True),
        (2**22 + 1, socket.gethostname(), False),
        (2**22 + 1, "another-host", True),
    ],
)
def test_without_locks_of_the_system_the_file_says_who_is_there(
    process: int, host: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "run.lock"
    lock.write_text(f'{{"process": {process}, "host": "{host}", "since": "yesterday"}}')
    monkeypatch.setattr(atomic, "fcntl", None)
    with lock_folder(lock) as owner:
        assert owner == (f"process {process} of {host}, there since yesterday," if taken else "")
    assert lock.exists() is taken


def test_a_folder_that_was_made_for_a_lock_goes_where_nothing_came_into_it(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "runs" / "a" / "run.lock"):
        assert (tmp_path / "runs" / "a" / "run.lock").exists()
    assert list(tmp_path.iterdir()) == []
    with lock_folder(tmp_path / "runs" / "a" / "run.lock"):
        (tmp_path / "runs" / "a" / "metrics.json").touch()
    assert [path.name for path in (tmp_path / "runs" / "a").iterdir()] == ["metrics.json"]


def test_leftovers_of_dead_processes_are_swept_and_nothing_else(tmp_path: Path) -> None:
    dead, alive = 2**22 + 1, os.getppid()
    gone = [f".metrics.json.{dead}.tmp", f".{dead}.tmp", f".report.html.{os.getpid()}.tmp"]
    stays = [f".metrics.json.{alive}.tmp", f".{alive}.tmp", ".notes.tmp", "metrics.json", f"a.{dead}.tmp"]
    for name in (*gone, *stays):
        (tmp_path / name).write_text("half")
    (tmp_path / gone[1]).unlink()
    (tmp_path / gone[1]).mkdir()
    (tmp_path / gone[1] / "model.safetensors").touch()
    sweep_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(stays)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_get_the_mode_that_the_umask_says(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with write_files_beside(tmp_path) as beside:
            beside.mkdir()
            (beside / "model.safetensors").touch(mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == mode


def test_a_link_is_removed_and_not_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "plots").symlink_to("photos")
    remove(tmp_path / "plots")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    remove(tmp_path / "photos")
    remove(tmp_path / "photos")
    assert list(tmp_path.iterdir()) == []


def test_every_place_on_the_way_through_links_is_found(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plots").symlink_to("../disk")
    (tmp_path / "photos").symlink_to(tmp_path / "run" / "plots")
    ways = [str(place.relative_to(tmp_path)) for place in follow_links(tmp_path / "photos" / "a.jpg")]
    assert list(dict.fromkeys(ways)) == ["photos/a.jpg", "run/plots/a.jpg", "disk/a.jpg"]
    (tmp_path / "circle").symlink_to("circle")
    assert str(next(follow_links(tmp_path / "circle"))) == str(tmp_path / "circle")
    assert len(list(follow_links(tmp_path / "circle"))) < 50
