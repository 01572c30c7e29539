"""Errors for people, of what stops a training or an evaluation in the middle."""

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from datasets import Dataset
from safetensors import SafetensorError

from hf_detr_ft.data.dataset import read_column
from hf_detr_ft.errors import CheckpointError, TrainingError, first_line
from hf_detr_ft.model.hungarian_matching import UnusableBatchError
from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments

GO_ON = "the same command with --training.resume_from_checkpoint last"
"""Way to go on with an interrupted run, whether it has a checkpoint or not."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of the system for a full disk, a user's share of it, or the size that files may have."""
PROBE_BYTES = 1 << 20
"""More than a full disk has room for."""
SIGNAL_SECONDS = 1.0
"""Time in which the system tells of a process that ended."""


@contextmanager
def explain_full_disk(what: str = "", unfinished: Path | None = None) -> Iterator[None]:
    """Turns what a full disk makes the libraries raise into one error.

    Args:
        what: is written, for the message; the file that the system names where not given.
        unfinished: the folder that it is written in, which is removed where anything is raised.

    Raises:
        TrainingError: the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = _why_full(error, unfinished)
        if reason is None:
            raise
        name = Path(str(error.filename)).name if isinstance(error, OSError) and error.filename else ""
        raise TrainingError(
            f"disk full while writing {what or name or 'the run folder'} ({reason}); make space, then go on: {GO_ON}."
        ) from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)


def _why_full(error: Exception, folder: Path | None) -> str | None:
    """The system's words for a full disk; None where something else is wrong.

    torch says only that it could not write, so what it wrote is tried to be made longer then.
    """
    number = error.errno if isinstance(error, OSError) else None
    said = re.search(r"\(os error (\d+)\)", str(error))
    number = int(said[1]) if said else number
    if number is None and folder is not None:
        try:
            for path in folder.rglob("*.*"):
                with path.open("ab") as file:
                    file.write(bytes(PROBE_BYTES))
        except OSError as refused:
            number = refused.errno
    return os.strerror(number) if number in FULL else None


@contextmanager
def explain_damage(what: str) -> Iterator[None]:
    """Turns what a damaged file of a checkpoint makes the libraries raise into one error.

    Args:
        what: is read, for the message.

    Raises:
        CheckpointError: it cannot be read, or holds something else.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, EOFError, LookupError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"training.resume_from_checkpoint: {what}: expected what the run saved, but {first_line(error)}. It is "
            "damaged, or of another model or optimizer. Resume from another checkpoint, or leave it out to start anew."
        ) from error


def dead_worker(error: Exception, workers: int | None) -> TrainingError | None:
    """Error for a data loader's process that the system ended; None where something else is wrong.

    Its end is first seen where something was to be read from it; torch says what it was as soon as the system tells it.

    Args:
        error: that was raised meanwhile.
        workers: `training.dataloader_num_workers`.
    """
    said = str(error)
    if workers and isinstance(error, EOFError | OSError):
        try:
            time.sleep(SIGNAL_SECONDS)
        except RuntimeError as cause:
            said = str(cause)
    found = re.search(r"DataLoader worker \(pid\S* ([\d, ]+)\) (.*)", said)
    if found is None:
        return None
    remedy = "raise /dev/shm" if "shared memory" in said else "give it more memory"
    return TrainingError(
        f"the system ended a process that reads images (process {found[1]}: {found[2].rstrip('. ')}), most often "
        f"because memory ran out. Lower training.dataloader_num_workers (now {workers}) or {remedy}, then go on: "
        f"{GO_ON}."
    )


def out_of_memory(doing: str, step: int, args: DetrTrainingArguments, batch: str, can_split: bool) -> TrainingError:
    """Error that names the batch which the device's memory does not suffice for.

    Args:
        doing: `training` or `evaluation`.
        step: at which it stopped.
        args: of the recipe.
        batch: images and shape.
        can_split: batches could be computed in parts, and are not.
    """
    remedies = ["lower model.shortest_edge and model.longest_edge"]
    if doing == "training" and args.train_batch_size > 1:
        remedies.insert(
            0,
            f"lower training.per_device_train_batch_size {args.train_batch_size} and raise "
            "training.gradient_accumulation_steps by as much",
        )
    if doing == "evaluation" and args.eval_batch_size > 1:
        remedies.insert(0, f"lower training.per_device_eval_batch_size {args.eval_batch_size}")
    if can_split:
        remedies.insert(0, "give --training.auto_find_batch_size, which computes such batches in parts")
    advice = "; or ".join(remedies)
    return TrainingError(
        f"{doing} stopped at step {step}: {args.device} is out of memory with {batch}. {advice[0].upper()}{advice[1:]}."
    )


def unusable_batch(error: UnusableBatchError, doing: str, step: int, dataset: Dataset, classes: int) -> TrainingError:
    """Error that names the files of the images which cannot be learned from, and a remedy.

    Args:
        error: of the criterion.
        doing: `training` or `evaluation`.
        step: at which it stopped.
        dataset: of the images.
        classes: of the model.
    """
    columns = (read_column(dataset, name) for name in ("image_id", "file_name"))
    names = dict(zip(*columns, strict=True))
    images = ", ".join(f"{names.get(image_id, '?')} (image id {image_id})" for image_id in error.image_ids)
    remedy = {
        "labels are out of range": f"Expected labels 0 to {classes - 1}; run `hf-detr-ft check`.",
        "boxes are not finite": "Run `hf-detr-ft check` on the annotations.",
    }.get(error.reason, "Lower training.learning_rate, or set training.bf16 and training.fp16 to false.")
    return TrainingError(f"{doing} stopped at step {step}: {error.reason} for {images}. {remedy}")
