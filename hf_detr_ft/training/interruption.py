"""Ctrl-C and SIGTERM in a training: what is saved, and the words to go on with."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_detr_ft.errors import Interrupted
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.training.failures import GO_ON

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a process that SIGTERM ended."""


class StopCallback(TrainerCallback):
    """Ends a training after the step in which the system asked for it, with a checkpoint that goes on bit for bit.

    An epoch that is at its end is evaluated before, as it would have been. Several processes ask each other with each
    line of the log, when they wait for each other anyway.

    Attributes:
        is_asked: the signal came.
        has_stopped: the training ended before its time.
    """

    def __init__(self) -> None:
        self.is_asked = self.has_stopped = self.is_training = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begins to wait for steps."""
        self.is_training = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ends the training; within an epoch it saves."""
        if args.world_size > 1 and control.should_log:
            self.is_asked = any(gather_object([self.is_asked]))
        elif args.world_size > 1:
            return
        if self.is_asked and state.global_step < state.max_steps:
            self.has_stopped = control.should_training_stop = True
            control.should_save |= not is_whole(state.epoch)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Saves where the epoch is at its end; else that was done, and nothing is to be evaluated."""
        if self.has_stopped:
            control.should_save = is_whole(state.epoch)
            control.should_evaluate &= control.should_save

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ends to wait for steps."""
        self.is_training = False

    def on_signal(self, number: int, frame: object) -> None:
        """Handler of SIGTERM.

        Raises:
            Interrupted: nothing is being trained that could be waited for.
        """
        self.is_asked = True
        if not self.is_training:
            raise Interrupted("", TERMINATED)


def is_whole(epoch: float | None) -> bool:
    """True at the end of an epoch."""
    return abs((epoch or 0) - round(epoch or 0)) < 1e-6


@contextmanager
def explain_interruption(run: RunFolder, stop: StopCallback) -> Iterator[None]:
    """Listens to SIGTERM meanwhile, and says how to go on after it, or after Ctrl-C.

    Args:
        run: that is being written.
        stop: callback of its trainer.

    Raises:
        Interrupted: with what to do next.
    """
    listens = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop.on_signal) if listens else None
    try:
        yield
    except KeyboardInterrupt as error:
        status = error.exit_status if isinstance(error, Interrupted) else 128 + signal.SIGINT
        raise Interrupted(how_to_go_on(run), status) from None
    finally:
        if listens:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def how_to_go_on(run: RunFolder) -> str:
    """Words for an interrupted run."""
    checkpoints = run.checkpoints()
    if checkpoints:
        return f"To go on from {checkpoints[0].name}: {GO_ON}."
    return f"'{run}' has no checkpoint yet. To start over: {GO_ON}."
