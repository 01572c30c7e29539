import csv
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState

from hf_detr_ft.atomic import write_json, write_text
from hf_detr_ft.data.splits import load_splits
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.evaluation.coco_result import CocoResult
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.recipe.sections import DataConfig
from hf_detr_ft.recipe.training_arguments import DetrTrainingArguments
from hf_detr_ft.run_folder import RunFolder
from hf_detr_ft.training.callbacks import (
    ProgressLines,
    RunFolderCallback,
    keep_detections,
    restore_callbacks,
    restore_detections,
    write_results_csv,
)
from hf_detr_ft.training.trainer import DetrTrainer
from tests.fixtures import tiny_processor, trainable_tiny_detr, write_coco_folder

ABOUT = {"data": {"name": "drawn", "split": "validation"}, "base_model": None}


def result(hits: int) -> CocoResult:
    """Evaluation in which so many of ten objects are found."""
    images = [{"id": n} for n in range(10)]
    objects = [{"id": n, "image_id": n, "category_id": 7, "bbox": [0, 0, 40, 40], "area": 1600} for n in range(10)]
    coco = {"images": images, "annotations": objects, "categories": [{"id": 7, "name": 'a "b", c'}]}
    return evaluate_detections(coco, found(hits))


def found(hits: int) -> Detections:
    entries = [{"image_id": n, "category_id": 7, "bbox": [0, 0, 40, 40], "score": 0.5} for n in range(hits)]
    return Detections.from_results(entries)


def arguments(run: Path, **given: Any) -> DetrTrainingArguments:
    return DetrTrainingArguments(output_dir=str(run), bf16=False, use_cpu=True, **given)


class Run:
    """Evaluations one after the other, as the Trainer reports them."""

    def __init__(self, folder: Path, state: TrainerState | None = None, **given: Any) -> None:
        self.args = arguments(folder, **given)
        self.current: CocoResult | None = None
        self.found: Detections | None = None
        self.callback = RunFolderCallback(lambda: self.current, lambda: self.found, ABOUT)
        self.state = state or TrainerState(is_world_process_zero=True)
        self.callback.on_train_begin(self.args, self.state, TrainerControl())

    def evaluate(self, hits: int, **more: float) -> None:
        self.current, self.found = result(hits), found(hits)
        self.state.global_step += 5
        self.state.epoch = self.state.global_step / 5
        where = {"epoch": self.state.epoch, "step": self.state.global_step}
        metrics = {f"eval_{name}": value for name, value in {**self.current.metrics, **more}.items()}
        self.state.log_history += [{"loss": 1 / self.state.global_step, **where}, {**metrics, **where}]
        self.callback.on_evaluate(self.args, self.state, TrainerControl(), metrics=metrics)

    def read(self) -> dict:
        return read_json(Path(self.args.output_dir) / "metrics.json")

    def epochs(self) -> tuple[float, float]:
        written = self.read()
        return written["best"]["epoch"], written["last"]["epoch"]


