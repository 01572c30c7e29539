"""Result, curves, how it was made and problems: every number is that of metrics.json, and what is missing is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.errors import DataError
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.report.blocks import Collapsible, Plot
from hf_detr_ft.report.load_run import LoadedRun, load_run
from hf_detr_ft.report.pages import ReportData, build_check_page, build_comparison_page, build_run_page
from hf_detr_ft.report.render_page import render_page
from hf_detr_ft.report.sections.curve_section import describe_curves
from hf_detr_ft.run_folder import RunFolder
from tests.report.constructed import NAMES, detections, history, truth, validation, views, write_run
from tests.report.parsed import Element, parse, table

METRICS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
METRICS += ("mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large")


def page_of(record: LoadedRun) -> Element:
    return parse(render_page(build_run_page(record, ReportData())))


def notes(page: Element) -> str:
    return "\n".join(note.text() for note in page.all("p", class_="note"))


def defined(value: float) -> float | None:
    return None if value < 0 else value


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", tmp_path / "data")


def test_every_number_of_the_tables_is_that_of_metrics_json(run: Path) -> None:
    page, metrics = page_of(load_run(RunFolder(run))), json.loads((run / "metrics.json").read_text())
    best, last = metrics["best"], metrics["last"]
    columns, coco = table(page, "coco")
    assert columns == ["", "Of", "Best (epoch 1)", "Last (epoch 2)"]
    assert [row[1:] for row in coco.values()] == [
        [defined(best["metrics"][name]), defined(last["metrics"][name])] for name in METRICS
    ]
    _, sizes = table(page, "sizes")
    for (name, row), size in zip(sizes.items(), ("small", "medium", "large"), strict=True):
        assert name.startswith(size)
        assert row == [best["sizes"][size], *(defined(best["metrics"][f"{kind}_{size}"]) for kind in ("map", "mar"))]
    _, classes = table(page, "classes")
    assert classes == {
        row["name"]: [row["objects"], *(defined(row[key]) for key in ("ap", "ap_50", "ar_100"))]
        for row in best["per_class"]
    }
    f1 = best["best_f1"]
    _, threshold = table(page, "best-f1")
    assert threshold == {f"{f1['threshold']:.3f}": [f1["f1"], f1["precision"], f1["recall"]]}


def test_the_page_opens_with_images_ap_its_interval_and_its_curve(run: Path) -> None:
    page = parse(render_page(build_run_page(load_run(RunFolder(run)), views(validation(run.parent / "photos")))))
    sections = page.all("section")
    assert [section.attributes["id"] for section in sections[:3]] == ["overview", "gallery", "curves"]
    best = json.loads((run / "metrics.json").read_text())["best"]
    (numbers,) = sections[0].all("dl")
    shown = {number.all("dt")[0].text(): number.all("b")[0].text() for number in numbers.children}
    f1 = best["best_f1"]
    assert shown == {
        **{"AP": f"{best['metrics']['map']:.3f}", "AP50": f"{best['metrics']['map_50']:.3f}"},
        **{"Found": f"{100 * f1['recall']:.0f} %", "Right": f"{100 * f1['precision']:.0f} %"},
    }
    assert "with 95 % confidence" in numbers.text()
    assert [svg.attributes["aria-label"] for svg in sections[0].all("svg")] == ["average-precision"]
    assert len(page.all("svg", **{"aria-label": "average-precision"})) == 1, "a figure is drawn once"
    tables = [element.attributes["id"] for element in page.all("*") if element.tag in ("section", "table")]
    assert tables.index("gallery") < tables.index("curves") < tables.index("table-coco")


def test_a_test_split_is_named_apart(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data")
    metrics = json.loads((run / "metrics.json").read_text())
    test = {**metrics["best"], "metrics": {**metrics["best"]["metrics"], "map": 0.25}, "images": 9}
    (run / "metrics.json").write_text(json.dumps({**metrics, "test": test}))
    page = page_of(load_run(RunFolder(run)))
    assert table(page, "test")[1]["AP"][1] == 0.25
    assert "On the test split, 9 images with " in page.text() and "used to choose nothing" in page.text()
    assert "Test AP9 images that chose nothing0.250" in page.all("dl")[0].text()


def test_numbers_are_of_the_weights_in_the_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data", load_best_model_at_end=False)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["last"]["per_class"][0]["ap"] = 0.0625
    (run / "metrics.json").write_text(json.dumps(metrics))
    page = page_of(load_run(RunFolder(run)))
    assert table(page, "classes")[1][NAMES[0]][1] == 0.0625
    assert "AP 0.125" in page.all("header")[0].text()
    assert "holds the weights of the last evaluation" in page.text()


def test_a_threshold_is_shown_as_it_is() -> None:
    evaluation = evaluate_detections(truth(), detections()).as_dict()
    evaluation["best_f1"]["threshold"] = 0.73
    record = LoadedRun("a", {"best": evaluation})
    assert record.threshold == 0.73
    assert list(table(page_of(record), "best-f1")[1]) == ["0.730"]


@pytest.mark.parametrize("found", [detections(), Detections.empty()])
def test_no_object_at_all_is_said(found: Detections) -> None:
    empty = {**truth(), "annotations": []}
    page = page_of(LoadedRun("a", {"best": evaluate_detections(empty, found).as_dict()}))
    assert "have no objects: AP is not defined" in notes(page)
    assert {value for row in table(page, "coco")[1].values() for value in row[1:]} == {None}
    assert "no detection matches an object" in page.text()
    assert "AP n/a" in page.text()
    assert not page.all("table", id="table-best-f1")


def test_a_class_that_is_never_predicted_has_zero_and_one_without_objects_is_not_defined() -> None:
    coco = truth()
    coco["categories"].append({"id": 9, "name": "no object has it"})
    page = page_of(LoadedRun("a", {"best": evaluate_detections(coco, Detections.empty()).as_dict()}))
    classes = table(page, "classes")[1]
    assert classes[NAMES[1]] == [2, 0.0, 0.0, 0.0]
    assert classes["no object has it"] == [0, None, None, None]


@pytest.mark.parametrize("count", [1, 80, 1203])
def test_any_number_of_classes(count: int) -> None:
    categories = [{"id": n, "name": f"class {n}"} for n in range(1, count + 1)]
    coco = {**truth(), "categories": categories, "annotations": []}
    page = page_of(LoadedRun("a", {"best": evaluate_detections(coco, Detections.empty()).as_dict()}))
    assert len(table(page, "classes")[1]) == min(count, 1000)
    assert bool(page.all("table", class_="sortable")) == (count > 1)
    assert ("203 more classes are in metrics.json." in notes(page)) == (count == 1203)


def test_no_evaluation_at_all(run: Path) -> None:
    (run / "metrics.json").unlink()
    log = [entry for entry in history(3) if "loss" in entry]
    (run / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    page = page_of(load_run(RunFolder(run)))
    assert "No evaluation took place (training.eval_strategy: no), so there is no result" in notes(page)
    assert "there is no AP" in notes(page)
    assert not page.all("table", id="table-coco")
    assert len(page.all("svg")) >= 9


@pytest.mark.parametrize(("epochs", "layers"), [(1, 1), (1, 6), (300, 6)])
def test_curves_of_one_epoch_and_of_three_hundred(run: Path, epochs: int, layers: int) -> None:
    (run / "trainer_state.json").write_text(json.dumps({"log_history": history(epochs, layers)}))
    html = render_page(build_run_page(load_run(RunFolder(run)), ReportData()))
    assert len(html) < 1_500_000
    page = parse(html)
    assert len(page.all("svg")) == 2 + 6 + 2 + (2 if layers > 1 else 0)
    assert [details.all("summary")[0].text() for details in page.all("details")][:1] == (
        ["Each decoder layer"] if layers > 1 else ["Versions"]
    )


@pytest.mark.parametrize(
    ("logged", "title", "names"),
    [
        ("loss_vfl loss_vfl_enc", "Each decoder layer, the encoder's proposals", ["loss-vfl-layers"]),
        (
            "loss_vfl loss_vfl_0 loss_vfl_enc loss_vfl_dn_0",
            "Each decoder layer, the encoder's proposals and denoising queries",
            ["loss-vfl-layers", "loss-vfl-denoising"],
        ),
    ],
)
def test_a_family_has_figures_of_what_else_it_learns_from(run: Path, logged: str, title: str, names: list[str]) -> None:
    log = [{"epoch": 1.0, **dict.fromkeys(logged.split(), 1.0)}]
    (run / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    blocks = describe_curves([load_run(RunFolder(run))]).blocks
    (layers,) = (block for block in blocks if isinstance(block, Collapsible))
    assert layers.title == title
    assert [plot.name for plot in layers.blocks if isinstance(plot, Plot)] == names


def test_without_a_log_there_are_no_curves(run: Path) -> None:
    (run / "trainer_state.json").unlink()
    assert "run: no log of the training" in notes(page_of(load_run(RunFolder(run))))


def test_the_log_of_an_interrupted_run_is_that_of_its_last_checkpoint(run: Path) -> None:
    (run / "trainer_state.json").unlink()
    for step in (9, 10, 2):
        folder = run / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history(step)}))
    assert len(load_run(RunFolder(run)).history) == 20


def test_files_that_are_cut_off_are_named(run: Path) -> None:
    (run / "metrics.json").write_text('{"best": {')
    with pytest.raises(DataError, match="metrics.json: expected JSON"):
        load_run(RunFolder(run))


def test_how_it_was_made(run: Path) -> None:
    page = page_of(load_run(RunFolder(run)))
    facts = table(page, "making")[1]
    assert facts["Machine"] == ["a machine"]
    assert (facts["Time"], facts["Peak memory"]) == (["1 min 15 s"], ["1.00 GiB on the first process"])
    commands, recipe = (code.text() for code in page.all("pre"))
    assert f"hf-detr-ft report {run}" in commands
    assert f"accelerate launch train.py {run}/recipe.yaml --training.output_dir {run}_again" in commands
    assert recipe == (run / "recipe.yaml").read_text().strip()
    (run / "recipe.yaml").unlink()
    assert "run has no recipe.yaml" in notes(page_of(load_run(RunFolder(run))))


def test_several_runs_lie_side_by_side(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", tmp_path / "data", learning_rate=1e-4)
    second = write_run(tmp_path / "second", tmp_path / "data", found=Detections.empty(), learning_rate=2e-4)
    page = parse(render_page(build_comparison_page([load_run(RunFolder(first)), load_run(RunFolder(second))])))
    columns, coco = table(page, "coco")
    assert columns[2:] == ["first", "second"]
    expected = [json.loads((run / "metrics.json").read_text())["best"]["metrics"] for run in (first, second)]
    assert [row[1:] for row in coco.values()] == [[defined(m[name]) for m in expected] for name in METRICS]
    assert table(page, "best-f1")[1]["second"] == [None, 0.0, 0.0, 0.0]
    assert table(page, "differences")[1] == {"training.learning_rate": ["0.0001", "0.0002"]}
    svg = page.all("svg")[0]
    assert {"first", "second"} <= {text.text() for text in svg.all("text")}
    assert not notes(page)


def test_runs_on_other_data_are_not_to_be_compared(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", tmp_path / "data")
    second = write_run(tmp_path / "second", tmp_path / "more", coco=truth(5))
    records = [load_run(RunFolder(first)), load_run(RunFolder(second)), LoadedRun("third")]
    said = notes(parse(render_page(build_comparison_page(records))))
    assert "were evaluated on different data" in said
    assert "No evaluation took place in third." in said
    assert "third: no log" in said


def problem(severity: Any, kind: str, entry: str = "annotation id 3") -> Problem:
    return Problem(severity, kind, "a.json", entry, "expected <b>, found >", "correct it")


def test_problems_are_listed_by_kind_errors_first() -> None:
    many = [problem("warning", "small", f"annotation id {n}") for n in range(500)]
    page = parse(render_page(build_check_page("balloon", [*many, problem("error", "box")], None)))
    assert [summary.text() for summary in page.all("summary")] == ["error: box (1)", "warning: small (500)"]
    assert ["open" in details.attributes for details in page.all("details")] == [True, False]
    assert "1 error, 500 warnings." in page.text()
    assert table(page, "problem-box")[1] == {"annotation id 3": ["expected <b>, found >", "correct it", "a.json"]}
    assert len(table(page, "problem-small")[1]) == 200
    assert "None was found." in parse(render_page(build_check_page("balloon", [], None))).text()


def test_exported_files_are_told_with_what_was_measured(run: Path) -> None:
    (run / "export").mkdir()
    measured = {"files": ["model.onnx"], "runtime": "onnxruntime 1", "ap": 0.5, "ap_pytorch": 0.501}
    speeds = {"box_difference_px": 0.25, "images_per_second": 4, "images_per_second_pytorch": 2}
    (run / "export" / "model.onnx.json").write_text(json.dumps(measured | speeds))
    page = page_of(load_run(RunFolder(run)))
    (row,) = page.all("table", id="table-exports")[0].all("tbody")[0].all("tr")
    cells = [cell.text() for cell in (*row.all("th"), *row.all("td"))]
    assert cells == ["model.onnx", "onnxruntime 1", "0.5", "0.501", "0.25", "4", "2"]
