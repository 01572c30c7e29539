"""Threads of a process on a CPU, whatever launched it."""

from collections.abc import Iterator

import pytest
import torch

from hf_detr_ft import machine as environment
from hf_detr_ft.machine import set_cpu_threads


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
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
    variables: dict[str, str], asked: int | None, device: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACCELERATE_MIXED_PRECISION", "OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(environment, "count_cores", lambda: 8)
    set_cpu_threads(asked, device)
    assert torch.get_num_threads() == expected
