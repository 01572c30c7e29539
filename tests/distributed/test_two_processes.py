"""One gradient, one AP, one set of drawn images: however the work is cut into processes and micro-batches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from hf_detr_ft import cli
from hf_detr_ft.training.trainer import DetrTrainer
from tests.distributed import one_step
from tests.distributed.table import largest_difference
from tests.fixtures import free_port
from tests.parity.cases import COUNTS, FAMILIES, UNLIKE, losses_and_gradients, ours, random_case
from tests.report.parsed import parse, table

REPOSITORY = Path(__file__).parents[2]


def launch(processes: int, *arguments: str) -> str:
    """Starts `accelerate launch`, which without `--multi_gpu` and a GPU starts one process, and does not say so.

    Returns:
        What was printed.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    command += ["--num_processes", str(processes), "--main_process_port", str(free_port())]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    finished = subprocess.run([*command, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def launched(folder: Path, job: list[str]) -> Path:
    """The folder that two processes wrote."""
    flags = ["--training.num_train_epochs", "1", "--training.per_device_train_batch_size", "2"]
    for kind in ("eval", "save"):
        flags += [f"--training.{kind}_strategy", "steps", f"--training.{kind}_steps", "1"]
    flags += ["--data.test_annotations", "annotations/custom_val.json", "--data.test_images", "val2017"]
    launch(2, "-m", "tests.distributed", str(folder), *job, *flags, "--report.enabled", "true")
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """One process, all four images in one batch."""
    one_step.run(folder, "whole", batch=4, accumulation=1)
    return read(folder, "whole")


def read(folder: Path, name: str) -> tuple[dict[str, torch.Tensor], dict]:
    return load_file(folder / f"{name}.safetensors"), json.loads((folder / f"{name}.json").read_text())


def relative_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert found.keys() == expected.keys()
    flat = [torch.cat([gradients[name].flatten() for name in expected]) for gradients in (found, expected)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def assert_same_step(found: tuple[dict, dict], expected: tuple[dict, dict]) -> None:
    assert relative_difference(found[0], expected[0]) < 1e-4
    for name, value in expected[1]["logged"].items():
        assert found[1]["logged"][name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 2), (1, 4)])
def test_accumulation(folder: Path, whole: tuple[dict, dict], batch: int, accumulation: int) -> None:
    name = f"accumulated_{accumulation}"
    one_step.run(folder, name, batch, accumulation)
    assert_same_step(read(folder, name), whole)


@pytest.mark.parametrize(("batch", "accumulation"), one_step.DIVISIONS)
def test_two_processes(launched: Path, whole: tuple[dict, dict], batch: int, accumulation: int) -> None:
    found = read(launched, f"two_processes_{accumulation}")
    assert found[1]["processes"] == 2
    assert_same_step(found, whole)
    one, two = (
        load_file(launched / f"{name}_average.safetensors") for name in ("whole", f"two_processes_{accumulation}")
    )
    assert max(float((two[name] - tensor).abs().max()) for name, tensor in one.items()) < 1e-6
    first, second = found[1]["evaluations"]
    assert first == second
    assert first["images"] == 7
    assert first["detections"] == 7 * 12  # each image once, and each of the 12 queries of an image
    expected = whole[1]["evaluations"][0]
    assert first["metrics"] == pytest.approx(expected["metrics"], abs=1e-3)
    assert first["loss"] == pytest.approx(expected["loss"], rel=1e-3), (
        "an image was counted twice, or not as one of all"
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_losses_of_two_processes_add_up_to_those_of_one(launched: Path, name: str) -> None:
    whole = losses_and_gradients(ours(name), *random_case(name, COUNTS["objects"], UNLIKE))
    halves = [load_file(launched / "shares" / f"{rank}.safetensors") for rank in range(2)]
    for key, value in whole.items():
        first, second = (half[f"{name}/{key}"] for half in halves)
        if key.startswith("d "):
            torch.testing.assert_close(torch.cat([first, second], dim=1), value, rtol=1e-4, atol=1e-7)
        else:
            torch.testing.assert_close(first + second, value, rtol=1e-5, atol=1e-6)


def test_two_processes_go_on_without_an_unreadable_photo_as_one_does(launched: Path, folder: Path) -> None:
    one_step.run(folder, "unreadable_alone", 4, 1, unreadable=True)
    found, alone = read(launched, "unreadable"), read(folder, "unreadable_alone")
    assert_same_step(found, alone)
    assert found[1]["skipped"] == alone[1]["skipped"] == {"training": [103], "validation": [106]}
    assert [evaluation["detections"] for evaluation in found[1]["evaluations"]] == [6 * 12] * 2


def test_two_processes_train_and_measure_masks_as_one_does(launched: Path, folder: Path) -> None:
    one_step.run(folder, "masks_alone", 4, 1, masks=True)
    found, alone = read(launched, "masks"), read(folder, "masks_alone")
    assert {name.split(".")[0] for name in found[0]} == {"mask_head", "bbox_attention"}
    assert found[1]["logged"]["loss_dice"] > 0
    assert_same_step(found, alone)
    first, second = found[1]["evaluations"]
    assert first == second and len(first["mask_metrics"]) == 12
    assert first["mask_metrics"] == pytest.approx(alone[1]["evaluations"][0]["mask_metrics"], abs=1e-3)


def test_two_processes_give_all_images_of_a_step_one_size(launched: Path, folder: Path) -> None:
    one_step.run(folder, "sizes_alone", 4, 1, edges=(48, 64, 80, 96))
    assert_same_step(read(launched, "sizes"), read(folder, "sizes_alone"))


def test_two_processes_get_the_same_images_each_drawn_once(launched: Path) -> None:
    first, second = (json.loads((launched / "drawn" / f"{rank}.json").read_text()) for rank in range(2))
    assert first["digests"] == second["digests"]
    assert first["fingerprints"] == second["fingerprints"]
    assert sorted(first["drawn"] + second["drawn"]) == [5, 20]


def test_the_first_process_reads_for_the_second(launched: Path) -> None:
    first, second = (json.loads((launched / "read" / f"{rank}.json").read_text()) for rank in range(2))
    assert first["read"] == {"read_coco": 2, "read_image": 6, "cached_images_key": 1}
    assert set(second["read"].values()) == {0}
    assert first["got"] == second["got"]
    assert first["got"][3]["start"] > 0


def test_what_the_first_process_finds_wrong_ends_the_second_too(launched: Path) -> None:
    first, second = (json.loads((launched / "read_broken" / f"{rank}.json").read_text()) for rank in range(2))
    assert first["got"] == second["got"]
    assert "error [missing-image]" in first["got"][0]
    assert set(second["read"].values()) == {0}


def test_an_image_that_is_missing_from_an_evaluation_is_noticed(folder: Path) -> None:
    trainer = one_step.build(folder / "missing", batch=4, accumulation=1)
    trainer.truth = {**trainer.truth, "images": [*trainer.truth["images"], {"id": 999, "height": 5, "width": 5}]}
    with pytest.raises(AssertionError, match="counted"):
        trainer.evaluate()


def test_train_in_three_processes_is_the_training_of_one(
    job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 training and 2 validation images, so that the third process has none of its own in each last batch.

    The test split is the validation's images: the weights of the best evaluation have its result.
    """
    whole, run = tmp_path / "one", tmp_path / "run"
    flags = ["--training.num_train_epochs", "2", "--data.train_limit", "10", "--model.config.dropout", "0"]
    flags += ["--training.ema_decay", "0.9", "--data.balance", "0.9"]
    flags += ["--data.test_annotations", "annotations/custom_val.json", "--data.test_images", "val2017"]
    alone = ["--training.per_device_train_batch_size", "6"]
    assert cli.main(["train", *job, *flags, *alone, "--training.output_dir", str(whole)]) == 0
    folder = ("--training.output_dir", str(run), "--report.enabled", "true")
    printed = launch(3, "train.py", *job, *flags, "--training.per_device_train_batch_size", "2", *folder)
    assert printed.count("best AP") == 1, "only the first process prints"
    assert yaml.safe_load((run / "recipe.yaml").read_text())["made_with"]["processes"] == 3
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["last"]["step"], metrics["last"]["epoch"]) == (4, 2.0)
    assert metrics["best"]["images"] == 2
    of_test, of_best = (
        {name: values[name] for name in values if name != "annotations_sha256"}
        for values in (metrics["test"], metrics["best"])
    )
    assert of_test == {name: of_best[name] for name in of_test}
    assert_whole(run, metrics["best"])
    assert largest_difference(run, whole) < 1e-3
    resumed = ["--training.output_dir", str(run), "--training.resume_from_checkpoint", str(run / "checkpoint-2")]
    assert cli.main(["train", *job, *flags, *alone, *resumed]) == 0
    assert largest_difference(run, whole) < 1e-3
    monkeypatch.delattr(DetrTrainer, "evaluate_test")  # once is enough
    resumed[-1] = "last"
    assert cli.main(["train", *job, *flags, *alone, *resumed]) == 0
    assert json.loads((run / "metrics.json").read_text())["test"].keys() == metrics["test"].keys()


def assert_whole(run: Path, best: dict) -> None:
    """Weights, rows, model card and page are those of the best evaluation of two."""
    weights, saved = (load_file(path / "model.safetensors") for path in (run, run / f"checkpoint-{best['step']}"))
    assert weights.keys() == saved.keys()
    assert all(torch.equal(weights[name], saved[name]) for name in weights)
    assert len((run / "results.csv").read_text().splitlines()) == 1 + 2
    assert f"{best['metrics']['map']:.3f}" in (run / "README.md").read_text()
    rows = table(parse((run / "report.html").read_text()), "coco")[1]
    assert [row[1] for row in rows.values()] == [None if v < 0 else v for v in best["metrics"].values()]


def test_a_process_without_boxes_goes_on_with_the_others(launched: Path) -> None:
    folder = launched / "few_boxes"
    assert [(folder / f"status {rank}").read_text() for rank in range(2)] == ["0", "0"]
    header, *rows = (folder / "run" / "results.csv").read_text().splitlines()
    assert len(rows) == 2
    assert "loss_vfl_dn_0" in header


def test_two_processes_choose_alike_by_the_one_with_less_memory(launched: Path) -> None:
    first, second = (json.loads((launched / f"chosen {rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["training.per_device_train_batch_size"][0] == 1, "two of the four images of a step are this process's"
    assert first["training.gradient_accumulation_steps"][0] == 2


def test_a_page_that_fails_leaves_the_training_of_two_processes_whole(launched: Path) -> None:
    ends = [(launched / f"status {rank}").read_text() for rank in range(2)]
    assert ends == ["0, seed 42", "0, seed 43"], "dropout would be the same in both"
    run = launched / "without_page"
    assert not (run / "report.html").exists()
    best = json.loads((run / "metrics.json").read_text())["best"]
    saved = load_file(run / f"checkpoint-{best['step']}" / "model.safetensors")
    weights = load_file(run / "model.safetensors")
    assert all(torch.equal(weights[name], saved[name]) for name in saved)
    first, second = (load_file(launched / f"tested {rank}.safetensors") for rank in range(2))
    assert best["step"] < 3 and all(torch.equal(first[name], second[name]) for name in first), "not the best in both"
    assert (run / "README.md").is_file() and (run / "config.json").is_file()


def test_a_stream_trains_as_local_reading_of_the_same_images_in_two_processes_of_two_workers(launched: Path) -> None:
    first, second = (json.loads((launched / "streamed" / f"{rank}.json").read_text()) for rank in range(2))
    streamed, local = first["streamed"], first["local"]
    assert streamed["steps"] == local["steps"] == second["streamed"]["steps"]
    assert streamed["losses"] == pytest.approx(local["losses"], rel=1e-6)
    assert len(streamed["losses"]) == 4
    assert sorted(image for images in streamed["steps"] for image in images) == list(range(1, 17))
    assert len(first["streamed"]["own"]) == len(second["streamed"]["own"]) == 4, "each process has its half"
