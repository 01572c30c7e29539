"""How the C library is told to keep memory."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hf_detr_ft import memory
from hf_detr_ft.memory import give_memory_back, keeping_memory

SIZE = 200 * 2**20
FREED = f"""
import ctypes, sys
import numpy as np
from hf_detr_ft.memory import keeping_memory
from hf_detr_ft.benchmark.stopwatch import read_status

def after_use():
    np.ones({SIZE}, dtype=np.uint8).sum()
    return read_status("RssAnon")

before = after_use()
with keeping_memory("cpu", sys.argv[1] == "yes"):
    meanwhile = after_use()
print((meanwhile - before) // 2**20, (read_status("RssAnon") - before) // 2**20)
"""


IN_PIECES = f"""
from hf_detr_ft.memory import give_memory_back
from hf_detr_ft.benchmark.stopwatch import read_status

before = read_status("RssAnon")
pieces = [bytearray(b"1") * 2**16 for _ in range({SIZE} // 2**16)]
last = bytes(2**16)  # above them, so that they do not go back by themselves
del pieces
free = read_status("RssAnon")
give_memory_back()
print((free - before) // 2**20, (read_status("RssAnon") - before) // 2**20)
"""
glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")


@glibc
def test_free_memory_goes_back() -> None:
    printed = subprocess.run([sys.executable, "-c", IN_PIECES], capture_output=True, text=True, check=True).stdout
    free, afterwards = map(int, printed.split())
    assert free > 150
    assert afterwards < 20


@glibc
@pytest.mark.parametrize(("wanted", "kept"), [("yes", 200), ("no", 0)])
def test_freed_memory_stays_meanwhile_and_goes_back_afterwards(wanted: str, kept: int) -> None:
    command = [sys.executable, "-c", FREED, wanted]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    meanwhile, afterwards = map(int, printed)
    assert abs(meanwhile - kept) < 20
    assert abs(afterwards) < 20


@pytest.mark.parametrize(("device", "names"), [("cpu", ["mallopt"]), ("cpu", []), ("cuda", ["mallopt", "malloc_trim"])])
def test_another_c_library_and_another_device_are_left_alone(
    device: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple] = []
    library = SimpleNamespace(**{name: lambda *call: calls.append(call) for name in names})
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: library)
    with keeping_memory(device):
        pass
    if device == "cpu":
        give_memory_back()
    assert calls == []
