"""Settings that cannot work together, or would have no effect, are refused before any data is read."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hf_detr_ft.cli import main
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.rules import DEFAULT_ALONE, check_recipe, require_one_gpu

METRIC = ("--training.metric_for_best_model", "null", "--training.load_best_model_at_end", "false")
CPU = ("--training.use_cpu", "true", "--training.bf16", "false")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["remove_unused_columns", "true"], "training.remove_unused_columns: expected False, found True"),
        (["prediction_loss_only", "true"], "training.prediction_loss_only: expected False, found True: AP is computed"),
        (["batch_eval_metrics", "true"], "training.batch_eval_metrics: expected False"),
        (["eval_do_concat_batches", "false"], "training.eval_do_concat_batches: expected True, found False"),
        (["eval_use_gather_object", "true"], "training.eval_use_gather_object: expected False"),
        (["include_for_metrics", "[inputs]"], "training.include_for_metrics: expected [], found ['inputs']"),
        (["bf16_full_eval", "true"], "training.bf16_full_eval: expected False"),
        (["neftune_noise_alpha", "5"], "training.neftune_noise_alpha: expected None, found 5.0"),
        (
            ["label_smoothing_factor", "0.1"],
            "training.label_smoothing_factor: expected 0.0, found 0.1: DETR's",
        ),
        (["length_column_name", "width"], "training.length_column_name: expected 'length', found 'width'"),
        (["fp16", "true"], "training.fp16: expected bf16 or fp32 on a CPU, found fp16"),
        (["report_to", "wandb"], "training.report_to: 'wandb' is not installed. Install it (pip install wandb)"),
        (["report_to", "[tensorbord]"], "found 'tensorbord' (did you mean 'tensorboard'?)"),
        (["metric_for_best_model", "map50"], "found 'map50' (did you mean 'map_50'?)"),
        (["metric_for_best_model", "map_at_500"], "expected one of map, map_50"),
        (
            ["early_stopping_patience", "2", "--training.eval_strategy", "no"],
            "training.early_stopping_patience: expected evaluations, found training.eval_strategy no",
        ),
        (
            ["early_stopping_patience", "2", *METRIC],
            "training.early_stopping_patience: expected a training.metric_for_best_model",
        ),
        (["push_to_hub", "true", "--training.eval_strategy", "no"], "training.push_to_hub: expected evaluations"),
        (
            ["eval_epochs", "2", "--training.eval_strategy", "no"],
            "training.eval_epochs: expected training.eval_strategy epoch beside it, found 'no'",
        ),
        (
            ["learning_rate_drop_epoch", "4", "--training.lr_scheduler_type", "cosine"],
            "training.lr_scheduler_type: expected none beside training.learning_rate_drop_epoch, found 'cosine'",
        ),
        (
            ["learning_rate_drop_epoch", "4", "--training.warmup_steps", "10"],
            "training.warmup_steps: expected none beside training.learning_rate_drop_epoch, found '10",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("verb", ["train", "check"])
def test_what_cannot_work_is_refused_before_data_are_read(
    flags: list[str], expected: str, verb: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """There are no data at all: reading any would be another error."""
    first, *rest = flags
    given = [*CPU, "--training.output_dir", str(tmp_path / "run"), f"--training.{first}", *rest]
    assert main([verb, *given]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert len(err.splitlines()) == 1, err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["folds", "5"], "data.fold: expected a number from 1 to data.folds, found None of 5"),
        (["folds", "5", "--data.fold", "6"], "found 6 of 5"),
        (["fold", "1"], "found 1 of None. Give both"),
        (["folds", "5", "--data.fold", "1", "--data.val_share", "0.2"], "data.val_share: expected none beside"),
        (["val_share", "0.2", "--data.synthetic_images", "9"], "data.val_share: expected none beside data.synthetic"),
        (
            ["balance", "0.1", "--training.train_sampling_strategy", "sequential"],
            "data.balance: expected a random",
        ),
        (["group_by", "id", "--data.synthetic_images", "9"], "data.group_by: expected none beside data.synthetic"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_ways_to_divide_that_exclude_each_other_are_refused(flags: list[str], expected: str) -> None:
    problems = check_recipe(load_recipe(None, ["--training.use_cpu", "true", f"--data.{flags[0]}", *flags[1:]]))
    assert len(problems) == 1
    assert expected in problems[0]


def test_all_of_it_comes_at_once() -> None:
    given = ["--training.fp16", "true", "--training.prediction_loss_only", "true", "--training.report_to", "nowhere"]
    assert len(check_recipe(load_recipe(None, ["--training.use_cpu", "true", *given]))) == 3


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_is_sound(path: Path) -> None:
    assert check_recipe(load_recipe(path, CPU)) == []


def test_what_has_to_keep_its_default_is_a_field() -> None:
    given = load_recipe(None, CPU).resolved["training"]
    assert {name for name in DEFAULT_ALONE if name not in given} == set()


def test_several_gpus_in_one_process_are_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device, processes in (("cpu", 1), ("cuda", 2)):
        require_one_gpu(SimpleNamespace(device=torch.device(device), world_size=processes))  # type: ignore[arg-type]
    alone = SimpleNamespace(device=torch.device("cuda"), world_size=1)
    with pytest.raises(RecipeError, match="found 2: .*hf-detr-ft launch --num_processes 2 RECIPE"):
        require_one_gpu(alone)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    require_one_gpu(alone)  # type: ignore[arg-type]


def test_an_average_of_divided_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(None, [*CPU, "--training.ema_decay", "0.99"])
    assert check_recipe(recipe) == []
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    (problem,) = check_recipe(recipe)
    assert problem.startswith("training.ema_decay: expected processes that hold all weights each, found FSDP or")


def test_fsdp_is_refused_on_a_cpu_whoever_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(None, CPU)
    assert check_recipe(recipe) == []
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    (problem,) = check_recipe(recipe)
    assert problem.startswith("training.fsdp: expected none on a CPU, found FSDP")
