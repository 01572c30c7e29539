"""Measures a training step on an idle CPU, and beside one and two processes that compute.

    python benchmarks/measure_busy.py tiny      # a batch of the quickstart: 16 images of 224 x 224
    python benchmarks/measure_busy.py resnet50 --rounds 4 --steps 1  # DETR-R50, 4 images of 480 x 640

Three processes train on one batch of noise, some steps each in turn, while the others sleep. Their threads wait for
each other as OpenMP has it by itself (GNU's, on Linux), as this package sets it, and without turning round at all.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hf_detr_ft.machine import keep_freed_memory
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.optim import parameter_groups
from hf_detr_ft.model.stages import train_stages
from hf_detr_ft.recipe.sections import ModelConfig
from hf_detr_ft.training.trial_batches import random_batch

JOBS = {
    "tiny": (ModelConfig(checkpoint="package:hf_detr_ft/tiny_detr", square_edge=224), (16, 224, 224)),
    "resnet50": (ModelConfig(checkpoint=None, backbone="resnet50"), (4, 480, 640)),
}
"""Model, and images, height and width of a batch."""
TURNS = {"OpenMP's own": "300000", "ours": os.environ["GOMP_SPINCOUNT"], "none": "0"}
"""Turns of a waiting thread, `GOMP_SPINCOUNT`; ours were set by the import above."""
OBJECTS = 3


def train(kind: str) -> None:
    """Trains as many steps as each line of the standard input says, and prints the seconds of each."""
    config, shape = JOBS[kind]
    device = torch.device("cpu")
    keep_freed_memory(device.type)
    torch.manual_seed(0)
    model = build_model(config, ["object"], [1]).train()
    train_stages(model, None)
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-4, 1e-5, 1e-4), fused=True)
    batch = random_batch(shape, OBJECTS, device)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            started = time.perf_counter()
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - started)
        print(*seconds, flush=True)


def start(kind: str, turns: str) -> subprocess.Popen:
    """A process that trains when it is told to."""
    variables = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, __file__, kind, "--worker"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**variables, "GOMP_SPINCOUNT": turns})


def seconds_of(trainer: subprocess.Popen, steps: int) -> float:
    """Median seconds of a step."""
    assert trainer.stdin is not None and trainer.stdout is not None
    print(steps, file=trainer.stdin, flush=True)
    return statistics.median(map(float, trainer.stdout.readline().split()))


@contextmanager
def computing(count: int) -> Iterator[None]:
    """Some processes that compute meanwhile, each on one core."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Prints a line for each number of processes beside it and each policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=JOBS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        train(options.kind)
        return
    trainers = {name: start(options.kind, turns) for name, turns in TURNS.items()}
    for trainer in trainers.values():
        seconds_of(trainer, 2)  # the first ones prepare what oneDNN computes with
    idle: dict[str, float] = {}
    for beside in (0, 1, 2):
        found: dict[str, list[float]] = {name: [] for name in trainers}
        with computing(beside):
            for _ in range(options.rounds):
                for name, trainer in trainers.items():
                    found[name].append(seconds_of(trainer, options.steps))
        for name, seconds in found.items():
            middle = statistics.median(seconds)
            ratio = statistics.median(own / other for own, other in zip(seconds, found["OpenMP's own"], strict=True))
            print(
                f"{options.kind}, {beside} beside, {name:<12} {middle:7.3f} s "
                f"({min(seconds):.3f} to {max(seconds):.3f}), "
                f"{middle / idle.setdefault(name, middle):.2f} of its idle step, {ratio:.2f} of OpenMP's own",
                flush=True,
            )
    for trainer in trainers.values():
        trainer.communicate()


if __name__ == "__main__":
    main()
