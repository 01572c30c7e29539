"""`hf-detr-ft launch … RECIPE`: a training in the processes that `accelerate launch` starts."""

import logging
import subprocess
import sys
from collections.abc import Sequence

from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from hf_detr_ft.errors import RecipeError


def launch(arguments: Sequence[str]) -> int:
    """Starts `hf-detr-ft train` in several processes and ends with its exit status.

    `accelerate launch` itself ends with 1 and a traceback of its own, whatever went wrong below it.

    Args:
        arguments: those of `accelerate launch`, then a recipe and flags over it.

    Returns:
        The exit status of the process that failed first; 128 and the signal's number where a signal ended it.

    Raises:
        RecipeError: Accelerate refuses its arguments.
    """
    parser = launch_command_parser()
    parser.prog, parser.usage = (
        "hf-detr-ft launch",
        "%(prog)s [ARGUMENTS OF accelerate launch] RECIPE [--section.key VALUE ...]",
    )
    args = parser.parse_args(arguments)
    kinds = (args.cpu, args.multi_gpu, args.tpu, args.use_fsdp, args.use_deepspeed, args.use_megatron_lm)
    if (args.num_processes or 1) > 1 and not any(kinds) and args.config_file is None:
        args.multi_gpu = True  # without GPUs Accelerate would start one process, and not say so
    args.training_script_args = ["train", args.training_script, *args.training_script_args]
    args.module, args.training_script = True, "hf_detr_ft.cli"
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes have said what is wrong
    try:
        launch_command(args)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        return say_signal(failure.exitcode, f"process {rank}")
    except subprocess.CalledProcessError as error:
        return say_signal(error.returncode, "the process")
    except (OSError, ValueError) as error:
        raise RecipeError(f"accelerate launch: {error}") from error
    return 0


def say_signal(status: int, which: str) -> int:
    """The exit status as a shell has it; a signal is named, since the process itself could not say anything."""
    if status < 0:
        print(f"error: {which} was ended by signal {-status}" + LIKELY.get(-status, ""), file=sys.stderr)
    return status if status >= 0 else 128 - status


LIKELY = {9: ", as the system does where memory runs out", 15: ", as a batch system does at the end of its time"}
"""Usual reasons by signal."""
