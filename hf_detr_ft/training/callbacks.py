"""Callbacks of a training: its epoch, the files that the first process writes as it goes on, and progress lines."""

import csv
import dataclasses
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import ExportableState, ProgressCallback

from hf_detr_ft.atomic import write_bytes, write_json, write_text
from hf_detr_ft.data.streamed_rows import StreamedRows
from hf_detr_ft.data.transform import Epoch
from hf_detr_ft.evaluation.coco_result import CocoResult
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.run_folder import DETECTIONS, RunFolder


class EpochCallback(TrainerCallback, ExportableState):
    """Sets the epoch of sampler and augmentation, and leaves out evaluations that `eval_epochs` does not ask for.

    Args:
        epoch: that is set.
        stream: of the training samples, where they are streamed; it is told what an earlier run has had of the epoch.
    """

    def __init__(self, epoch: Epoch, stream: StreamedRows | None = None) -> None:
        self.epoch = epoch
        self.stream = stream
        self.readers = None if stream is None else stream.readers

    def state(self) -> dict[str, Any]:
        """State that a checkpoint carries: the processes and workers that the order of a stream depends on."""
        return {"args": {}, "attributes": {"readers": self.readers}}

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tells the epoch."""
        epoch, share = divmod(state.epoch or 0, 1)
        self.epoch.set(int(epoch))
        if self.stream is not None:
            self.stream.begin_epoch(int(epoch), round(share * self.stream.batches))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leaves out evaluation and checkpoint in epochs between."""
        last = state.global_step >= state.max_steps
        if not last and round(state.epoch or 0) % getattr(args, "eval_epochs", 1):
            control.should_evaluate = control.should_save = False


class RunFolderCallback(TrainerCallback, ExportableState):
    """Keeps metrics.json (best and last evaluation), results.csv (a row per evaluation), the log and detections.npz.

    All of them follow from what checkpoints carry, so a run that is interrupted and resumed ends with the files of one
    that was not. The detections are kept because they cannot be had again bit for bit: a training in bf16 evaluates in
    bf16, too, and metrics.json has its numbers.

    Args:
        result: gives the last evaluation's result.
        detections: gives what it was computed from.
        about: what else metrics.json says, such as the data set's name.
        skipped: photos that could not be read, by split.
    """

    def __init__(
        self,
        result: Callable[[], CocoResult | None],
        detections: Callable[[], Detections | None],
        about: dict[str, Any],
        skipped: Callable[[], dict[str, list[int]]] = dict,
    ) -> None:
        self.result = result
        self.detections = detections
        self.about = about
        self.skipped = skipped
        self.best: dict[str, Any] | None = None
        self.last: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """State that a checkpoint carries."""
        return {"args": {}, "attributes": {"best": self.best, "last": self.last}}

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Notes the result, and whether it is the best by `metric_for_best_model`."""
        result = self.result()
        if result is None:
            return
        metrics = kwargs.get("metrics", {})
        name = (args.metric_for_best_model or "map").removeprefix("eval_")
        value = metrics.get(f"eval_{name}", result.metrics["map"])
        before = None if self.best is None else self.best.get(name)  # None, too, where a resumed run has a new metric
        decay = getattr(args, "ema_decay", None)
        average = {} if decay is None else {"ema_decay": decay}  # of the weights that were evaluated
        about = {"epoch": state.epoch, "step": state.global_step, **average}
        self.last = {**about, name: value, **result.as_dict()}
        if before is None or (value > before if args.greater_is_better in (True, None) else value < before):
            self.best = self.last
        if not state.is_world_process_zero:
            return
        self.write(args, state)
        detections = self.detections()
        if detections is not None and (self.best is self.last or not args.load_best_model_at_end):
            write_bytes(RunFolder(str(args.output_dir)).detections, detections.to_npz())

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Writes the log to its end, also that of a run without any evaluation."""
        if state.is_world_process_zero:
            write_state(RunFolder(str(args.output_dir)).log, state)

    def write(self, args: TrainingArguments, state: TrainerState) -> None:
        """Writes metrics, rows and log into the run folder."""
        run = RunFolder(str(args.output_dir))
        skipped = {split: image_ids for split, image_ids in self.skipped().items() if image_ids}
        about = {**self.about, **({"skipped": skipped} if skipped else {})}
        write_json(run.metrics, {"best": self.best, "last": self.last, **about})
        write_results_csv(run.results, state.log_history)
        write_state(run.log, state)


