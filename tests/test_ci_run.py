"""`.ci/run` where the balloon photos are and where they are not, with a `make` that only says what it was given."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / ".ci" / "run"
MAKE = '#!/bin/sh\necho "photos=${HF_DETR_FT_BALLOON-none} $*"\nexit "${MAKE_STATUS:-0}"\n'
BESIDE = Path("shared", "balloon")


def ci_run(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a copy of it in `folder/checkout`."""
    script, make = folder / "checkout" / ".ci" / "run", folder / "bin" / "make"
    for path in (script, make):
        path.parent.mkdir(parents=True)
    shutil.copy(RUN, script)
    make.write_text(MAKE)
    make.chmod(0o755)
    environment = {"PATH": f"{make.parent}:{os.environ['PATH']}", **settings}
    return subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("settings", [{}, {"CI": "true"}, {"CI": "true", "HF_DETR_FT_REQUIRE_BALLOON": "0"}])
def test_photos_beside_the_checkout_are_used(tmp_path: Path, settings: dict[str, str]) -> None:
    (tmp_path / BESIDE).mkdir(parents=True)
    ended = ci_run(tmp_path, **settings)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"photos={tmp_path / BESIDE} check PYTEST_ARGS=-rs")


@pytest.mark.parametrize("settings", [{}, {"CI": "true", "HF_DETR_FT_REQUIRE_BALLOON": "0"}, {"MAKE_STATUS": "3"}])
def test_without_photos_it_goes_on_and_says_so_first_and_last(tmp_path: Path, settings: dict[str, str]) -> None:
    ended = ci_run(tmp_path, **settings)
    assert ended.returncode == int(settings.get("MAKE_STATUS", "0"))
    assert ended.stdout.startswith("photos=none check")
    notes = ended.stderr.splitlines()
    assert len(notes) == 2 and notes[0] == notes[1]
    assert str(tmp_path / BESIDE) in notes[0] and "SKIPPED" in notes[0]


@pytest.mark.parametrize(
    "settings", [{"CI": "true"}, {"HF_DETR_FT_REQUIRE_BALLOON": "1"}, {"HF_DETR_FT_BALLOON": "/nowhere/balloon"}]
)
def test_photos_that_are_asked_for_have_to_be_there(tmp_path: Path, settings: dict[str, str]) -> None:
    ended = ci_run(tmp_path, **settings)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"error: there is no folder {settings.get('HF_DETR_FT_BALLOON', tmp_path / BESIDE)}" in ended.stderr
