"""Errors of a job in several processes: one message, whoever has it, and no process that waits for ever."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of what each job of `tests.distributed.forked` printed."""
    folder = tmp_path_factory.mktemp("jobs")
    subprocess.run([sys.executable, "-m", "tests.distributed.forked", str(folder)], cwd=REPOSITORY, check=True)
    return folder


@pytest.mark.parametrize(
    ("job", "statuses", "said"),
    [
        ("all_alike", ["2"], "error: no such recipe"),
        ("with_words", ["1"], "error: not finite for a.jpg"),
        ("with_a_bug", ["1"], "KeyError: 'a bug'"),
        ("killed", ["-9", "1"], "error: another process of this job is gone"),  # the launcher may see either first
    ],
)
def test_one_process_says_what_ends_all(jobs: Path, job: str, statuses: list[str], said: str) -> None:
    lines = (jobs / job).read_text().splitlines()
    assert lines[-1].removeprefix("status ") in statuses
    found = [line for line in lines if "rror: " in line]
    assert len(found) == 1 and found[0].startswith(said), found


def test_one_of_three_processes_works_for_all(jobs: Path) -> None:
    assert sorted((jobs / "once").read_text().splitlines()) == [
        "0 got 7",
        "1 got 7",
        "2 got 7",
        "made by 0",
        "status 0",
    ]
