import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_detr_ft.errors import CheckpointError
from hf_detr_ft.run_folder import WEIGHTS
from hf_detr_ft.training.weight_average import WeightAverage, average_files, decay_at, load_trained, save_trained

ARGUMENTS = TrainingArguments(output_dir="unused", use_cpu=True)


def network() -> nn.Sequential:
    """A frozen layer, a batch norm with running statistics, and a trained layer."""
    layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    layers[0].requires_grad_(False)
    return layers


def train(model: nn.Module, average: WeightAverage, steps: range) -> list[dict[str, torch.Tensor]]:
    """Weights behind each step."""
    optimizer, states = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01), []
    for step in steps:
        model(torch.randn(8, 3, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.on_step_end(ARGUMENTS, TrainerState(global_step=step), TrainerControl())
        states.append(copy.deepcopy(model.state_dict()))
    return states


def test_the_average_has_running_statistics_in_it_and_the_model_has_its_own_weights_back() -> None:
    model, average = network(), WeightAverage(0.3)
    average.start(model)
    expected = copy.deepcopy(model.state_dict())
    states = train(model, average, range(1, 6))
    for decay, state in zip((2 / 11, 3 / 12, 0.3, 0.3, 0.3), states, strict=True):
        for name in expected.keys() - {"1.num_batches_tracked"}:
            expected[name] = decay * expected[name] + (1 - decay) * state[name]
    with average.in_place():
        for name in expected.keys() - {"1.num_batches_tracked"}:
            torch.testing.assert_close(model.state_dict()[name], expected[name])
        assert not torch.equal(model[2].weight, states[-1]["2.weight"])
    assert all(torch.equal(value, states[-1][name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("decay", [0.9, 0.993, 0.9997, 0.9999])
@pytest.mark.parametrize("steps", [50, 1000, 20_000])
def test_the_average_is_of_a_ninth_of_the_steps_at_the_most(decay: float, steps: int) -> None:
    weight, age = 1.0, 0.0
    for step in range(steps, 0, -1):
        own = decay_at(step, decay)
        age += weight * (1 - own) * (steps - step)
        weight *= own
    assert weight < 1e-6, "of the first weights"
    assert age <= steps / 9
    assert decay_at(10**6, decay) == decay


def test_the_weights_come_back_when_an_evaluation_fails() -> None:
    model, average = network(), WeightAverage(0.9)
    average.start(model)
    last = train(model, average, range(1, 3))[-1]
    with pytest.raises(ValueError, match="broken"), average.in_place():
        raise ValueError("broken")
    assert all(torch.equal(value, last[name]) for name, value in model.state_dict().items())


def test_saved_weights_come_back_to_the_bit_and_others_are_refused(tmp_path: Path) -> None:
    model, other, path = network(), network(), tmp_path / "raw.safetensors"
    train(model, WeightAverage(None), range(1, 3))
    save_trained(model, path)
    load_trained(other, path)
    for index in (1, 2):
        assert torch.equal(other[index].weight, model[index].weight)
    assert torch.equal(other[1].running_var, model[1].running_var)
    with pytest.raises(ValueError, match="'0.bias' is in the file or the model alone"):
        load_trained(nn.Sequential(nn.Linear(3, 4), *network()[1:]), path)


def test_a_training_ends_with_its_average_and_evaluates_that_only_once() -> None:
    model, average = network(), WeightAverage(0.9)
    average.on_train_begin(ARGUMENTS, TrainerState(), TrainerControl(), model=model)
    train(model, average, range(1, 4))
    with average.in_place():
        expected = copy.deepcopy(model.state_dict())
    average.on_train_end(ARGUMENTS, TrainerState(), TrainerControl())
    with average.in_place():
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def write_checkpoint(folder: Path, **tensors: torch.Tensor) -> Path:
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS)
    return folder


def test_files_are_averaged_by_name_and_counts_are_the_newest(tmp_path: Path) -> None:
    new, old = (
        write_checkpoint(tmp_path / name, a=torch.full((2,), value), b=torch.ones(1).half(), n=torch.tensor(count))
        for name, value, count in (("new", 3.0, 7), ("old", 0.0, 5))
    )
    parts = {"x.safetensors": {"a": torch.full((2,), 6.0)}, "y.safetensors": {"b": torch.ones(1), "n": torch.tensor(1)}}
    (tmp_path / "parts").mkdir()
    for file, tensors in parts.items():
        save_file(tensors, tmp_path / "parts" / file)
    places = {name: file for file, tensors in parts.items() for name in tensors}
    (tmp_path / "parts" / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))
    found = average_files([new, old, tmp_path / "parts"])
    assert (found["a"].tolist(), found["b"].tolist(), found["n"].item()) == ([3.0, 3.0], [1.0], 7)
    assert found["b"].dtype == torch.float16


@pytest.mark.parametrize("tensors", [{"a": torch.zeros(3)}, {"b": torch.zeros(2)}, {}])
def test_files_of_another_model_are_refused(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    one, two = write_checkpoint(tmp_path / "one", a=torch.zeros(2)), write_checkpoint(tmp_path / "two", **tensors)
    with pytest.raises(CheckpointError, match=r"two: expected weights of the model of .*one', found '[ab]'"):
        average_files([one, two])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    one = write_checkpoint(tmp_path / "one", a=torch.zeros(2))
    (one / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="one: expected model.safetensors, but it cannot be read"):
        average_files([one])
