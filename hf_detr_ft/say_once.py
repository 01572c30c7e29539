"""One message from many processes: what all of them meet, or what one of them met and the others die of."""

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

PATIENCE = timedelta(seconds=10)
LOST_PEER = ("closed by peer", "reset by peer", "remote process exited")
"""Words of gloo and NCCL for another process that is gone."""


def has_launcher() -> bool:
    """True in a process of `accelerate launch` or `torchrun`, which ends all processes as soon as one is gone."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def say_once(say: Callable[[], None]) -> None:
    """Calls `say` in the first of all processes that has an error to tell; those after it wait until it is told.

    A process that kept silent and left at once would have the launcher end the one that speaks. Processes without such
    a launcher all speak.
    """
    if not has_launcher():
        return say()
    from torch.distributed import DistError, PrefixStore, TCPStore

    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        launcher = TCPStore(address, port, is_master=False, timeout=PATIENCE)
    except DistError:  # the launcher is gone, and what it had heard with it
        return say()
    store = PrefixStore(f"hf_detr_ft/{os.environ.get('TORCHELASTIC_RESTART_COUNT')}", launcher)
    if store.add("speakers", 1) == 1:
        say()
        store.set("said", "")
    else:
        with suppress(DistError):
            store.wait(["said"], PATIENCE)


def explain(error: BaseException) -> str:
    """The traceback of an unexpected error; words where it says no more than that another process is gone."""
    if isinstance(error, RuntimeError) and any(words in str(error) for words in LOST_PEER):
        return (
            "error: another process of this job is gone, without a word of its own: the system ended it, perhaps for "
            "want of memory, or its machine cannot be reached. The launcher's lines on its machine name the signal."
        )
    return "".join(traceback.format_exception(error)).rstrip()
