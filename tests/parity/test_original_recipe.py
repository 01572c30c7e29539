"""`recipes/original.yaml` augments and trains as the original, whose answers `python -m tests.parity` wrote down."""

import json
from pathlib import Path

import numpy as np

from tests.parity.original_augment import AUGMENT_ANSWERS, COUNT, Answer, ask_ours, box_difference, random_case
from tests.parity.original_training import STEP_ANSWERS, TESTED, moves, shown, train_ours, write_photos, write_start


def test_the_same_draws_give_the_originals_crops_and_boxes() -> None:
    answers = json.loads(AUGMENT_ANSWERS.read_text())
    assert len(answers) == COUNT
    whole = 0
    for number, (kept, boxes, size) in enumerate(answers):
        theirs = Answer(kept, np.array(boxes).reshape(-1, 4), tuple(size), [])
        mine = ask_ours(random_case(number), with_pixels=False)
        assert mine.kept == kept, number
        assert box_difference(mine, theirs) < 1e-6, number
        # Transformers rounds otherwise where the long side reaches its most.
        assert mine.size == theirs.size or max(mine.size) == 1333, number
        whole += mine.size == theirs.size
    assert whole > COUNT * 0.8


def test_ten_steps_are_the_originals(tmp_path: Path) -> None:
    theirs = json.loads(STEP_ANSWERS.read_text())
    write_photos(tmp_path)
    before = write_start(tmp_path / "start.pth", TESTED)
    mine = shown(moves(train_ours(tmp_path, TESTED, fp64=True), before))
    assert mine.keys() == theirs.keys()
    apart = {name: np.abs(np.array(mine[name]) - values).max() for name, values in theirs.items()}
    assert max(apart.values()) < 1e-9, max(apart, key=lambda name: apart[name])
    assert min(np.abs(values).max() for values in theirs.values()) > 1e-6, "each was trained"
