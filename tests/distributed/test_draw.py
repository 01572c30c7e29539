"""Photos that a recipe draws: each split by one process, and the same for all of them."""

import json
from pathlib import Path

from tests.distributed.test_invariance import launch


def test_two_processes_get_the_same_photos_each_drawn_once(tmp_path: Path) -> None:
    launch(2, "-m", "tests.distributed.draw", str(tmp_path))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["digests"] == second["digests"]
    assert first["fingerprints"] == second["fingerprints"]
    assert sorted(first["drawn"] + second["drawn"]) == [5, 20]
