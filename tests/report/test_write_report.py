"""The report as a whole: it is made with the model that is there, and what fails in it loses nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_detr_ft.cli import main
from hf_detr_ft.data.splits import Splits, load_splits
from hf_detr_ft.inference.detect import load_detector
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.sections import Recipe
from hf_detr_ft.report.write_report import Report, write_report
from hf_detr_ft.run_folder import RunFolder
from tests.fixtures import as_flags, tiny_detr_with_spread_weights, tiny_processor, write_coco_folder
from tests.report.constructed import write_run
from tests.report.parsed import Element, parse

TITLES = [
    *("At a glance", "Gallery", "Curves", "Result", "Precision and recall", "Errors", "Attention", "Data"),
    "How it was made",
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    tiny_detr_with_spread_weights().save_pretrained(tmp_path / "run")
    tiny_processor().save_pretrained(tmp_path / "run")
    return write_run(tmp_path / "run", tmp_path / "data")


def read(run: Path) -> tuple[Recipe, Splits]:
    recipe = load_recipe(run / "recipe.yaml")
    return recipe, load_splits(recipe.data)


def page_of(report: Report) -> Element:
    assert report.page is not None
    return parse(report.page.read_text(encoding="utf-8"))


def notes_in(element: Element) -> list[str]:
    return [note.text() for note in element.all("p", class_="note")]


def raising(error: BaseException) -> Any:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


def test_it_is_made_with_the_model_that_is_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = load_detector(str(run))
    weights = [name for name in run.iterdir() if name.suffix == ".safetensors"]
    for path in weights:
        path.unlink()
    monkeypatch.setattr("hf_detr_ft.report.collect.load_detector", raising(AssertionError("loaded once more")))
    report = write_report(RunFolder(run), *read(run), model=model, processor=processor)
    assert report.notes == [] and report.picture == RunFolder(run).predictions
    assert [heading.text() for heading in page_of(report).all("h2")[1:]] == TITLES
    assert {"analysis", "splits"} <= json.loads((run / "metrics.json").read_text()).keys()


def test_a_validation_image_that_has_moved(run: Path, tmp_path: Path) -> None:
    recipe, splits = read(run)
    (tmp_path / "data" / "val2017" / "2.png").unlink()
    report = write_report(RunFolder(run), recipe, splits)
    assert report.picture is None
    assert len(page_of(report).all("article", class_="card")) == 3
    (note,) = [note for note in report.notes if "picture of predictions" in note]
    assert note.startswith("Left out: the picture of predictions.") and "2.png" in note
    assert note in notes_in(page_of(report))


def test_a_training_image_that_has_moved(run: Path, tmp_path: Path) -> None:
    recipe, splits = read(run)
    (tmp_path / "data" / "train2017" / "2.png").unlink()
    page = page_of(report := write_report(RunFolder(run), recipe, splits))
    (note,) = report.notes
    assert note.startswith("Left out: a training image.") and "2.png" in note
    assert page.all("table", id="table-data"), "the statistics need no images"
    (data,) = page.all("section", id="data")
    assert len(data.all("img")) == 2, "the other image with objects, plain and as the model sees it"


def test_a_section_that_fails_says_so_in_its_place(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = ValueError("Axes limits cannot be NaN\nand more")
    monkeypatch.setattr("hf_detr_ft.report.sections.error_section.plot_confusion", raising(fault))
    page = page_of(report := write_report(RunFolder(run), *read(run)))
    assert report.notes == ["Left out: the section Errors. ValueError: Axes limits cannot be NaN"]
    assert [heading.text() for heading in page.all("h2")[1:]] == TITLES
    (errors,) = page.all("section", id="errors")
    assert notes_in(errors) == report.notes


def test_a_figure_that_cannot_be_drawn_leaves_the_others(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_detr_ft.report import render_page

    to_svg = render_page.to_svg

    def draw(figure: Any, name: str, *more: Any) -> str:
        if name == "f1":
            raise RuntimeError("no such font")
        return to_svg(figure, name, *more)

    monkeypatch.setattr(render_page, "to_svg", draw)
    page = page_of(report := write_report(RunFolder(run), *read(run)))
    assert report.notes == ["Left out: the figure f1. RuntimeError: no such font"]
    (section,) = page.all("section", id="precision")
    assert "This figure could not be drawn." in section.text()
    assert section.all("svg") and section.all("table", id="table-calibration")


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_a_full_memory_leaves_out_one_image_of_attention(
    run: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from hf_detr_ft.report import collect

    attend, calls = collect.attend, []

    def attend_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["name"])
        if len(calls) == 1:
            raise error
        return attend(*args, **kwargs)

    monkeypatch.setattr(collect, "attend", attend_once)
    page = page_of(report := write_report(RunFolder(run), *read(run)))
    said = str(error).rstrip(".") or type(error).__name__
    assert report.notes == [f"Left out: the model's attention over {calls[0]}. {type(error).__name__}: {said}"]
    (attention,) = page.all("section", id="attention")
    assert [heading.text() for heading in attention.all("h3")] == calls[1:]


def test_an_attention_sample_that_cannot_be_drawn_leaves_the_other(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_detr_ft.report.sections import attention_section

    plot, calls = attention_section.plot_places, []

    def plot_second(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise MemoryError
        return plot(*args)

    monkeypatch.setattr(attention_section, "plot_places", plot_second)
    page = page_of(report := write_report(RunFolder(run), *read(run)))
    (note,) = report.notes
    assert note.endswith("MemoryError: MemoryError")
    (attention,) = page.all("section", id="attention")
    assert len(attention.all("h3")) == 1 and notes_in(attention) == [note]


def test_nothing_is_raised_where_the_page_itself_fails(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hf_detr_ft.report.write_report.render_page", raising(RecursionError("too deep")))
    report = write_report(RunFolder(run), *read(run))
    assert report.page is None and report.picture is not None
    assert report.notes == ["Left out: the page. RecursionError: too deep"]
    assert main(["report", str(run)]) == 1
    assert capsys.readouterr().out == "note      Left out: the page. RecursionError: too deep\n"
    assert {"analysis", "splits"} <= json.loads((run / "metrics.json").read_text()).keys()


def test_a_bug_outside_of_all_parts_is_not_raised_either(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_detr_ft.report.write_report.build_run_page", raising(KeyError("epoch")))
    report = write_report(RunFolder(run), *read(run))
    assert report.notes == ["Left out: the report. KeyError: 'epoch'"]


def test_an_interruption_is_raised(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_detr_ft.report.collect.attend", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_report(RunFolder(run), *read(run))


def test_a_metrics_file_that_is_cut_off_leaves_the_rest(run: Path) -> None:
    (run / "metrics.json").write_text('{"best": {')
    report = write_report(RunFolder(run), *read(run))
    assert "metrics.json: expected JSON" in report.notes[0]
    assert page_of(report).all("section", id="data")
    assert (run / "metrics.json").read_text() == '{"best": {', "it is not replaced"


@pytest.mark.parametrize("enabled", [True, False])
def test_a_training_writes_it_where_the_recipe_wants_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in it does not change the training's status."""
    monkeypatch.setattr("hf_detr_ft.report.pages.describe_curves", raising(ZeroDivisionError("a bug")))
    tiny_detr_with_spread_weights().save_pretrained(tmp_path / "model")
    flags = {
        "data.root": write_coco_folder(tmp_path / "data"),
        "model.checkpoint": tmp_path / "model",
        "model.shortest_edge": 64,
        "training.output_dir": tmp_path / "run",
        "training.max_steps": 1,
        "training.eval_strategy": "steps",
        "training.eval_steps": 1,
        "training.save_strategy": "no",
        "training.load_best_model_at_end": "false",
        "training.bf16": "false",
        "training.disable_tqdm": "true",
        "report.enabled": str(enabled).lower(),
    }
    assert main(["train", *as_flags(flags)]) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").is_file() == enabled
    assert (tmp_path / "run" / "plots" / "predictions.png").is_file() == enabled
    assert ("the page  " in out) == ("first look" in out) == enabled
    assert ("Left out: the section Curves. ZeroDivisionError: a bug" in out) == enabled
    assert (tmp_path / "run" / "model.safetensors").is_file() and "best AP" in out
    assert f"why so low  hf-detr-ft diagnose {tmp_path / 'run'}\n" in out
