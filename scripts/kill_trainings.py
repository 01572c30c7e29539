"""Kills short trainings at every kind of moment, resumes them, and compares them to one that nobody disturbed.

    python scripts/kill_trainings.py --random 40 --each --random-terms 10   # some 20 minutes on one core
    sudo python scripts/kill_trainings.py --full-disks                      # five disks that are too small

A training of nine steps with an average of its weights, rare classes shown more often, three evaluations, a test
split, a page and a publication (on a Hub of its own) is run to its end. Others are ended by SIGKILL or SIGTERM, at
random times or in a certain operation on a file, and gone on with by `--training.resume_from_checkpoint last` and
nothing else. Their weights, optimizers, detections and metrics have to be equal bit for bit. Prints a line for each;
the exit status is 1 where one differs.
"""

import argparse
import builtins
import contextlib
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ |= {"HF_HUB_OFFLINE": "1"}

import pytest
import safetensors.torch
import torch
import transformers.modeling_utils
from huggingface_hub import HfApi

from hf_detr_ft.cli import main
from hf_detr_ft.training import weight_average
from hf_detr_ft.training.trainer import DetrTrainer
from tests.fixtures import as_flags, write_short_job
from tests.hub.hub_server import HubServer, point_client_at

RESUME = ["--training.resume_from_checkpoint", "last"]
TIMINGS = ("_runtime", "_per_second")


