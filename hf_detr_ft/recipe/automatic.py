"""Settings that a recipe leaves open, decided for the machine that it runs on and for all processes alike."""

import os

import torch
from accelerate.utils import broadcast_object_list

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.machine import count_cores, fastest_precision
from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments

MOST_WORKERS = 8
"""Loader processes beside a GPU, at most; more of them rarely make it faster."""


def choose_workers(use_cpu: bool) -> int:
    """Loader processes of each training process: none on a CPU, beside a GPU its share of the cores."""
    if use_cpu or not torch.cuda.is_available():
        return 0
    cores = count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MOST_WORKERS, max(1, cores - 1))


def choose_precision(args: DetrTrainingArguments, bf16: bool | None) -> None:
    """Sets the precision that Accelerate trains in, `bf16`, `fp16` and `mixed_precision` agreeing, in place.

    A recipe that names one has it; else what `accelerate launch --mixed_precision` or `accelerate config` said; else
    what is fastest here, by the first process's measure for all.

    Args:
        args: of the recipe, with its device set up.
        bf16: as the recipe says it; None where it says nothing.

    Raises:
        RecipeError: the launcher asks for a precision that is neither bf16 nor fp16.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    named = bf16 is not None or args.fp16
    if not named and launched not in ("no", "bf16", "fp16"):
        raise RecipeError(
            f"accelerate launch: expected --mixed_precision no, bf16 or fp16, found {launched!r}. Launch with one of "
            "these, or set training.bf16 or training.fp16."
        )
    if not named:
        chosen = launched if launched != "no" else fastest_of_all(args.device.type)
        args.bf16, args.fp16 = chosen == "bf16", chosen == "fp16"
    args.mixed_precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "no"


def fastest_of_all(device: str) -> str:
    """`bf16`, `fp16` or `no`, as the first process finds it: two that time at once disturb each other."""
    choice = [fastest_precision(device) if int(os.environ.get("RANK", "0")) == 0 else ""]
    return str(broadcast_object_list(choice)[0])