def restore_callbacks(callbacks: Iterable[TrainerCallback], stateful: dict[str, Any]) -> None:
    """Gives callbacks the attributes that a checkpoint carries for them; those that it does not know enter it.

    Args:
        callbacks: of the trainer, in their order.
        stateful: state by class, a list of states of several callbacks of one class; changed in place.
    """
    seen: Counter[str] = Counter()
    for callback in callbacks:
        if isinstance(callback, ExportableState):
            kind = type(callback).__name__
            saved = stateful.setdefault(kind, callback.state())
            if isinstance(saved, list):
                if seen[kind] == len(saved):
                    saved.append(callback.state())
                saved, seen[kind] = saved[seen[kind]], seen[kind] + 1
            for name, value in saved["attributes"].items():
                setattr(callback, name, value)


def keep_detections(run: RunFolder, checkpoint: Path) -> None:
    """Gives a checkpoint the detections that belong to its best (or last) evaluation."""
    if run.detections.is_file():
        write_bytes(checkpoint / DETECTIONS, run.detections.read_bytes())


def restore_detections(checkpoint: Path, run: RunFolder) -> None:
    """Before resuming: the run folder has the detections of the checkpoint, not of what came after it."""
    if (checkpoint / DETECTIONS).is_file():
        write_bytes(run.detections, (checkpoint / DETECTIONS).read_bytes())
    else:
        run.detections.unlink(missing_ok=True)


def write_state(path: Path, state: TrainerState) -> None:
    """Writes what `TrainerState.save_to_json` does, beside and renamed."""
    write_text(path, json.dumps(dataclasses.asdict(state), indent=2, sort_keys=True) + "\n")


def rows_of(log_history: Sequence[Mapping[str, Any]]) -> list[tuple[dict[str, float], Mapping[str, Any]]]:
    """Means of the training's values since the evaluation before, and the evaluation's line of the log, for each."""
    rows: list[tuple[dict[str, float], Mapping[str, Any]]] = []
    since: list[Mapping[str, Any]] = []
    for entry in log_history:
        if "loss" in entry:
            since.append(entry)
        elif any(key.startswith("eval_map") for key in entry):
            names = dict.fromkeys(name for logged in since for name in logged if name not in ("epoch", "step"))
            rows.append(({name: _mean([logged[name] for logged in since if name in logged]) for name in names}, entry))
            since = []
    return rows


def write_results_csv(path: Path, log_history: Sequence[Mapping[str, Any]]) -> None:
    """A CSV row per evaluation: epoch, step, means of the training losses since the row before, evaluation."""
    rows: list[dict[str, Any]] = []
    for means, entry in rows_of(log_history):
        evaluation = {k: v for k, v in entry.items() if k not in ("epoch", "step")}
        trained = {f"train_{name}": value for name, value in means.items()}
        rows.append({"epoch": entry.get("epoch"), "step": entry.get("step"), **trained, **evaluation})
    # A checkpoint's log comes back with its names sorted, and a resumed run is to end with the same file.
    columns = ["epoch", "step", *sorted({name for row in rows for name in row} - {"epoch", "step"})]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _mean(values: list[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def log_picture(trainer: Trainer, name: str, path: Path) -> None:
    """Gives a PNG to TensorBoard, where the Trainer reports to it; its writer is closed by then, and opened anew."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.on_log(trainer.args, trainer.state, trainer.control, logs={})
            if callback.tb_writer is not None:
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert("RGB"))
                callback.tb_writer.add_image(name, pixels, trainer.state.global_step, dataformats="HWC")
                callback.on_train_end(trainer.args, trainer.state, trainer.control)


class ProgressLines(ProgressCallback):
    """Transformers' progress bars, with one readable line per logging step and evaluation."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prints losses, or AP."""
        if not state.is_world_process_zero or self.training_bar is None or not logs:
            return
        where = f"epoch {state.epoch or 0:.2f}  step {state.global_step}"
        if "loss" in logs:
            names = ("loss", "loss_ce", "loss_bbox", "loss_giou", "loss_mask", "loss_dice", "class_error")
            parts = [f"{name} {logs[name]:.4g}" for name in (*names, "grad_norm", "learning_rate") if name in logs]
            self.training_bar.write(f"{where}  {'  '.join(parts)}")
        elif "eval_map" in logs:
            names = ("eval_map", "eval_map_50", "eval_map_75", "eval_mar_100", "eval_mask_map", "eval_loss")
            shown = [*names, *(name for name in logs if name.startswith("eval_map_at_"))]
            parts = [f"{name.removeprefix('eval_')} {logs[name]:.3f}" for name in shown if name in logs]
            self.training_bar.write(f"{where}  evaluation: {'  '.join(parts)}")


def print_progress_lines(trainer: Trainer) -> None:
    """Puts `ProgressLines` in the place of Transformers' own bars, unless `disable_tqdm` wants neither."""
    if not trainer.args.disable_tqdm:
        trainer.remove_callback(DEFAULT_PROGRESS_CALLBACK)  # in a notebook it is another one
        trainer.add_callback(ProgressLines())
