"""Time and memory of `check` and of a training's first step on a data set of COCO's size.

    python benchmarks/write_large_data.py /data/large    # once: 118,000 + 5,000 images
    python benchmarks/measure_large_data.py /data/large  # check, and the first step on one and on two processes

Each command runs once, with an empty cache of `datasets`, and of training the first step alone, of the tiny DETR. Time
is the whole command's, from the shell to the shell. Memory is that of a command and all processes that it starts,
workers and launcher included; pages that several of them share count once (proportional set size, Linux). `--again`
runs each training a second time, with the cache of the first.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from hf_detr_ft.machine import count_cores

RECIPE = """
data: {{name: large, root: {root}}}
model: {{checkpoint: package:hf_detr_ft/tiny_detr, shortest_edge: 192, longest_edge: 320}}
training: {{per_device_train_batch_size: 4, bf16: false}}
"""
ONE_STEP = [
    *("--training.max_steps", "1", "--training.eval_strategy", "no", "--training.save_strategy", "no"),
    *("--training.logging_steps", "1", "--training.disable_tqdm", "true", "--training.use_cpu", "true"),
]
OURS = [sys.executable, "-c", "import sys; from hf_detr_ft.cli import main; sys.exit(main())"]


def descendants(pid: int) -> Iterator[int]:
    """A process and all that it has started, and these."""
    yield pid
    try:
        children = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it has ended meanwhile
        return
    for child in {int(text) for texts in children for text in texts}:
        yield from descendants(child)


def proportional_bytes(pid: int) -> int:
    """Memory of a process, shared pages divided among those that share them; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def measure(command: list[str], environment: Mapping[str, str]) -> tuple[float, float, float, float]:
    """Seconds, seconds of computing, and peak GiB of all processes together and of the largest one.

    Raises:
        SystemExit: the command failed; says what it printed.
    """
    before, started = os.times(), time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        running = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
        peak = largest = 0
        while running.poll() is None:
            sizes = [proportional_bytes(pid) for pid in descendants(running.pid)]
            peak, largest = max(peak, sum(sizes)), max(largest, *sizes)
            time.sleep(0.2)
        seconds, after = time.monotonic() - started, os.times()
        if running.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{output.read()[-3000:]}")
    computed = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, computed, peak / 2**30, largest / 2**30


def main() -> None:
    """Prints a row for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of write_large_data.py")
    parser.add_argument("--only", choices=("check", "one", "two"), help="this command alone")
    parser.add_argument(
        "--again", action="store_true", help="each training twice, the second one with the first's cache"
    )
    arguments = parser.parse_args()
    print(f"{count_cores()} cores")
    print("| | seconds | of computing | GiB, all processes | GiB, the largest |\n|---|---|---|---|---|")
    for name in ("check", "one", "two") if arguments.only is None else (arguments.only,):
        with tempfile.TemporaryDirectory() as folder:
            recipe = Path(folder, "large.yaml")
            recipe.write_text(RECIPE.format(root=Path(arguments.folder).absolute()))
            step = [*ONE_STEP, "--training.output_dir", f"{folder}/run", "--training.overwrite", "true"]
            commands = {
                "check": [*OURS, "check", str(recipe), "--headers-only"],
                "one": [*OURS, "train", str(recipe), *step],
                "two": [*OURS, "launch", "--num_processes", "2", str(recipe), *step],
            }
            environment = {**os.environ, "HF_DATASETS_CACHE": f"{folder}/cache", "HF_HUB_OFFLINE": "1"}
            for times in range(2 if arguments.again and name != "check" else 1):
                figures = measure(commands[name], environment)
                print(
                    f"| {name}{', again' * times} | {' | '.join(f'{figure:.2f}' for figure in figures)} |", flush=True
                )


if __name__ == "__main__":
    main()
