"""Checkpoints of a run: which one is whole, which one to go on from, and which ones are kept."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerState

from hf_detr_ft.atomic import remove
from hf_detr_ft.errors import CheckpointError, RecipeError
from hf_detr_ft.run_folder import ALL_WEIGHTS, LOG, OPTIMIZER, SCHEDULER, WEIGHTS, RunFolder
from hf_detr_ft.training.output_folder import OutputFolder

LAST = ("last", "true", "yes")
"""Values of `training.resume_from_checkpoint` that mean the newest whole checkpoint."""
NONE = (None, "false", "no")


def checkpoint_faults(checkpoint: Path) -> list[str]:
    """Faults of a checkpoint whose run was ended, or filled the disk, while it saved; none of a whole one."""
    if not (checkpoint / LOG).is_file():
        return [f"no {LOG}"]
    faults = [f"no {name}" for name in (OPTIMIZER, SCHEDULER) if not (checkpoint / name).is_file()]
    if not any((checkpoint / name).is_file() for name in ALL_WEIGHTS):
        faults.append(f"no {WEIGHTS}")
    saved = sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")])
    faults += [f"a {path.name} that is {fault}" for path in saved if (fault := _zip_fault(path))]
    faults += [f"a {path.name} that is cut off" for path in checkpoint.glob("*.safetensors") if _is_cut_off(path)]
    try:
        TrainerState.load_from_json(str(checkpoint / LOG))
    except ValueError:
        faults.append(f"a {LOG} that is cut off")
    except (TypeError, AttributeError, KeyError):
        faults.append(f"a {LOG} that is damaged")
    return faults


def _zip_fault(path: Path) -> str:
    """Fault of a file of `torch.save`, a ZIP archive whose checksums torch does not look at; empty for none."""
    if not zipfile.is_zipfile(path):
        return "cut off"
    try:
        with zipfile.ZipFile(path) as archive:
            return "damaged" if archive.testzip() else ""
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError):
        return "damaged"


def _is_cut_off(safetensors: Path) -> bool:
    """True where a file of tensors is shorter than its header says."""
    with safetensors.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header: Mapping[str, Any] = json.loads(file.read(length))
            end = max(
                (tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0
            )
        except (ValueError, KeyError, TypeError, OverflowError, MemoryError):
            return True
    return safetensors.stat().st_size < 8 + length + end


def newest_whole_checkpoint(run: RunFolder) -> tuple[Path | None, dict[Path, list[str]]]:
    """The checkpoint to go on from, and newer ones that cannot be, each with what is wrong with it."""
    passed_over: dict[Path, list[str]] = {}
    for checkpoint in run.checkpoints():
        faults = checkpoint_faults(checkpoint)
        if not faults:
            return checkpoint, passed_over
        passed_over[checkpoint] = faults
    return None, passed_over


def find_checkpoint(run: OutputFolder, wanted: str | None, sharded: bool) -> tuple[Path | None, str]:
    """The checkpoint that `training.resume_from_checkpoint` asks for, and what has to be said about the choice.

    Args:
        run: whose newest whole checkpoint is `last`.
        wanted: `last`, or the folder of a checkpoint; None for a fresh start.
        sharded: the checkpoint was saved by FSDP or DeepSpeed, whose files are their own.

    Returns:
        None for a fresh start, which is what `last` is, too, where a run was ended before its first checkpoint.

    Raises:
        RecipeError: there is none.
        CheckpointError: it is not whole.
    """
    if wanted in NONE:
        return None, ""
    if wanted not in LAST:
        checkpoint = Path(str(wanted))
        if not (checkpoint / LOG).is_file():
            raise RecipeError(
                f"training.resume_from_checkpoint: expected 'last' or the folder of a checkpoint; found no {LOG} in "
                f"'{wanted}'. Leave it out to start anew."
            )
        faults = [] if sharded else checkpoint_faults(checkpoint)
        if faults:
            raise CheckpointError(
                f"training.resume_from_checkpoint: expected a whole checkpoint, found {' and '.join(faults)} in "
                f"'{checkpoint}'. Resume from an earlier one, or leave it out to start anew."
            )
        return checkpoint, f"resumes   {checkpoint}"
    if sharded:
        newest = next((folder for folder in run.checkpoints() if (folder / LOG).is_file()), None)
        passed_over: dict[Path, list[str]] = {}
    else:
        newest, passed_over = newest_whole_checkpoint(run)
    said = "; ".join(f"{folder.name} has {' and '.join(faults)}" for folder, faults in passed_over.items())
    if newest is None and said:
        raise CheckpointError(
            f"training.resume_from_checkpoint: expected a whole checkpoint-* folder in '{run}', found none: {said}. "
            "To start over, replace it by --training.overwrite."
        )
    if newest is None and run.only_begun:
        return None, f"resumes   no checkpoint: the run in '{run}' was ended before its first one, and starts over"
    if newest is None:
        raise RecipeError(
            f"training.resume_from_checkpoint: expected 'last' with a checkpoint-* folder in '{run}', found none. "
            "Leave it out to start anew."
        )
    return newest, f"resumes   {newest}{f' (passed over, not whole: {said})' if said else ''}"


def place_checkpoint(run: OutputFolder, step: int, limit: int | None, best: Path) -> None:
    """Gives a checkpoint that is whole its name; what was there before it, or has no room beside it, goes.

    Checkpoints of later steps are of what was trained before the run went back to an earlier one.

    Args:
        run: that has made the checkpoint in `run.unfinished(step)`.
        step: of the checkpoint.
        limit: see `rotate_checkpoints`.
        best: likewise.
    """
    beside, place = run.unfinished(step), run.path / f"checkpoint-{step}"
    remove(place)
    (beside / place.name).rename(place)
    beside.rmdir()
    for path in run.checkpoints():
        if path == place:
            break
        remove(path)
    rotate_checkpoints(run, limit, best)
    run.forget_replaced()


def rotate_checkpoints(run: RunFolder, limit: int | None, best: Path) -> None:
    """Removes the oldest checkpoints.

    Args:
        run: whose they are.
        limit: checkpoints to keep, the newest one and the best one among them; all where it is None or 0.
        best: the best one, where it is there.
    """
    earlier = run.checkpoints()[1:]
    others = [path for path in earlier if path != best]
    spared = 1 + len(earlier) - len(others)
    for path in others[max(0, limit - spared) :] if limit else ():
        remove(path)
