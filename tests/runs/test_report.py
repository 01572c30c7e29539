"""`hf-detr-ft report` on run folders, with data and without, and at the end of a training."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from hf_detr_ft.cli import main
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.report import attention_sheet
from hf_detr_ft.runs.report import report
from tests.fixtures import (
    tiny_detr_with_spread_weights,
    tiny_processor,
    write_coco_folder,
    write_run_with_spread_weights,
)
from tests.report.constructed import truth, write_run
from tests.report.parsed import Element, parse, table


@pytest.fixture
def run(tmp_path: Path) -> Path:
    tiny_detr_with_spread_weights().save_pretrained(tmp_path / "run")
    tiny_processor().save_pretrained(tmp_path / "run")
    return write_run(tmp_path / "run", tmp_path / "data")


def read(path: Path) -> Element:
    return parse(path.read_text(encoding="utf-8"))


def said(page: Element) -> str:
    return "\n".join(note.text() for note in page.all("p", class_="note"))


def no_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the model is not to run")

    monkeypatch.setattr("hf_detr_ft.report.read_inputs.evaluate_model", refuse)


def test_the_page_and_its_pictures_lie_in_the_run_folder(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_inference(monkeypatch)
    for _ in range(2):  # once more replaces it
        assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"written: {run / 'report.html'}\n" * 2
    page = read(run / "report.html")
    assert len(page.all("article", class_="card")) == 4
    assert said(page) == ""
    assert [path.name for path in (run / "plots").rglob("*.png")] == ["predictions.png"], "figures are in the page"
    assert main(["report", str(run), "--plots"]) == 0
    pictures = {path.name for path in (run / "plots").glob("*.png")}
    assert {"loss.png", "average-precision.png", "learning-rates.png", "gradient-norm.png"} <= pictures
    assert {"precision-recall.png", "errors.png", "confusion.png", "class-balance.png"} <= pictures
    assert (run / "plots" / "photos" / "decoder-attention-1-1.png").is_file()
    headings = [heading.text() for heading in page.all("h2")]
    for title in (
        "Result",
        "Curves",
        "Precision and recall",
        "Errors",
        "Gallery",
        "Attention",
        "Data",
        "How it was made",
    ):
        assert title in headings
    assert all(Image.open(run / "plots" / name).format == "PNG" for name in pictures)


def test_the_numbers_of_analysis_and_data_are_those_in_metrics_json(run: Path) -> None:
    before = json.loads((run / "metrics.json").read_text())
    report([str(run)])
    page, metrics = read(run / "report.html"), json.loads((run / "metrics.json").read_text())
    assert {key: metrics[key] for key in before} == before
    analysis, splits = metrics["analysis"], metrics["splits"]
    kinds = table(page, "error-kinds")[1]
    assert list(kinds) == list(analysis["errors"])
    for name, kind in analysis["errors"].items():
        assert kinds[name][1:] == [kind["kept"], kind["count"], kind["gain"]]
    assert sum(kind["count"] for kind in analysis["errors"].values()) > 0
    found = table(page, "recall")[1]
    assert found == {size: [recall["found"], recall["objects"]] for size, recall in analysis["recall"].items()}
    intervals = table(page, "intervals")[1]
    for key, name in (("map", "AP"), ("map_50", "AP50"), ("map_75", "AP75")):
        interval = analysis["intervals"][key]
        assert intervals[name] == [metrics["best"]["metrics"][key], interval["low"], interval["high"]]
    assert table(page, "calibration")[1]["all"][1] == analysis["calibration"]["expected_error"]
    data = table(page, "data")[1]
    for row, key in (("images", "images"), ("objects", "objects"), ("without objects", "images_without_objects")):
        assert data[row] == [splits["training"][key], splits["validation"][key]]
    assert data["images"] == [4, 4] and data["objects"] == [4, 4]


def test_another_file_is_not_overwritten_unless_asked(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "mine.html"
    output.write_text("dear to me")
    assert main(["report", str(run), "--output", str(output)]) == 2
    assert "is there already. To replace it: --overwrite" in capsys.readouterr().err
    assert output.read_text() == "dear to me"
    assert main(["report", str(run), "--output", str(output), "--overwrite"]) == 0
    assert read(output).all("article")
    assert not (run / "report.html").exists() and not (run / "plots").exists()
    with pytest.raises(RecipeError, match="is a folder"):
        report([str(run)], output=tmp_path)
    with pytest.raises(RecipeError, match="in a folder that exists"):
        report([str(run)], output=tmp_path / "missing" / "a.html")


def test_data_that_have_moved_are_missed_and_found_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_inference(monkeypatch)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert main(["report", str(run)]) == 0
    page = read(run / "report.html")
    assert f"hf-detr-ft report {run} --data.root FOLDER" in said(page)
    assert "data: expected the folder of a data set, found nothing" in said(page)
    assert "The validation data cannot be read" in capsys.readouterr().out
    assert not page.all("article")
    best = json.loads((run / "metrics.json").read_text())["best"]
    assert table(page, "coco")[1]["AP"][1] == best["metrics"]["map"]
    assert main(["report", str(run), "--data.root", str(tmp_path / "elsewhere")]) == 0
    page = read(run / "report.html")
    assert len(page.all("article", class_="card")) == 4 and said(page) == ""


def test_photos_that_have_moved_leave_the_rest(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_inference(monkeypatch)
    shutil.rmtree(tmp_path / "data" / "val2017")
    assert report([str(run)]) == 0
    assert "4 photos cannot be shown" in said(read(run / "report.html"))


def test_runs_are_compared_in_the_current_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_run(tmp_path / "others" / "run", tmp_path / "data", found=Detections.empty())
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run), str(other)]) == 0
    page = read(tmp_path / "report.html")
    assert table(page, "coco")[0][2:] == [str(run), str(other)], "of the same name, so by their paths"
    assert main(["report", str(run), str(other)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    for sources, fault in (
        ([run, run], "one of them twice"),
        ([run, tmp_path], "found no metrics.json or recipe.yaml"),
    ):
        with pytest.raises(RecipeError, match=fault):
            report([str(source) for source in sources], output=tmp_path / "b.html")
    with pytest.raises(RecipeError, match="flags go with one run"):
        report([str(run), str(other)], ["--data.root", "x"], tmp_path / "b.html")
    assert not (tmp_path / "b.html").exists()


def test_a_training_of_the_original_lies_beside_ours(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    numbers = [0.11, 0.22, 0.33, *[0.4] * 9]
    lines = [{"epoch": epoch, "train_loss": 9.0, "train_lr": 1e-4, "n_parameters": 1} for epoch in range(2)]
    lines = [{**line, "test_coco_eval_bbox": numbers, "train_loss_bbox_unscaled": 0.5} for line in lines]
    (theirs / "log.txt").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run), str(theirs)]) == 0
    page = read(tmp_path / "report.html")
    columns, coco = table(page, "coco")
    assert columns[2:] == ["run", "theirs"] and [row[2] for row in coco.values()][:4] == numbers[:4]
    assert "theirs: a log of facebookresearch/detr" in said(page) and "different data" not in said(page)
    assert {"run", "theirs"} <= {text.text() for text in page.all("svg")[0].all("text")}
    assert list(table(page, "best-f1")[1]) == ["run"]
    assert main(["report", str(theirs), "--output", str(tmp_path / "alone.html")]) == 0
    assert "1 run" in read(tmp_path / "alone.html").text()
    assert [path.name for path in theirs.iterdir()] == ["log.txt"]
    assert main(["report", str(theirs), "--plots", "--output", "b.html"]) == 2
    assert "flags go with one run, found a log.txt of facebookresearch/detr" in capsys.readouterr().err


def drawn_run(tmp_path: Path) -> tuple[Path, Path]:
    """A run folder with weights over drawn photos, and the photos."""
    root = write_coco_folder(tmp_path / "drawn")
    coco = json.loads((root / "annotations" / "custom_val.json").read_text())
    run = write_run(tmp_path / "lively", root, coco=coco, found=Detections.empty())
    shutil.rmtree(root)
    write_coco_folder(root)  # write_run drew photos of its own
    recipe = (run / "recipe.yaml").read_text().split("made_with:")[0]
    (run / "recipe.yaml").write_text(recipe + "made_with: {versions: {torch: '2.0'}}\n")
    return write_run_with_spread_weights(run), root


def test_without_detections_the_model_runs_once_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = drawn_run(tmp_path)
    (run / "detections.npz").unlink()
    assert main(["report", str(run)]) == 0
    page = read(run / "report.html")
    assert "lively has no detections.npz of its training; the model ran over the validation images once more" in said(
        page
    )
    assert "metrics.json, which the tables below are from: 0.0000" in said(page)
    assert len(page.all("article", class_="card")) == 2
    assert [mark for mark in page.all("g", class_="mark") if mark.attributes["data-outcome"] not in ("object", "crowd")]
    assert "once more" in capsys.readouterr().out


def test_on_other_data_than_the_trainings_the_model_runs_and_the_tables_are_from_that(tmp_path: Path) -> None:
    run, _ = drawn_run(tmp_path)
    other = write_coco_folder(tmp_path / "other", val_sizes=[(96, 96)] * 3)
    before = (run / "metrics.json").read_text()
    assert report([str(run)], ["--data.root", str(other)]) == 0
    page = read(run / "report.html")
    assert "The validation data are other ones than those of the training" in said(page)
    assert "the tables below are from this" in said(page)
    assert len(page.all("article", class_="card")) == 3
    assert table(page, "coco")[0] == ["", "Of", "Best"]
    assert (run / "metrics.json").read_text() == before, "the run's own numbers stay"


def test_a_folder_that_is_no_run_needs_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, root = write_run_with_spread_weights(tmp_path / "model"), write_coco_folder(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"carries no recipe.yaml that names the data. Give --data.root"):
        report([str(model)])
    assert not (tmp_path / "report.html").exists()
    assert report([str(model)], ["--data.root", str(root), "--training.bf16", "false"]) == 0
    page = read(tmp_path / "report.html")
    assert table(page, "coco")[1]["AP"][1] is not None
    assert "evaluated on 2 images" in page.text()
    assert page.all("article")
    with pytest.raises(DataError, match="nowhere: expected the folder of a data set, found nothing"):
        report([str(model)], ["--data.root", str(tmp_path / "nowhere")], overwrite=True)


def test_detections_of_another_evaluation_are_not_believed(run: Path) -> None:
    (run / "detections.npz").write_bytes(Detections.empty().to_npz())
    assert report([str(run)]) == 0
    page = read(run / "report.html")
    assert "detections.npz is not of the evaluation in metrics.json, and the model cannot run over them" in said(page)
    assert not page.all("article")


def test_no_image_has_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_inference(monkeypatch)
    run = write_run(tmp_path / "run", tmp_path / "data", coco={**truth(), "annotations": []})
    assert report([str(run)]) == 0
    page = read(run / "report.html")
    assert "have no objects" in said(page)


def test_attention_is_drawn_instead_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def draw_attention(*args: object, **kwargs: object) -> int:
        calls.append((args, kwargs))
        return 0

    monkeypatch.setattr(attention_sheet, "draw_attention", draw_attention)
    output = tmp_path / "a.png"
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").touch()
    assert main(["report", "me/x", "--attention", "photo.jpg", "--output", str(output), "--overwrite"]) == 0
    assert calls == [(("me/x", Path("photo.jpg"), output), {"overwrite": True})]
    for wrong in (["a", "b"], ["a", "--data.root", "x"]):
        assert main(["report", *wrong, "--attention", "photo.jpg"]) == 2
    assert len(calls) == 1


def test_check_writes_a_page_and_replaces_its_own_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_coco_folder(tmp_path / "data")
    annotations = root / "annotations" / "custom_val.json"
    coco = json.loads(annotations.read_text())
    coco["annotations"][0]["bbox"] = [0, 0, -5, 5]
    annotations.write_text(json.dumps(coco))
    monkeypatch.chdir(tmp_path)
    flags = ["--data.root", str(root)]
    for _ in range(2):
        assert main(["check", *flags, "--report"]) == 1
        assert "written: check.html" in capsys.readouterr().out
    page = read(tmp_path / "check.html")
    assert any(summary.text().startswith("error: ") for summary in page.all("summary"))
    assert "-5" in page.text()
    (tmp_path / "mine.html").write_text("dear to me")
    assert main(["check", "--report", "mine.html", *flags]) == 2
    assert "--report: 'mine.html' is there already. Name another file." in capsys.readouterr().err
    assert (tmp_path / "mine.html").read_text() == "dear to me"
