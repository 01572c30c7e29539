"""`python -m tests.distributed.forked FOLDER`: jobs of three processes that fail, and one that works once for all.

The processes are forked from one that has imported everything and has no threads. The launcher has some, and its forks
may wait for ever for what those held. What a job prints goes to FOLDER/NAME, and the exit status of the process that
failed first behind it.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hf_detr_ft import cli
from hf_detr_ft.data.once_per_machine import once_per_machine
from hf_detr_ft.errors import RecipeError, TrainingError


def all_alike() -> int:
    """All processes find the same, and the terminal is slow."""
    cli.print = slowly  # type: ignore[attr-defined]
    raise RecipeError("no such recipe")


def slowly(*texts: object, **settings: Any) -> None:
    """Prints after those that keep silent had the time to be gone."""
    time.sleep(0.5)
    print(*texts, **settings)


def one(fail: Callable[[], object]) -> int:
    """The second process fails, while the others wait for what it has to add to a sum."""
    torch.distributed.init_process_group("gloo")
    if os.environ["RANK"] == "1":
        fail()
    for _ in range(1000):
        torch.distributed.all_reduce(torch.ones(1))
    return 0


def stop() -> None:
    """Ends a training in words."""
    raise TrainingError("not finite for a.jpg")


def with_words() -> int:
    """One process knows what is wrong."""
    return one(stop)


def with_a_bug() -> int:
    """One process does not expect it."""
    return one(lambda: {}["a bug"])


def killed() -> int:
    """One process cannot say anything."""
    return one(lambda: os.kill(os.getpid(), signal.SIGKILL))


def once() -> int:
    """One process works for the others."""
    state = PartialState(cpu=True)
    got = once_per_machine(lambda: print(f"made by {state.process_index}", file=sys.stderr) or 7)
    print(f"{state.process_index} got {got}", file=sys.stderr)
    state.destroy_process_group()
    return 0


JOBS = (all_alike, with_words, with_a_bug, killed, once)


def as_process(work: Callable[[], int], output: Path) -> None:
    """A process, as the command line ends it."""
    with output.open("a") as stream:
        os.dup2(stream.fileno(), 2)
    sys.exit(cli.report_errors(work))


def main(folder: Path) -> None:
    """Runs all jobs."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # else Accelerate says that it sets it
    multiprocessing.set_forkserver_preload(["accelerate", "hf_detr_ft.cli", "hf_detr_ft.data.once_per_machine"])
    for job in JOBS:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=3,
            run_id="tests",
            start_method="forkserver",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
        )
        try:
            elastic_launch(config, as_process)(job, folder / job.__name__)
            status = 0
        except ChildFailedError as error:
            status = error.get_first_failure()[1].exitcode
        with (folder / job.__name__).open("a") as stream:
            stream.write(f"status {status}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
