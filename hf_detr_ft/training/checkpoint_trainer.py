"""Transformers' Trainer with checkpoints that are whole or not there, and words for damaged ones."""

from pathlib import Path
from typing import Any, cast

from accelerate.utils import broadcast
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from hf_detr_ft.atomic import remove, write_files_beside
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.model.load import load_weights
from hf_detr_ft.run_folder import ALL_WEIGHTS, LOG, OPTIMIZER, RAW_WEIGHTS, SCHEDULER
from hf_detr_ft.training.callbacks import keep_detections, restore_callbacks, write_state
from hf_detr_ft.training.checkpoints import place_checkpoint
from hf_detr_ft.training.failures import explain_damage, explain_full_disk
from hf_detr_ft.training.output_folder import OutputFolder
from hf_detr_ft.training.weight_average import WeightAverage, load_trained, save_trained


class CheckpointTrainer(Trainer):
    """Saves checkpoints and weights beside, then renames them; loads weights by their names, and callbacks' states."""

    _unfinished: str | None = None
    """Folder that a checkpoint is being written in."""
    average: WeightAverage
    """Average that evaluations and saved models have in place of the weights, where there is one."""

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluates what would be saved: the average, with the first process's running statistics."""
        with self.average.in_place():
            broadcast([buffer for buffer in self._unwrapped().buffers() if buffer.is_floating_point()])
            return super().evaluation_loop(*args, **kwargs)

    def _unwrapped(self) -> Detector:
        return self.accelerator.unwrap_model(self.model)

    def _get_output_dir(self, trial: Any = None) -> str:
        return self._unfinished or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        """Writes a checkpoint beside, and gives it its name when every process has written its part.

        Raises:
            TrainingError: the disk is full; nothing of the checkpoint stays.
        """
        run, step = OutputFolder(str(self.args.output_dir)), self.state.global_step
        unfinished = run.unfinished(step)
        made = unfinished / f"checkpoint-{step}"
        with explain_full_disk(f"checkpoint-{step}", unfinished):
            if self.args.should_save:
                remove(unfinished)
            self.accelerator.wait_for_everyone()
            self._unfinished = str(unfinished)
            try:
                super()._save_checkpoint(model, trial)  # which finds only this one to keep
            finally:
                self._unfinished = None
            best = run.path / f"checkpoint-{self.state.best_global_step}"
            if best.name == made.name or best.is_dir():
                self.state.best_model_checkpoint = str(best)
            if self.args.should_save:
                write_state(made / LOG, self.state)
                keep_detections(run, made)
                if self.average.decay is not None:
                    save_trained(self._unwrapped(), made / RAW_WEIGHTS)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                place_checkpoint(run, step, self.args.save_total_limit, best)
            self.accelerator.wait_for_everyone()
            if self.is_local_process_zero() and made.is_dir():  # on another machine, with a disk of its own
                place_checkpoint(run, step, None, best)

    def _load_callback_state(self) -> None:
        """Callbacks go on where the checkpoint left them; some that it does not know may have been added.

        Transformers does this only with `restore_callback_states_from_checkpoint`, by building new ones, so that the
        patience of early stopping would begin anew; and a callback that was added fails when the state is saved.
        """
        with explain_damage(LOG):
            restore_callbacks(self.callback_handler.callbacks, cast(Any, self.state.stateful_callbacks))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with explain_damage(f"{checkpoint}: {OPTIMIZER} or {SCHEDULER}"):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with explain_damage(f"{checkpoint}: scaler.pt"):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with explain_damage(f"{checkpoint}: rng_state*.pth"):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        self.average.stop()
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_best_model()
            return
        if self.is_world_process_zero():  # other machines may not have the checkpoint
            load_weights(
                self._unwrapped(),
                Path(str(self.state.best_model_checkpoint)),
                "training.load_best_model_at_end",
                f"Training is done, and the other checkpoints in '{self.args.output_dir}' are models as they are.",
            )
        broadcast(list(self._unwrapped().state_dict().values()))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(
                self._unwrapped(),
                Path(resume_from_checkpoint),
                "training.resume_from_checkpoint",
                "Resume from another checkpoint, or leave it out to start anew.",
            )
            self.average.start(self._unwrapped())
            raw = Path(resume_from_checkpoint) / RAW_WEIGHTS
            if raw.is_file():
                with explain_damage(str(raw)):
                    load_trained(self._unwrapped(), raw)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        with write_files_beside(Path(str(output_dir or self.args.output_dir)), last=ALL_WEIGHTS) as beside:
            with self.average.in_place():
                super()._save(str(beside), state_dict)
            # A pickle, which nothing of ours reads, with the user's token in it.
            (beside / "training_args.bin").unlink(missing_ok=True)
