"""What two processes are to show, in one start of them, since that takes longer than the rest.

`accelerate launch … -m tests.distributed FOLDER FLAGS` writes into FOLDER what `test_two_processes.py` reads. FLAGS are
those of a training.
"""

import sys
from pathlib import Path

from accelerate import PartialState

from hf_detr_ft.cli import main
from hf_detr_ft.report import write_report
from tests.distributed import draw, one_step, read_once

DIVISIONS = ((2, 1), (1, 2))
"""Images per process and micro-batch, and micro-batches per step: four images in all."""


def fail(*_: object, **__: object) -> None:
    """In place of a part of the report."""
    raise RuntimeError("no page today")


if __name__ == "__main__":
    state = PartialState(cpu=True)  # without it, and without a GPU, each process would take itself for the only one
    folder = Path(sys.argv[1])
    draw.run(folder / "drawn")
    read_once.run(folder / "read", broken=False)
    read_once.run(folder / "read_broken", broken=True)
    for batch, accumulation in DIVISIONS:
        one_step.run(folder, f"two_processes_{accumulation}", batch, accumulation)
    write_report.render_page = fail
    status = main(["train", *sys.argv[2:], "--training.output_dir", str(folder / "without_page")])
    (folder / f"status {state.process_index}").write_text(str(status))
    state.wait_for_everyone()
    state.destroy_process_group()
