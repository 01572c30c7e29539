"""Trainings that are ended by SIGKILL and SIGTERM end with the weights of one that nobody disturbed.

`scripts/kill_trainings.py --random 40 --each --random-terms 10` does it at every kind of moment.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_trainings.py"
MOMENTS = (
    "inside .checkpoint-N.tmp/checkpoint-N/optimizer.pt",
    "remove optimizer.pt",
    "inside .metrics.json.N.tmp",
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="trainings are forked off")
def test_killed_trainings_end_as_an_undisturbed_one() -> None:
    flags = ["--quick", "--random", "1", "--random-terms", "1", *(part for kind in MOMENTS for part in ("--at", kind))]
    ended = subprocess.run([sys.executable, str(SCRIPT), *flags], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("\nequal  ") == 5
    assert "5 trainings ended and gone on with, 0 of them not equal" in ended.stdout
