"""Settings that a recipe leaves open: what is chosen, and that it is written down."""

from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from hf_detr_ft.errors import RecipeError
from hf_detr_ft.recipe import automatic
from hf_detr_ft.recipe.automatic import choose_workers
from hf_detr_ft.recipe.files import load_recipe, save_recipe
from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments

CPU = ("--training.use_cpu", "true")


@pytest.mark.parametrize(
    ("fastest", "flags", "launched", "expected"),
    [
        ("bf16", {}, "no", "bf16"),
        ("no", {}, "no", "fp32"),
        ("bf16", {"bf16": "false"}, "no", "fp32"),
        ("no", {"bf16": "true"}, "no", "bf16"),
        ("no", {}, "bf16", "bf16"),  # accelerate launch --mixed_precision bf16
        ("bf16", {"bf16": "false"}, "bf16", "fp32"),  # what the recipe says wins
        ("bf16", {"bf16": "false"}, "fp16", "fp32"),
    ],
)
def test_the_recipe_the_arguments_and_accelerate_agree_on_the_precision(
    fastest: str, flags: dict[str, str], launched: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(automatic, "fastest_precision", {"cpu": fastest}.__getitem__)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    given = [word for name, value in flags.items() for word in (f"--training.{name}", value)]
    recipe = load_recipe(None, [*CPU, *given])
    assert recipe.training.precision == expected
    assert recipe.training.mixed_precision == ("no" if expected == "fp32" else expected)
    assert recipe.resolved["training"]["bf16"] is (expected == "bf16")
    save_recipe(recipe, tmp_path / "recipe.yaml", {})
    monkeypatch.setattr(automatic, "fastest_precision", None)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert load_recipe(tmp_path / "recipe.yaml", CPU).training.precision == expected, "it runs again as it is"


def test_a_precision_that_is_none_of_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(
        RecipeError, match=r"accelerate launch: expected --mixed_precision no, bf16 or fp16, found 'fp8'"
    ):
        load_recipe(None, CPU)


def test_only_the_first_process_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(automatic, "fastest_precision", None)
    monkeypatch.setattr(automatic, "broadcast_object_list", lambda choice: ["bf16"])
    assert automatic.fastest_of_all("cpu") == "bf16"


@pytest.mark.skipif(torch.accelerator.is_available(), reason="about machines without an accelerator")
def test_a_cpu_with_bf16_trains_in_it_without_being_told_to_use_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "fastest_precision", lambda device: "bf16")
    recipe = load_recipe(None)
    assert recipe.training.bf16 is True
    assert recipe.resolved["training"]["dataloader_num_workers"] == 0


@pytest.mark.parametrize(("processes", "cores", "expected"), [("1", 4, 3), ("2", 4, 1), ("1", 64, 8), ("4", 2, 1)])
def test_workers_share_the_cores_beside_gpus(
    processes: str, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    monkeypatch.setattr(automatic, "count_cores", lambda: cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_workers(use_cpu=False) == expected
    assert choose_workers(use_cpu=True) == 0


@pytest.mark.parametrize(("settings", "expected"), [({}, True), ({"dataloader_pin_memory": False}, False)])
def test_nothing_waits_for_a_gpu_that_need_not(settings: dict, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are some ten tensors an image, each of which would be waited for; so would the question for a NaN."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(TrainingArguments, "__post_init__", lambda args: None)
    monkeypatch.setattr(TrainingArguments, "n_gpu", 1)
    on_gpu, on_cpu = (DetrTrainingArguments(use_cpu=use_cpu, **settings) for use_cpu in (False, True))
    assert on_gpu.accelerator_config == ({"non_blocking": True} if expected else None)
    assert on_cpu.accelerator_config is None
    assert DetrTrainingArguments(accelerator_config={"even_batches": False}).accelerator_config == {
        "even_batches": False
    }, "what the recipe says"
    assert on_gpu.logging_nan_inf_filter is False
    assert on_gpu.optim == "adamw_torch_fused"
    assert on_gpu.tf32 is None, "fp32 is fp32 unless the recipe says otherwise"
