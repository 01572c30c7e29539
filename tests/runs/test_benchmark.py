"""The benchmark: what it prints and writes, and that both sides learn the same."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from hf_detr_ft.benchmark import stopwatch, timed_job, variants
from hf_detr_ft.benchmark.baseline import build_baseline
from hf_detr_ft.benchmark.stopwatch import Measurement
from hf_detr_ft.benchmark.timings_table import Row, table
from hf_detr_ft.benchmark.variants import MEASURES, choose_variants
from hf_detr_ft.cli import main
from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.runs.benchmark import benchmark
from hf_detr_ft.training.job import build_job

REPOSITORY = Path(__file__).parents[2]
FLAGS = [
    *("--data.synthetic_images", "4", "--data.synthetic_val_images", "1", "--data.synthetic_short_side", "[64,80]"),
    *("--model.checkpoint", "null", "--model.backbone", "test_resnet.r160_in1k", "--model.config.d_model", "32"),
    *("--model.config.encoder_layers", "1", "--model.config.decoder_layers", "2", "--model.config.num_queries", "10"),
    *("--model.config.encoder_ffn_dim", "32", "--model.config.decoder_ffn_dim", "32", "--model.shortest_edge", "64"),
    *("--model.longest_edge", "128", "--training.per_device_train_batch_size", "2", "--training.bf16", "false"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of warming up, and a small matrix product for the peak."""
    monkeypatch.setattr(stopwatch, "WARM_UP", 1)
    monkeypatch.setattr(timed_job, "WARM_UP", 1)
    monkeypatch.setattr(stopwatch, "MATRIX_SIDES", {"cpu": 128})


def test_the_table_and_the_file_have_all_variants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = ("random batches", "photos not kept")
    monkeypatch.setattr(variants, "MEASURES", [measure for measure in MEASURES if measure.without in some])
    output = tmp_path / "result.json"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("training: {num_train_epochs: 1}\n")
    told: list[str] = []
    for name in ("give_freed_memory_back", "keep_freed_memory"):
        monkeypatch.setattr(timed_job, name, lambda device, name=name: told.append(name))
    arguments = ["benchmark", str(recipe), *FLAGS, "--rounds", "1", "--steps", "2", "--output", str(output)]
    assert main(arguments) == 0
    figures = json.loads(output.read_text())
    rows, peak = figures["variants"], figures["peak_flops"]["fp32"]
    assert [row["name"] for row in rows] == ["stock", "ours", "ours, random batches", "ours, photos not kept"]
    assert told == ["give_freed_memory_back", *["keep_freed_memory"] * 3], "stock has none of our measures"
    printed = capsys.readouterr().out
    for variant in rows:
        assert variant["name"] in printed
        (one,) = variant["rounds"]
        assert (one["steps"], one["images"]) == (2, 4)
        assert 0 < one["image_pixels"] <= one["pixels"]
        assert 0 <= one["waiting_seconds"] < one["seconds"]
        assert variant["images_per_second"] == pytest.approx(4 / one["seconds"])
        assert variant["peak_bytes"] == one["peak_bytes"]
        assert variant["arithmetic_share"] == pytest.approx(one["flops"] / one["seconds"] / peak)
    assert rows[0]["ratio_to_stock"] == 1
    assert set(tmp_path.iterdir()) == {recipe, output}


def names_of_variants(flags: list[str]) -> list[str]:
    every = [*FLAGS, "--training.use_cpu", "true", *flags]
    return [variant.name for variant in choose_variants(None, every, breakdown=True)]


@pytest.mark.parametrize(
    ("flags", "rounded"),
    [(["--augment.preset", "detr"], True), (["--augment.preset", "light"], False), (["--speed.size_step", "32"], True)],
)
def test_shapes_as_they_come_are_a_variant_where_they_would_be_rounded(flags: list[str], rounded: bool) -> None:
    names = names_of_variants(flags)
    assert ("ours, shapes as they come" in names) == rounded
    assert "ours, photos not kept" in names


def test_stock_in_our_precision_is_a_variant_where_ours_is_not_fp32() -> None:
    in_bf16, in_fp32 = names_of_variants(["--training.bf16", "true"]), names_of_variants([])
    assert in_bf16[:3] == ["stock", "stock, bf16", "ours"]
    assert {"ours, fp32", "ours, attention in bf16"} <= set(in_bf16)
    assert in_fp32[:2] == ["stock", "ours"]
    assert not {"ours, fp32", "ours, attention in bf16"} & set(in_fp32)


def test_without_the_breakdown_stock_and_ours_alone_run_and_a_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "result.json"
    assert benchmark(None, FLAGS, 1, 1, output, breakdown=False, profile=True) == 0
    figures = json.loads(output.read_text())
    assert [variant["name"] for variant in figures["variants"]] == ["stock", "ours"]
    assert figures["job"]["precision"] == "fp32"
    assert figures["peak_flops"].keys() == {"fp32"}
    shares = [row["share"] for row in figures["profile"]]
    assert shares == sorted(shares, reverse=True)
    assert 0.3 < sum(shares) <= 1
    printed = capsys.readouterr().out
    for row in figures["profile"]:
        assert f"{row['share']:6.1%}  {row['operator']}  ({row['calls_per_step']:.0f} calls a step)" in printed


