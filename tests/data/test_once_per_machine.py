"""One process of a machine works for all: what the others get, and how an error reaches them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hf_detr_ft.data import once_per_machine as module
from hf_detr_ft.data.once_per_machine import once_per_machine
from hf_detr_ft.errors import DataError


def refuse() -> None:
    raise AssertionError("called")


def as_process(monkeypatch: pytest.MonkeyPatch, index: int, local: int, said: list[Any]) -> list[Any]:
    """This process as one of four on two machines; `said` is what the others say, and gets what this one says."""
    state = SimpleNamespace(
        num_processes=4,
        process_index=index,
        local_process_index=local,
        is_local_main_process=local == 0,
        wait_for_everyone=lambda: None,
    )

    def gather(objects: list[Any]) -> list[Any]:
        said[index] = objects[0]
        return said

    monkeypatch.setattr(module, "PartialState", lambda: state)
    monkeypatch.setattr(module, "gather_object", gather)
    return said


def test_alone_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gather_object", refuse)
    monkeypatch.setattr(module.pickle, "dump", refuse)
    result = object()
    assert once_per_machine(lambda: result) is result


def test_the_first_process_of_its_own_machine_is_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "0", tmp_path / "2"]
    for file in files:
        with file.open("wb") as stream:
            module.pickle.dump(file.name, stream)
    said = [(files[0], None), None, (files[1], None), None]
    as_process(monkeypatch, 1, 1, said)
    assert once_per_machine(refuse) == "0"
    as_process(monkeypatch, 3, 1, said)
    assert once_per_machine(refuse) == "2"


@pytest.mark.parametrize("error", [DataError("wrong"), OSError("full"), MemoryError()])
def test_an_error_is_raised_where_it_was_met_and_in_the_others(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    said = as_process(monkeypatch, 0, 0, [None] * 4)
    with pytest.raises(type(error)):
        once_per_machine(fail)
    as_process(monkeypatch, 1, 1, said)
    with pytest.raises(DataError if isinstance(error, DataError) else RuntimeError, match="wrong|full|MemoryError"):
        once_per_machine(refuse)


def test_what_cannot_be_passed_on_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    said = as_process(monkeypatch, 0, 0, [None] * 4)
    with pytest.raises(Exception, match="lambda"):
        once_per_machine(lambda: lambda: None)
    assert isinstance(said[0][1], RuntimeError)
