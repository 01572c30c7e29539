"""Everything that two processes are to show, in one start of them, since that takes longer than the rest.

`accelerate launch … -m tests.distributed FOLDER` writes into FOLDER what `test_two_processes.py` reads.
"""

import sys
from pathlib import Path

from accelerate import PartialState

from tests.distributed import draw, job

DIVISIONS = ((2, 1), (1, 2))
"""Images per process and micro-batch, and micro-batches per step: four images in all."""

if __name__ == "__main__":
    state = PartialState(cpu=True)  # without it, and without a GPU, each process would take itself for the only one
    folder = Path(sys.argv[1])
    draw.run(folder / "drawn")
    for batch, accumulation in DIVISIONS:
        job.run(folder, f"two_processes_{accumulation}", batch, accumulation)
    state.wait_for_everyone()
    state.destroy_process_group()