def test_what_the_preset_chooses_is_timed(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    flags = [*FLAGS, "--data.synthetic_images", "9", "--training.preset", "auto"]
    at = flags.index("--training.per_device_train_batch_size")
    del flags[at : at + 2]
    assert benchmark(None, flags, 1, 1, output, breakdown=False) == 0
    figures = json.loads(output.read_text())
    assert figures["job"]["batch_size"] == 8
    assert [variant["rounds"][0]["images"] for variant in figures["variants"]] == [8, 8]


def test_the_benchmark_of_a_gpu_is_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of benchmarks/, with its settings, at toy size on a CPU."""
    script = runpy.run_path(str(REPOSITORY / "benchmarks" / "measure_training_speed.py"))
    commands: list[list[str]] = []
    monkeypatch.setitem(script["main"].__globals__, "FIGURES", tmp_path)
    toy = ["--data.root", "null", *FLAGS, "--training.use_cpu", "true", "--rounds", "1", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", ["measure_training_speed.py", "gpu", *toy])
    with monkeypatch.context() as instead:
        instead.setattr(subprocess, "run", lambda command, check: commands.append(command))
        script["main"]()
    assert [Path(command[command.index("--output") + 1]).name for command in commands] == [
        "gpu_800_8.json",
        "gpu_800_16.json",
    ]
    assert all("--profile" in command and "--no-breakdown" not in command for command in commands)
    monkeypatch.setattr(variants, "MEASURES", [])
    assert main(commands[0][3:]) == 0
    figures = json.loads((tmp_path / "gpu_800_8.json").read_text())
    assert [variant["name"] for variant in figures["variants"]] == ["stock", "ours"]
    assert figures["job"]["short_side"] == 64 and figures["profile"]
    assert all(variant["arithmetic_share"] > 0 for variant in figures["variants"])


def test_a_family_of_squares_is_timed_without_what_changes_nothing_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = ("random batches", "shapes as they come", "not channels last")
    monkeypatch.setattr(variants, "MEASURES", [measure for measure in MEASURES if measure.without in some])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("training: {num_train_epochs: 1}\n")
    family = ["--model.family", "rt_detr", "--model.square_edge", "64", "--model.config.num_denoising", "4"]
    flags = [flag for flag in FLAGS if flag not in ("--model.shortest_edge", "64")]
    assert main(["benchmark", str(recipe), *flags, *family, "--rounds", "1", "--steps", "1"]) == 0
    printed = capsys.readouterr().out
    assert "squares of 64 pixels" in printed
    rows = [line.split("  ")[0] for line in printed.splitlines() if line.startswith(("stock", "ours"))]
    assert rows == ["stock", "ours", "ours, not channels last"]


def test_figures_over_rounds() -> None:
    def measured(seconds: float) -> Measurement:
        return Measurement(
            images=8,
            seconds=seconds,
            waiting_seconds=1,
            pixels=200,
            image_pixels=150,
            flops=30.0,
            peak_bytes=7,
            steps=4,
        )

    stock, ours = Row("stock", [measured(16), measured(8), measured(8)]), Row("ours", [measured(4), measured(4)])
    figures = ours.as_dict(stock, peak=15.0)
    assert figures["ratio_to_stock"] == 3  # the median of 4 and 2
    assert figures["seconds_per_step"] == 1
    assert (figures["least"], figures["most"]) == (2, 2)
    assert figures["waiting_share"] == 0.25
    assert figures["padding_share"] == 0.25
    assert figures["arithmetic_share"] == 0.5  # 60 in 8 seconds, of 15 in one
    broken = Row("broken", failure="ValueError: matrix contains invalid numeric entries").as_dict(stock, 15.0)
    lines = table([stock.as_dict(stock, 15.0), figures, broken]).splitlines()
    assert lines[2].split()[:3] == ["ours", "1.000", "2.00"]
    assert lines[3] == "broken  fails: ValueError: matrix contains invalid numeric entries"


@pytest.mark.parametrize("wrong", [{"rounds": 0, "steps": 1}, {"rounds": 1, "steps": 0}])
def test_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match=r"--(rounds|steps): expected at least 1, found 0"):
        benchmark(None, FLAGS, **wrong)


def test_twenty_steps_of_stock_and_of_ours_give_the_same_losses(tmp_path: Path) -> None:
    """Photos of one shape, which stock's processor does not pad: padded, it would move the boxes."""
    flags = [
        *FLAGS,
        *("--model.square_edge", "64", "--model.auxiliary_losses", "false", "--model.trainable_stages", "[all]"),
        *("--model.config.dropout", "0", "--augment.preset", "none", "--training.per_device_train_batch_size", "4"),
        *("--training.backbone_learning_rate", "1e-4", "--training.weight_decay", "0", "--training.max_steps", "20"),
        *("--training.eval_strategy", "no", "--training.save_strategy", "no", "--training.use_cpu", "true"),
        *("--training.output_dir", str(tmp_path / "run"), "--speed.store_gigabytes", "0"),
        *("--speed.reduced_decoding", "false"),
    ]

    def losses(trainer: Trainer) -> list[float]:
        found: list[float] = []
        model: Any = trainer.model
        model.register_forward_hook(lambda *call: found.append(float(call[-1].loss.detach())))
        trainer.train()
        return found

    recipe = load_recipe(None, flags)
    splits = load_splits(recipe.data)
    torch.manual_seed(0)
    ours_trainer = build_job(recipe, splits).trainer
    torch.manual_seed(0)
    theirs = losses(build_baseline(recipe, splits))
    ours = losses(ours_trainer)
    assert len(ours) == len(theirs) == 20
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours[-1] < 0.95 * ours[0]