def read_json(path: Path) -> Any:
    """Strictly: NaN and Infinity, which Python would take, are no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_metrics_json_holds_the_best_and_the_last_evaluation(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for hits in (3, 8, 5):
        run.evaluate(hits)
    written = run.read()
    assert run.epochs() == (2.0, 3.0)
    assert (written["best"]["step"], written["last"]["step"]) == (10, 15)
    assert written["best"]["map"] == written["best"]["metrics"]["map"] == pytest.approx(81 / 101)
    assert CocoResult.from_dict(written["best"]) == result(8)
    assert CocoResult.from_dict(written["last"]) == result(5)
    assert written["best"]["per_class"][0]["name"] == 'a "b", c'
    assert written["best"]["metrics"]["map_large"] == -1
    assert {key: written[key] for key in ABOUT} == ABOUT
    assert [row["step"] for row in read_csv(tmp_path / "results.csv")] == ["5", "10", "15"]


def test_of_equal_evaluations_the_first_is_the_best_as_for_the_trainer(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for hits in (0, 4, 4):
        run.evaluate(hits)
    assert run.epochs() == (2.0, 3.0)


@pytest.mark.parametrize("name", ["eval_loss", "loss"])
def test_the_best_is_by_the_chosen_metric(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path, metric_for_best_model=name)
    for hits, loss in ((9, 0.5), (1, 0.25), (10, 0.75)):
        run.evaluate(hits, loss=loss)
    assert run.epochs() == (2.0, 3.0)
    assert run.read()["best"]["loss"] == 0.25


def train(
    data: Path,
    run: Path,
    epochs: int,
    *,
    resume: Path | None = None,
    patience: int | None = None,
    **settings: Any,
) -> RunFolderCallback:
    """A real run of one step an epoch, with a checkpoint after each."""
    splits, processor = load_splits(DataConfig(root=str(data))), tiny_processor(48, 80)
    train_rows, val_rows = (transformed(rows, DetrTransform(processor)) for rows in (splits.train, splits.val))
    settings |= {"num_train_epochs": epochs, "save_total_limit": None, "logging_steps": 1, "disable_tqdm": True}
    trainer = DetrTrainer(
        trainable_tiny_detr(),
        arguments(run, **settings, greater_is_better=False, metric_for_best_model="loss_bbox"),
        train_dataset=train_rows,
        eval_dataset=val_rows,
        truth=splits.truth,
        label_map=splits.label_map,
        processor=processor,
    )
    callback = RunFolderCallback(lambda: trainer.result, lambda: trainer.detections, ABOUT)
    trainer.add_callback(callback)
    if patience is not None:
        trainer.add_callback(EarlyStoppingCallback(patience))
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return callback


@pytest.mark.parametrize(("best", "kept"), [(True, 8), (False, 5)])
def test_the_detections_are_those_of_the_weights_in_the_run_folder(tmp_path: Path, best: bool, kept: int) -> None:
    run = Run(tmp_path, load_best_model_at_end=best, eval_strategy="epoch")
    for hits in (3, 8, 5):
        run.evaluate(hits)
    assert len(Detections.from_npz((tmp_path / "detections.npz").read_bytes())) == kept


def test_resuming_forgets_detections_of_evaluations_behind_the_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.evaluate(3)
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    keep_detections(RunFolder(tmp_path), checkpoint)
    run.evaluate(8)
    restore_detections(checkpoint, RunFolder(tmp_path))
    assert len(Detections.from_npz((tmp_path / "detections.npz").read_bytes())) == 3
    (checkpoint / "detections.npz").unlink()  # a checkpoint of an earlier version
    restore_detections(checkpoint, RunFolder(tmp_path))
    assert not (tmp_path / "detections.npz").exists()


def test_a_run_without_evaluation_keeps_its_log(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.state.log_history = [{"loss": 1.5, "step": 1}]
    run.callback.on_train_end(run.args, run.state, TrainerControl())
    assert [path.name for path in tmp_path.iterdir()] == ["trainer_state.json"]
    assert TrainerState.load_from_json(str(tmp_path / "trainer_state.json")).log_history == run.state.log_history


def test_a_resumed_run_ends_with_the_files_of_one_that_was_not(tmp_path: Path) -> None:
    data = write_coco_folder(tmp_path / "data", val_sizes=[(48, 64)])
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(data, whole, 3)
    train(data, resumed, 2)
    train(data, resumed, 3, resume=resumed / "checkpoint-2")
    assert (whole / "detections.npz").read_bytes() == (resumed / "detections.npz").read_bytes()
    steps, again = (
        [{name: value for name, value in entry.items() if not name.endswith(TIMINGS)} for entry in log_of(run)[:-1]]
        for run in (whole, resumed)  # the last entry is about the time since the start
    )
    assert again == steps
    assert [entry["step"] for entry in steps if "loss" in entry] == [1, 2, 3]
    assert all(entry["backbone_learning_rate"] == 1e-5 for entry in steps if "loss" in entry)
    written = read_json(whole / "metrics.json")
    assert read_json(resumed / "metrics.json") == written
    assert written["last"]["epoch"] == 3.0
    rows = read_csv(whole / "results.csv")
    assert [row["epoch"] for row in rows] == ["1.0", "2.0", "3.0"]
    assert without_timings(read_csv(resumed / "results.csv")) == without_timings(rows)
    assert list(read_csv(resumed / "results.csv")[0]) == list(rows[0])
    table = CocoResult.from_dict(written["best"]).table()
    saved = json.loads((resumed / "checkpoint-2" / "trainer_state.json").read_text())["stateful_callbacks"]
    best = saved["RunFolderCallback"]["attributes"]["best"]
    assert list(best["metrics"])[3] == "map_large"  # the Trainer sorts names
    assert CocoResult.from_dict(best).table().splitlines()[4:7] == table.splitlines()[4:7]


def test_patience_counts_on_over_an_interruption(tmp_path: Path) -> None:
    data, still = write_coco_folder(tmp_path / "data", val_sizes=[(48, 64)]), {"learning_rate": 0.0}
    still["backbone_learning_rate"] = 0.0
    assert train(data, tmp_path / "whole", 8, patience=3, **still).last["epoch"] == 4.0
    run = tmp_path / "run"
    train(data, run, 3, patience=3, **still)
    assert train(data, run, 8, patience=3, resume=run / "checkpoint-3", **still).last["epoch"] == 4.0


@pytest.mark.parametrize("given", [{"patience": 2}, {"restore_callback_states_from_checkpoint": True}])
def test_a_callback_can_be_added_when_resuming(tmp_path: Path, given: dict) -> None:
    data, run = write_coco_folder(tmp_path / "data", val_sizes=[(48, 64)]), tmp_path / "run"
    train(data, run, 1)
    assert train(data, run, 2, resume=run / "checkpoint-1", **given).last["epoch"] == 2.0


def test_a_resumed_run_can_have_another_metric(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.evaluate(5)
    run.args = arguments(tmp_path, metric_for_best_model="map_50")
    run.evaluate(3)
    assert run.epochs() == (2.0, 2.0)


TIMINGS = ("_runtime", "_per_second")


def log_of(run: Path) -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return log


def without_timings(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    timings = {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    return [{name: value for name, value in row.items() if name not in timings} for row in rows]


def test_a_best_from_before_the_interruption_stays_the_best(tmp_path: Path) -> None:
    data, run = write_coco_folder(tmp_path / "data", val_sizes=[(48, 64)]), tmp_path / "run"
    train(data, run, 1)
    state = run / "checkpoint-1" / "trainer_state.json"
    saved = json.loads(state.read_text())
    saved["stateful_callbacks"]["RunFolderCallback"]["attributes"]["best"]["loss_bbox"] = 0.0
    state.write_text(json.dumps(saved))
    callback = train(data, run, 2, resume=run / "checkpoint-1")
    assert callback.best is not None
    assert callback.best["epoch"] == 1.0
    assert [read_json(run / "metrics.json")[which]["epoch"] for which in ("best", "last")] == [1.0, 2.0]


def test_a_fresh_start_takes_nothing_from_an_earlier_run(tmp_path: Path) -> None:
    earlier = Run(tmp_path)
    earlier.evaluate(9)
    state = TrainerState(is_world_process_zero=True, stateful_callbacks=[earlier.callback])
    run = Run(tmp_path, state)
    run.evaluate(1)
    assert run.read()["best"]["map"] == pytest.approx(11 / 101)


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    run = Run(tmp_path, TrainerState(is_world_process_zero=False))
    run.evaluate(3)
    assert list(tmp_path.iterdir()) == []
    assert run.callback.best is not None


def test_without_a_result_there_is_nothing_to_write(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.callback.on_evaluate(run.args, run.state, TrainerControl(), metrics={"eval_loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_row_has_the_means_of_the_losses_since_the_row_before(tmp_path: Path) -> None:
    history: list[dict[str, Any]] = [
        {"loss": 4.0, "loss_ce": 1.0, "learning_rate": 1e-4, "epoch": 0.5, "step": 1},
        {"loss": 2.0, "learning_rate": 3e-4, "epoch": 1.0, "step": 2},
        {"eval_map": 0.25, "eval_loss": 5.0, "epoch": 1.0, "step": 2},
        {"eval_map": 0.5, "eval_loss": 4.0, "epoch": 2.0, "step": 4},
        {"loss": float("nan"), "epoch": 2.5, "step": 5},
        {"loss": 8.0, "epoch": 3.0, "step": 6},
        {"eval_map": 0.75, "eval_note": 'a "quoted", text\nof two lines', "epoch": 3.0, "step": 6},
        {"loss": 9.0, "epoch": 3.5, "step": 7},
        {"train_loss": 3.0, "train_runtime": 9.0, "epoch": 3.5, "step": 7},
    ]
    write_results_csv(tmp_path / "results.csv", history)
    first, second, third = rows = read_csv(tmp_path / "results.csv")
    assert list(first)[:2] == ["epoch", "step"]
    assert [(row["epoch"], row["step"], row["eval_map"]) for row in rows] == [
        ("1.0", "2", "0.25"),
        ("2.0", "4", "0.5"),
        ("3.0", "6", "0.75"),
    ]
    assert float(first["train_loss"]) == 3.0
    assert float(first["train_learning_rate"]) == pytest.approx(2e-4)
    assert float(first["train_loss_ce"]) == 1.0
    assert (second["train_loss"], second["train_learning_rate"]) == ("", "")
    assert float(third["train_loss"]) == 8.0
    assert (third["eval_loss"], third["eval_note"]) == ("", 'a "quoted", text\nof two lines')
    assert first["eval_note"] == ""


def test_losses_that_are_all_nan_are_an_empty_cell(tmp_path: Path) -> None:
    history = [{"loss": float("nan"), "epoch": 1.0, "step": 1}, {"eval_map": 0.5, "epoch": 1.0, "step": 1}]
    write_results_csv(tmp_path / "results.csv", history)
    assert read_csv(tmp_path / "results.csv")[0]["train_loss"] in ("", "nan")


def test_no_evaluation_is_a_file_without_rows(tmp_path: Path) -> None:
    write_results_csv(tmp_path / "results.csv", [{"loss": 1.0, "epoch": 1.0, "step": 1}])
    assert read_csv(tmp_path / "results.csv") == []


class Unprintable:
    def __str__(self) -> str:
        raise OSError("no space left")


def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "metrics.json", {"map": 1})
    write_results_csv(tmp_path / "results.csv", [{"eval_map": 0.5, "epoch": 1.0, "step": 1}])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"metrics.json", "results.csv"}

    bad = [{"eval_map": 0.1, "epoch": 1.0, "step": 1}] * 3 + [{"eval_map": Unprintable(), "epoch": 2.0, "step": 2}]
    with pytest.raises(OSError, match="no space left"):
        write_results_csv(tmp_path / "results.csv", bad)
    real = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        real(path, content[: len(content) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="no space left"):
        write_text(tmp_path / "metrics.json", '{"map": 2}')
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, -1.0, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1, -1.0, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"map": float("nan")})
    assert read_json(tmp_path / "a.json") == {"é": [1, -1.0, None]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


class Bar:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


def test_progress_lines_say_losses_and_ap(tmp_path: Path) -> None:
    lines, bar, args = ProgressLines(), Bar(), arguments(tmp_path)
    lines.training_bar = bar
    state = TrainerState(epoch=1.5, global_step=12, is_world_process_zero=True)
    for logs in (
        {"loss": 2.5, "loss_ce": 0.125, "grad_norm": 3.0, "learning_rate": 1e-5, "loss_ce_0": 9.0},
        {"eval_map": 0.25, "eval_map_50": 0.5, "eval_loss": 3.0},
        {"train_runtime": 3.0},
        {},
    ):
        lines.on_log(args, state, TrainerControl(), logs=logs)
    assert bar.lines == [
        "epoch 1.50  step 12  loss 2.5  loss_ce 0.125  grad_norm 3  learning_rate 1e-05",
        "epoch 1.50  step 12  evaluation: map 0.250  map_50 0.500  loss 3.000",
    ]
    state.is_world_process_zero = False
    lines.on_log(args, state, TrainerControl(), logs={"loss": 1.0})
    assert len(bar.lines) == 2


@pytest.mark.parametrize(("every", "expected"), [(2, ["2.0", "4.0", "5.0"]), (9, ["5.0"])])
def test_evaluation_in_every_nth_epoch_and_in_the_last(tmp_path: Path, every: int, expected: list[str]) -> None:
    data, run = write_coco_folder(tmp_path / "data", val_sizes=[(48, 64)]), tmp_path / "run"
    train(data, run, 5, eval_epochs=every)
    assert [row["epoch"] for row in read_csv(run / "results.csv")] == expected
    assert {path.name for path in run.glob("checkpoint-*")} == {f"checkpoint-{float(epoch):.0f}" for epoch in expected}


def test_patience_counts_evaluations_and_not_epochs(tmp_path: Path) -> None:
    data, run = write_coco_folder(tmp_path / "data", val_sizes=[(48, 64)]), tmp_path / "run"
    still = {"learning_rate": 0.0, "backbone_learning_rate": 0.0}
    train(data, run, 9, patience=2, eval_epochs=2, **still)
    assert [row["epoch"] for row in read_csv(run / "results.csv")] == ["2.0", "4.0", "6.0"]
    assert read_json(run / "metrics.json")["best"]["epoch"] == 2.0


def test_two_callbacks_of_one_class_go_on_each_with_its_own_state() -> None:
    class Counting(TrainerCallback, ExportableState):
        def __init__(self, count: int) -> None:
            self.count = count

        def state(self) -> dict:
            return {"args": {}, "attributes": {"count": self.count}}

    callbacks = [Counting(0), Counting(0), Counting(7)]
    stateful: dict = {"Counting": [Counting(3).state(), Counting(5).state()]}
    restore_callbacks(callbacks, stateful)
    assert [callback.count for callback in callbacks] == [3, 5, 7], "the last one was added"
    assert len(stateful["Counting"]) == 3

    alone: dict = {}
    restore_callbacks(callbacks[:1], alone)
    assert alone == {"Counting": callbacks[0].state()}
