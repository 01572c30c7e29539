"""`python -m tests.distributed.table`: trainings that have to be one and the same, in other processes each, as a table.

16 training images in steps of 6, so that the last step of an epoch has 4, every third without objects, and 7
validation images. Without dropout, which each process draws for itself, and resized to squares unless `--padded` is
given: batches of other images have other padding, which reaches a little into predictions. With `--hosts`, as root,
also on two network namespaces of Linux, which are to the processes what two machines are.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from hf_detr_ft.data.drawn_folder import write_drawn_folder
from tests.fixtures import as_flags, free_port

REPOSITORY = Path(__file__).parents[2]
HOST, CARD, ADDRESS = "detr-host-{}", "detr-card-{}", "10.77.0.{}1"
ALIKE = ("loss", "class_error", "cardinality_error", "grad_norm", "learning_rate", "eval_")
TIMES = ("runtime", "per_second")


class Row(NamedTuple):
    """One training."""

    name: str
    processes: int
    batch: int
    accumulation: int
    resumes: str = ""
    """Name of the row whose checkpoint of the first epoch it goes on from."""
    hosts: int = 1
    """Machines that share the processes: network namespaces."""


ROWS = (
    Row("1 process", 1, 6, 1),
    Row("1, accumulated", 1, 2, 3),
    Row("2 processes", 2, 3, 1),
    Row("3 processes", 3, 2, 1),
    Row("3, accumulated", 3, 1, 2),
    Row("1 to 2", 2, 3, 1, resumes="1 process"),
    Row("2 to 1", 1, 6, 1, resumes="2 processes"),
)
ON_HOSTS = (Row("2 machines, 1 process each", 2, 3, 1, hosts=2), Row("2 machines, 3 each", 6, 1, 1, hosts=2))


def write_job(folder: Path) -> list[str]:
    """Data, of which every third training image has no objects, and the flags of a training of three epochs."""
    known = json.loads((REPOSITORY / "hf_detr_ft" / "tiny_detr" / "config.json").read_text())["id2label"].values()
    write_drawn_folder(folder / "data", 16, 7, classes=list(known), short_side=(96, 128), workers=1)
    annotations = folder / "data" / "annotations" / "custom_train.json"
    coco = json.loads(annotations.read_text())
    empty = {image["id"] for image in coco["images"][::3]}
    coco["annotations"] = [object_ for object_ in coco["annotations"] if object_["image_id"] not in empty]
    annotations.write_text(json.dumps(coco))
    padded = {"model.shortest_edge": 160, "model.longest_edge": 267}
    settings = {
        "data.root": folder / "data",
        "model.checkpoint": "package:hf_detr_ft/tiny_detr",
        "model.config.dropout": 0,
        **(padded if "--padded" in sys.argv else {"model.square_edge": 160}),
        "training.num_train_epochs": 3,
        "training.per_device_eval_batch_size": 2,
        "training.logging_steps": 1,
        "training.save_total_limit": "null",
        "training.bf16": "false",
        "training.use_cpu": "true",
        "training.disable_tqdm": "true",
        "report.enabled": "false",
    }
    return as_flags(settings)


def train(row: Row, folder: Path, flags: Sequence[str]) -> Path:
    """Runs one row; returns its run folder."""
    run = folder / row.name.replace(" ", "_").replace(",", "")
    settings: dict[str, object] = {
        "training.output_dir": run,
        "training.per_device_train_batch_size": row.batch,
        "training.gradient_accumulation_steps": row.accumulation,
    }
    if row.resumes:
        shutil.copytree(folder / row.resumes.replace(" ", "_"), run)
        settings["training.resume_from_checkpoint"] = run / "checkpoint-3"
    recipe = folder / "empty.yaml"
    recipe.write_text("data:\n")
    several = {"num_processes": row.processes, "mixed_precision": "no", "dynamo_backend": "no"}
    address = {"main_process_port": free_port()} | ({"main_process_ip": ADDRESS.format(0)} if row.hosts > 1 else {})
    started = []
    for host in range(row.hosts):
        machine = {"num_machines": row.hosts, "machine_rank": host}
        start = ["train"] if row.processes == 1 else ["launch", *as_flags({**several, **address, **machine})]
        inside = ["ip", "netns", "exec", HOST.format(host)] if row.hosts > 1 else []
        command = [*inside, sys.executable, "-m", "hf_detr_ft.cli", *start, str(recipe), *flags, *as_flags(settings)]
        card = {"GLOO_SOCKET_IFNAME": CARD.format(host)} if row.hosts > 1 else {}
        started.append(subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **card}, stdout=subprocess.DEVNULL))
    if sum(abs(process.wait()) for process in started):
        raise SystemExit(f"{row.name} failed")
    return run


@contextmanager
def two_hosts() -> Iterator[None]:
    """Two network namespaces with a cable between them and no other way to each other."""
    for host in range(2):  # one may be left of a table that was killed
        subprocess.run(["ip", "netns", "delete", HOST.format(host)], check=False, stderr=subprocess.DEVNULL)
    commands = [f"ip netns add {HOST.format(host)}" for host in range(2)]
    commands += [f"ip link add {CARD.format(0)} type veth peer name {CARD.format(1)}"]
    for host in range(2):
        inside = f"ip -n {HOST.format(host)}"
        commands += [f"ip link set {CARD.format(host)} netns {HOST.format(host)}"]
        commands += [f"{inside} address add {ADDRESS.format(host)}/24 dev {CARD.format(host)}"]
        commands += [f"{inside} link set {card} up" for card in (CARD.format(host), "lo")]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield
    finally:
        for host in range(2):
            subprocess.run(["ip", "netns", "delete", HOST.format(host)], check=False)


def log_lines(run: Path) -> list[dict[str, float]]:
    """Numbers of each line of the log that do not tell the time."""
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [
        {name: value for name, value in line.items() if name.startswith(ALIKE) and not name.endswith(TIMES)}
        for line in history
        if "train_runtime" not in line
    ]


def largest_difference(found: Path, expected: Path) -> float:
    """Largest relative difference of a number in the logs of two runs, which have to have the same lines."""
    pairs = list(zip(log_lines(found), log_lines(expected), strict=True))
    assert pairs and all(a.keys() == b.keys() for a, b in pairs)
    return max(abs(a[name] - b[name]) / max(abs(b[name]), 1e-3) for a, b in pairs for name in b)


def main() -> None:
    """Prints the table."""
    with TemporaryDirectory() as name, two_hosts() if "--hosts" in sys.argv else nullcontext():
        folder = Path(name)
        flags = write_job(folder)
        print("| training | processes x images x accumulated | AP | images evaluated | largest difference | seconds |")
        print("|---|---|---|---|---|---|")
        for row in (*ROWS, *(ON_HOSTS if "--hosts" in sys.argv else ())):
            started = time.monotonic()
            run = train(row, folder, flags)
            last = json.loads((run / "metrics.json").read_text())["last"]
            difference = largest_difference(run, folder / "1_process")
            print(
                f"| {row.name} | {row.processes} x {row.batch} x {row.accumulation} | {last['metrics']['map']:.6f} "
                f"| {last['images']} | {difference:.1e} | {time.monotonic() - started:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