class Moments:
    """Operations of a training, by a name for each kind; one of them can be made its last.

    Args:
        run: the run folder; files outside of it do not count.
        last: kind and number of the operation in which the process kills itself; None for none.
    """

    def __init__(self, run: Path, last: tuple[str, int] | None = None) -> None:
        self.run, self.last, self.seen = str(run), last, Counter[str]()

    def note(self, kind: str, half: Callable[[], object] = lambda: None) -> None:
        """Counts an operation, and does half of it where it is to be the last."""
        self.seen[kind] += 1
        if self.last == (kind, self.seen[kind]):
            half()
            os.kill(os.getpid(), signal.SIGKILL)

    def name(self, path: object) -> str:
        """A file's name below the run folder, the same for every step and process; empty for others."""
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        below = os.path.relpath(text, self.run) if text.startswith(self.run) else ""
        return re.sub(r"\d+", "N", below)

    def listen(self, event: str, args: tuple) -> None:
        """An audit hook."""
        if event == "os.rename" and self.name(args[1]):
            self.note(f"rename to {self.name(args[1])}")
        elif event in ("os.mkdir", "os.rmdir") and self.name(args[0]):
            self.note(f"{event[3:]} {self.name(args[0])}")
        elif event == "os.remove" and (self.name(args[0]) or args[1] != -1):
            self.note(f"remove {self.name(args[0]) or os.path.basename(args[0])}")

    def watch(self) -> None:
        """Listens from here on, in this process."""
        sys.addaudithook(self.listen)
        self.wrap_writer(torch, "save", 1)
        for module in (safetensors.torch, transformers.modeling_utils, weight_average):
            for name in ("save_file", "safe_save_file"):
                if hasattr(module, name):
                    self.wrap_writer(module, name, 1)
        for name in ("create_repo", "preupload_lfs_files", "create_commit"):
            self.wrap_call(HfApi, name)
        self.wrap_call(DetrTrainer, "prediction_step")
        real_open = io.open

        def open_(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            opened = real_open(file, mode, *args, **kwargs)
            return HalfWriter(opened, self, self.name(file)) if set(mode) & set("wxa") and self.name(file) else opened

        builtins.open = io.open = open_  # type: ignore[assignment]

    def wrap_call(self, owner: Any, name: str) -> None:
        """Makes a method note that it is called."""
        call = getattr(owner, name)

        def calls(*args: Any, **kwargs: Any) -> Any:
            self.note(f"call of {name}")
            return call(*args, **kwargs)

        setattr(owner, name, calls)

    def wrap_writer(self, module: Any, function: str, position: int) -> None:
        """Makes a library's function that writes a file note it when half of the file is there."""
        write = getattr(module, function)

        def writes(*args: Any, **kwargs: Any) -> None:
            write(*args, **kwargs)
            path = args[position] if len(args) > position else kwargs.get("filename", kwargs.get("f"))
            if self.name(path):
                self.note(f"inside {self.name(path)}", lambda: os.truncate(path, os.path.getsize(path) // 2))

        setattr(module, function, writes)


class HalfWriter:
    """An open file that notes each writing when half of it is done."""

    def __init__(self, file: Any, moments: Moments, name: str) -> None:
        self.file, self.moments, self.kind = file, moments, f"inside {name}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "HalfWriter":
        return self

    def __exit__(self, *args: object) -> None:
        self.file.close()

    def write(self, content: Any) -> int:
        """Writes, and counts the file at its first piece."""

        def half() -> None:
            self.file.write(content[: len(content) // 2])
            self.file.flush()

        if not self.moments.seen[self.kind] or not getattr(self, "noted", False):
            self.noted = True
            self.moments.note(self.kind, half)
        return int(self.file.write(content))


class Trainings:
    """Trainings of one job, each in a process that is forked off when the libraries are imported, below one folder."""

    def __init__(self, folder: Path, quick: bool) -> None:
        self.folder, self.quick = folder, quick
        importlib.import_module("hf_detr_ft.runs.train")  # once for all
        self.hub = HubServer()
        self.server = self.fork(self.serve, folder / "hub.log")
        self.flags: list[str] = json.loads(self.call(self.prepare))

    def fork(self, work: Callable[[], int | None], log: Path) -> int:
        """A process that does something, and says what it says in a file."""
        process = os.fork()
        if process:
            return process
        status = 70
        with log.open("a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            with contextlib.suppress(SystemExit):
                try:
                    status = work() or 0
                except BaseException:
                    import traceback

                    traceback.print_exc()
            sys.stdout.flush()
            os._exit(status)

    def serve(self) -> None:
        """Answers as the Hub until it is ended."""
        with self.hub:
            signal.pause()

    def call(self, work: Callable[[], str]) -> str:
        """Text that a function returns which is to leave no threads here."""
        answer = self.folder / "answer"
        os.waitpid(self.fork(lambda: answer.write_text(work()) and 0, self.folder / "call.log"), 0)
        return answer.read_text()

    def prepare(self) -> str:
        """Draws the images, makes the model, and gives the flags of the job."""
        more: dict[str, object] = dict.fromkeys(("training.push_to_hub", "report.enabled"), str(not self.quick).lower())
        more |= {"data.balance": 0.9, "training.ema_decay": 0.9}
        more |= {"data.test_annotations": "annotations/custom_val.json", "data.test_images": "val2017"}
        return json.dumps(as_flags({**write_short_job(self.folder), **more}))

    def start(self, run: Path, *more: str, last: tuple[str, int] | None = None, moments: Path | None = None) -> int:
        """The process of a training.

        Args:
            run: its folder.
            more: flags.
            last: operation in which it kills itself.
            moments: file that gets the kinds of its operations, and how many of each there were.
        """

        def work() -> int:
            point_client_at(self.hub, self.folder / "client", pytest.MonkeyPatch())
            watched = Moments(run, last)
            if last or moments:
                watched.watch()
            flags = [*self.flags, "--training.output_dir", str(run), "--training.hub_model_id", f"anna/{run.name}"]
            status = main(["train", *flags, *more])
            if moments:
                moments.write_text(json.dumps(watched.seen))
            return status

        return self.fork(work, self.folder / f"{run.name}.log")

    def finish(self, run: Path) -> int:
        """Exit status of a training that was gone on with; one that had not made its folder begins it again."""
        resume = RESUME if run.is_dir() else []
        return os.waitstatus_to_exitcode(os.waitpid(self.start(run, *resume), 0)[1])

    def said(self, run: Path) -> str:
        """Words of all trainings of a folder."""
        return (self.folder / f"{run.name}.log").read_text()

    def end(self) -> None:
        """Ends the Hub."""
        os.kill(self.server, signal.SIGKILL)
        os.waitpid(self.server, 0)


def differences(run: Path, whole: Path, same_checkpoints: bool = True) -> list[str]:
    """What is not equal bit for bit, measured times aside; none where the runs are the same.

    Args:
        run: that was disturbed.
        whole: that was not.
        same_checkpoints: the same ones have to be there; not where SIGTERM saved one more.
    """
    files, expected = (
        {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} for folder in (run, whole)
    )
    if not same_checkpoints:
        files, expected = ({path for path in paths if "checkpoint-" not in str(path)} for paths in (files, expected))
    found = [f"{path} is {'missing' if path in expected else 'left over'}" for path in sorted(files ^ expected)]
    for path in sorted(files & expected):
        contents = [(folder / path).read_bytes() for folder in (run, whole)]
        if path.suffix in (".safetensors", ".pt", ".npz", ".pth") and contents[0] != contents[1]:
            found.append(f"{path} differs")
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (run, whole)]
    found += [f"metrics.json: {name} differs" for name in ("best", "last") if metrics[0][name] != metrics[1][name]]
    logs = [untimed(json.loads((folder / "trainer_state.json").read_text())["log_history"]) for folder in (run, whole)]
    if logs[0] != logs[1]:
        found.append("the log differs")
    return found


def untimed(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of a log without what a clock gave, and without the summary, which is of the last process alone."""
    lines = [line for line in log if "train_runtime" not in line]
    return [{name: value for name, value in line.items() if not name.endswith(TIMINGS)} for line in lines]


def disturb(trainings: Trainings, whole: Path, seconds: float, args: argparse.Namespace) -> int:
    """Ends trainings as asked for, goes on with them, and prints what came of it; the number that differ."""
    moments = json.loads((trainings.folder / "moments.json").read_text())
    kinds = [kind for kind in sorted(moments) if args.each or kind in args.at]
    jobs: list[tuple[str, int | None, tuple[str, int] | None]] = [
        *((f"SIGKILL at a random time, {n}", signal.SIGKILL, None) for n in range(args.random)),
        *((f"SIGTERM at a random time, {n}", signal.SIGTERM, None) for n in range(args.random_terms)),
        *((f"SIGKILL {kind}, {min(2, moments[kind])}", None, (kind, min(2, moments[kind]))) for kind in kinds),
    ]
    failed, chance = 0, random.Random(args.seed)
    for number, (what, by, last) in enumerate(jobs):
        run = trainings.folder / "runs" / f"run-{number}"
        process, after = trainings.start(run, last=last), chance.uniform(0, seconds)
        if by is not None:
            time.sleep(after)
            os.kill(process, by)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        resumed = trainings.finish(run) if status else 0
        found = [] if resumed == 0 else [f"resuming ended with {resumed}: {trainings.said(run)[-1500:]}"]
        found = found or differences(run, whole, by != signal.SIGTERM)
        if last is not None and status != -signal.SIGKILL:
            found.append(f"it was not killed, but ended with {status}")
        if by == signal.SIGTERM and status not in (0, 143, -signal.SIGTERM):
            found.append(f"SIGTERM ended it with {status}")
        failed += bool(found)
        when = f" after {after:.1f} s" if by is not None else ""
        print(f"{'DIFFERS' if found else 'equal'}  {what}{when}: ended with {status}; {'; '.join(found)}", flush=True)
        if not found:
            shutil.rmtree(run)
    print(f"{len(jobs)} trainings ended and gone on with, {failed} of them not equal to the undisturbed one")
    return failed


def fill_disks(trainings: Trainings, whole: Path) -> int:
    """Trains on disks too small for the first, second, … checkpoint; the number of those that did not end in words."""
    failed = 0
    checkpoint = sum(path.stat().st_size for path in next(whole.glob("checkpoint-*")).iterdir())
    for share in (0.1, 0.6, 1.4, 2.1, 2.9):
        run = trainings.folder / "disk" / f"full-{share}"
        run.mkdir(parents=True)
        size = int(share * checkpoint) // 4096 * 4096
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(run)], check=True)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(trainings.start(run), 0)[1])
            words = [line for line in trainings.said(run).splitlines() if line.startswith("error: ")]
            found = [] if status == 1 and words and "disk full while writing" in words[-1] else [trainings.said(run)]
            found += [f"{path.name} is left over" for path in run.glob(".*")]
            left = sorted(path.name for path in run.glob("checkpoint-*"))
            subprocess.run(["mount", "-o", "remount,size=1g", str(run)], check=True)
            status = trainings.finish(run)
            found += [f"resuming ended with {status}: {trainings.said(run)}"] if status else differences(run, whole)
        finally:
            subprocess.run(["umount", str(run)], check=True)
        failed += bool(found)
        print(
            f"{'FAILS' if found else 'said'}  disk of {size / 1e6:.1f} MB, left {left}: {words} {found or ''}",
            flush=True,
        )
    return failed


def run_script(arguments: Sequence[str] | None = None) -> int:
    """Does what the arguments ask for; 1 where something was not equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=0, help="trainings killed at random times")
    parser.add_argument("--random-terms", type=int, default=0, help="trainings ended by SIGTERM at random times")
    parser.add_argument("--each", action="store_true", help="one killed in each kind of operation")
    parser.add_argument(
        "--at", action="append", default=[], metavar="KIND", help="one killed in this kind of operation"
    )
    parser.add_argument("--full-disks", action="store_true", help="five on disks that are too small (root alone)")
    parser.add_argument("--quick", action="store_true", help="without the page and the publication")
    parser.add_argument("--seed", type=int, default=0, help="of the random times")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        trainings = Trainings(Path(place), args.quick)
        try:
            whole, started = trainings.folder / "runs" / "whole", time.monotonic()
            status = os.waitpid(trainings.start(whole, moments=trainings.folder / "moments.json"), 0)[1]
            seconds = time.monotonic() - started
            if status:
                print(trainings.said(whole))
                return 1
            kinds = len(json.loads((trainings.folder / "moments.json").read_text()))
            print(f"undisturbed: {seconds:.1f} s, {kinds} kinds of operations on files", flush=True)
            failed = disturb(trainings, whole, seconds, args)
            failed += fill_disks(trainings, whole) if args.full_disks else 0
        finally:
            trainings.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_script())
