"""Averages of a model's weights: a moving one, which evaluations and saved models take in their place; of files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_detr_ft.errors import CheckpointError, first_line
from hf_detr_ft.run_folder import INDEX, WEIGHTS, weight_files


def decay_at(step: int, decay: float) -> float:
    """Share that the average keeps of itself in a step, from 1: at most (1 + step) / (10 + step).

    So the average never reaches back further than about the last ninth of the steps, however few they are. Where the
    originals warm up, they do so over some thousands of steps, or hundreds, which a short training does not have.
    """
    return min(decay, (1 + step) / (10 + step))


class WeightAverage(TrainerCallback):
    """Average of what is trained, updated after each step; running statistics are averaged, too, as the originals do.

    Other tensors are not kept twice. torch's `AveragedModel` would wait for the device in every step.

    Args:
        decay: share that the average keeps of itself in a step, in the end; None: there is no average.
    """

    def __init__(self, decay: float | None) -> None:
        self.decay = decay
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        """The model's own tensors, each with its average."""

    def start(self, model: nn.Module) -> None:
        """Lets the average be the model's weights."""
        if self.decay is not None:
            self._pairs = [(tensor, tensor.detach().clone()) for tensor in trained_tensors(model).values()]

    def stop(self) -> None:
        """Forgets the average: evaluations take the model as it is from now on."""
        self._pairs = []

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Gives the model its average meanwhile, at the cost of its largest tensor; nothing where there is none."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for tensor, average in self._pairs:
            weights = tensor.clone()
            tensor.copy_(average)
            average.copy_(weights)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Starts, unless a checkpoint's average is there."""
        assert model is not None
        if not self._pairs:
            self.start(model)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Moves the average towards the weights behind a step; nothing waits for the device."""
        if self.decay is not None:
            weights, averages = map(list, zip(*self._pairs, strict=True))
            get_ema_multi_avg_fn(decay_at(state.global_step, self.decay))(averages, weights, state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Gives the model the average for good, unless it has the best weights by now."""
        self._exchange()
        self.stop()


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Trained parameters and saved buffers of floating point, by name; those that are shared once."""
    saved = model.state_dict()
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in saved and buffer.is_floating_point()}
    return {**parameters, **buffers}


def save_trained(model: nn.Module, path: Path) -> None:
    """Writes `trained_tensors` as they are."""
    save_file({name: tensor.detach().contiguous() for name, tensor in trained_tensors(model).items()}, path)


@torch.no_grad()
def load_trained(model: nn.Module, path: Path) -> None:
    """Puts what `save_trained` wrote into a model, in place.

    Raises:
        RuntimeError: a tensor has another shape.
        SafetensorError: the file is damaged.
        ValueError: it holds other tensors.
    """
    tensors, found = trained_tensors(model), load_file(path)
    other = sorted(tensors.keys() ^ found.keys())
    if other:
        raise ValueError(f"'{other[0]}' is in the file or the model alone")
    for name, tensor in tensors.items():
        tensor.copy_(found[name])


def average_files(checkpoints: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Means of the saved tensors of some checkpoints, running statistics among them; counts are the first one's.

    Raises:
        CheckpointError: a file cannot be read, or is of another model than the first one's.
    """
    first = _load_saved(checkpoints[0])
    means = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in first.items()}
    for number, checkpoint in enumerate(checkpoints[1:], start=2):
        found = _load_saved(checkpoint)
        differing = sorted(found.keys() ^ means.keys())
        differing += [name for name, mean in means.items() if name in found and found[name].shape != mean.shape]
        if differing:
            raise CheckpointError(
                f"{checkpoint}: expected weights of the model of '{checkpoints[0]}', found '{differing[0]}' in one of "
                "them alone, or of another shape. Take checkpoints of one training."
            )
        for name, mean in means.items():
            if mean.is_floating_point():
                mean += (found[name] - mean) / number
    return {name: mean.to(first[name].dtype) for name, mean in means.items()}


def _load_saved(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint, of one file or of several."""
    try:
        names = [name for name in weight_files(checkpoint) if name != INDEX]
        if not names:
            raise ValueError(f"{INDEX} names no files")
        return {name: tensor for file in names for name, tensor in load_file(checkpoint / file).items()}
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint}: expected {WEIGHTS}, but it cannot be read: {first_line(error)}. Take other checkpoints."
        ) from error
