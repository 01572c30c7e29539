"""Precision and threads of a process on this machine: what is decided, and that something is timed."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hf_detr_ft import machine
from hf_detr_ft.machine import fastest_precision, git_commit, set_cpu_threads, time_convolution


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    fastest_precision.cache_clear()
    yield
    fastest_precision.cache_clear()


@pytest.mark.parametrize(
    ("device", "seconds", "expected"),
    [
        ("cpu", {"bf16": 0.4, "fp16": 0.1, "fp32": 1.0}, "bf16"),
        ("cpu", {"bf16": 1.6, "fp16": 0.1, "fp32": 1.0}, "no"),  # a CPU that emulates it
        ("cpu", {"bf16": 0.9, "fp16": 0.1, "fp32": 1.0}, "no"),  # a close thing
        ("mps", {}, "no"),
    ],
)
def test_a_faster_precision_than_fp32_is_taken(
    device: str, seconds: dict[str, float], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    monkeypatch.setattr(machine, "time_convolution", lambda device, dtype: seconds[names[dtype]])
    assert fastest_precision(device) == expected


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_is_asked_not_timed(supported: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict] = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **kwargs: asked.append(kwargs) or supported)
    monkeypatch.setattr(machine, "time_convolution", None)
    assert fastest_precision("cuda") == expected
    assert asked == [{"including_emulation": False}], "an emulated bf16 is no faster than fp32"


def test_this_machine_is_timed_once_and_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    timed: list[torch.dtype] = []

    def note(device: str, dtype: torch.dtype) -> float:
        timed.append(dtype)
        return time_convolution(device, dtype)

    monkeypatch.setattr(machine, "time_convolution", note)
    assert fastest_precision("cpu") == fastest_precision("cpu")
    assert timed == [torch.float32, torch.bfloat16]
    assert time_convolution("cpu", torch.bfloat16) > 0
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("given", "expected"), [(None, "8192"), ("7", "7")])
def test_onednn_keeps_more_shapes_unless_the_user_said_how_many(given: str | None, expected: str) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    variables = {key: value for key, value in os.environ.items() if key != name} | ({name: given} if given else {})
    code = f"import os, hf_detr_ft.machine; print(os.environ['{name}'])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=variables)
    assert printed.stdout.strip() == expected


OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.skipif(sys.platform != "linux", reason="torch computes with GNU's OpenMP on Linux")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "2000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, "30000000000"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "0"),
        ({"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "5"}, "5"),
    ],
)
def test_threads_wait_shortly_unless_the_user_said_how_long(given: dict[str, str], expected: str) -> None:
    """GNU's OpenMP says itself what it took, when torch loads it; a launcher's `train.py` begins with this import."""
    variables = {key: value for key, value in os.environ.items() if key not in OPENMP}
    variables |= {**given, "OMP_DISPLAY_ENV": "VERBOSE"}
    code = "import hf_detr_ft.cli, torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=variables)
    taken = re.findall(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr)
    assert set(taken) <= {expected}
    assert taken or "libgomp" not in Path("/proc/self/maps").read_text()


class Glibc:
    """A C library that notes what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def mallopt(self, name: int, value: int) -> None:
        self.told.append((name, value))


@pytest.fixture
def _memory_is_handed_out_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux, and an environment that says nothing of memory."""
    monkeypatch.setattr(sys, "platform", "linux")
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("_memory_is_handed_out_as_usual")
@pytest.mark.parametrize(
    ("device", "variables", "expected"),
    [
        ("cpu", {}, [(-4, 0), (-1, -1), (-4, 65536), (-3, 2**25), (-1, 2**26)]),
        ("cuda", {}, []),
        ("cpu", {"MALLOC_MMAP_MAX_": "10"}, []),
        ("cpu", {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"}, []),
        ("cpu", {"LD_PRELOAD": "libjemalloc.so"}, []),
    ],
)
def test_freed_memory_is_kept_on_a_cpu_unless_the_user_says_how(
    device: str, variables: dict[str, str], expected: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Glibc()
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: library)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    machine.keep_freed_memory(device)
    machine.give_freed_memory_back(device)
    assert library.told == expected


@pytest.mark.usefixtures("_memory_is_handed_out_as_usual")
def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without mallopt is looked at, and nothing is called in it."""
    asked: list[str | None] = []
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: asked.append(name) or object())
    machine.keep_freed_memory("cpu")
    assert asked == [None], "the library of this process"


def test_windows_has_no_module_of_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(sys, "platform", "win32")
    importlib.reload(machine)
    assert machine.peak_memory(torch.device("cpu")) == machine.peak_bytes(torch.device("cpu")) == 0
    machine.reset_peak(torch.device("cpu"))


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("variables", "asked", "device", "expected"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1"}, None, "cpu", 8),
        ({"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "3"}, None, "cpu", 2),
        ({"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "9"}, None, "cpu", 1),
        ({"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1"}, 5, "cpu", 5),
        ({"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "1"}, None, "cuda", 3),
        ({"ACCELERATE_MIXED_PRECISION": "no", "OMP_NUM_THREADS": "3"}, None, "cpu", 3),
        ({"OMP_NUM_THREADS": "1"}, None, "cpu", 3),
        ({}, 2, "cpu", 2),
    ],
)
def test_threads(
    variables: dict[str, str],
    asked: int | None,
    device: str,
    expected: int,
    three_threads: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ACCELERATE_MIXED_PRECISION", "OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machine, "count_cores", lambda: 8)
    set_cpu_threads(asked, device)
    assert torch.get_num_threads() == expected


def test_the_commit_is_read_without_a_lock_that_a_killed_training_would_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where times of files changed, `git status` locks the repository and writes its index anew, unless told not to."""
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("a")
    author = ["-c", "user.name=Anna", "-c", "user.email=anna@example.org"]
    for command in (["init", "-q"], ["add", "a.txt"], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    os.utime("a.txt", (1e9, 1e9))
    before = Path(".git", "index").read_bytes()
    assert len(str(git_commit())) == 40
    assert Path(".git", "index").read_bytes() == before


def test_a_containers_limit_counts_without_the_files_that_are_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "read_status", lambda *_: 10_000)
    device = torch.device("cpu")
    assert machine.free_bytes(device) == 10_000, "no limit is told"
    for name, content in {"max": "5000\n", "current": "4500\n", "stat": "anon 3900\nfile 500\n"}.items():
        (tmp_path / f"memory.{name}").write_text(content)
    assert machine.free_bytes(device) == 1000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert machine.free_bytes(device) == 250
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_bytes(device) == 2500
