"""Work that the first process of each machine does for its other ones."""

import pickle
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object

from hf_detr_ft.errors import InputError

T = TypeVar("T")


def once_per_machine(make: Callable[[], T]) -> T:
    """Calls `make` in the first process of each machine; the other ones read what it returned from a temporary file.

    All processes have to call this, and wait for the first one. Rows that lie in the cache of `datasets` are passed on
    as the names of their files.

    Args:
        make: returns something that can be pickled.

    Raises:
        InputError: what `make` raised in the first process, in all of them.
        RuntimeError: in the other ones, where `make` raised anything else.
    """
    state = PartialState()
    if state.num_processes == 1:
        return make()
    with TemporaryDirectory(prefix="hf_detr_ft_") as folder:
        file = Path(folder, "result.pickle")
        error = _write(make, file) if state.is_local_main_process else None
        passed_on = error if error is None or isinstance(error, InputError) else RuntimeError(f"{error!r}")
        first = state.process_index - state.local_process_index
        file, failed = gather_object([(file, passed_on)])[first]
        if error is not None or failed is not None:
            raise error or failed
        result: T = pickle.loads(file.read_bytes())
        state.wait_for_everyone()
        return result


def _write(make: Callable[[], Any], file: Path) -> Exception | None:
    """Writes what `make` returns; whatever goes wrong is returned, since the others wait to be told."""
    try:
        with file.open("wb") as stream:
            pickle.dump(make(), stream, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return error
    return None
