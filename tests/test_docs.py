"""Pages that are made from code agree with it, and so do figures and metrics; `test_snippets.py` runs all else."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_detr_ft import attention, plots
from hf_detr_ft.evaluation.coco_eval import evaluate_detections
from hf_detr_ft.recipe.augment_pipeline import read_pipeline
from hf_detr_ft.recipe.fields import SECTIONS
from hf_detr_ft.recipe.files import load_recipe
from hf_detr_ft.recipe.rules import check_recipe
from hf_detr_ft.training.evaluate_model import evaluate_model
from tests.fixtures import CATEGORIES, write_run_with_spread_weights
from tests.report.constructed import truth, write_run
from tests.test_structure import LAYERS

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
WRITTEN = ("average-precision.png", "drawn.png", "sheet.png", "precision-recall.png", "sample.png", "attention.png")


FP32 = ["--training.bf16", "false"]


def python_blocks(page: str) -> str:
    """Code of a page in docs/, from top to bottom."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / page).read_text(), re.DOTALL))


def test_the_page_of_recipe_fields_is_up_to_date() -> None:
    page = runpy.run_path(str(REPOSITORY / "scripts" / "build_recipe_page.py"))["build_page"]()
    assert (REPOSITORY / "docs" / "recipe.md").read_text() == page, "run: python scripts/build_recipe_page.py"
    assert page.count("\n| `") > 45
    assert re.findall(r"^## (\w+)", page, re.MULTILINE) == list(SECTIONS)
    assert "| `train_limit` | `int \\| None`, 1 or more | not set |" in page
    assert "| `horizontal_flip` | `float \\| None`, 0 to 1 | not set |" in page


def test_the_page_of_figures_runs_and_shows_every_public_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = python_blocks("plots.md")
    assert [name for name in plots.__all__ if f"plots.{name}" not in code] == []
    assert [name for name in attention.__all__ if name not in code and name != "ImageAttention"] == []
    write_run(tmp_path / "runs" / "balloon", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/plots.md", "exec"), {})
    assert all(Image.open(name).width > 100 for name in WRITTEN)
    assert capsys.readouterr().out == "9 detections, the best with a score of 0.9\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    named = re.findall(r"(?<![\w/.-])(?:tests|recipes|docs|scripts|benchmarks|hf_detr_ft)/[\w./-]*[\w/]", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [name for name in named if not (REPOSITORY / name).exists()] == []
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"\ndef {test}(" in (REPOSITORY / file).read_text(encoding="utf-8"), f"{file} has no {test}"


def test_the_layout_on_the_page_for_contributors_is_that_of_the_package() -> None:
    table = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| floor |")[1].split("\n\n")[0]
    floors = [re.findall(r"`(\w+)/?`", row.split("|")[1]) for row in table.splitlines()[2:]]
    assert [set(floor) for floor in floors] == list(LAYERS)


def test_the_loop_with_a_metric_gives_the_numbers_of_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The truth is what the model finds, moved a little, so that there is an AP to compare."""
    monkeypatch.chdir(tmp_path)
    coco = {**truth(), "categories": [dict(category) for category in CATEGORIES]}
    run = write_run(write_run_with_spread_weights(tmp_path / "runs" / "balloon"), tmp_path / "data", coco)
    recipe = run / "recipe.yaml"
    found = evaluate_model(str(run), load_recipe(recipe, FP32)).detections
    results = [found.to_results()[place] for place in np.argsort(-found.score)[::3]]
    for number, entry in enumerate(results):
        entry["bbox"][0] += 3
        entry["id"] = number
    coco["annotations"] = results
    (tmp_path / "data" / "annotations" / "custom_val.json").write_text(json.dumps(coco))
    expected = evaluate_model(str(run), load_recipe(recipe, FP32))
    capsys.readouterr()

    names: dict = {}
    exec(compile(python_blocks("evaluation.md"), "docs/evaluation.md", "exec"), names)
    assert 0.1 < expected.result.metrics["map"] < 0.9
    assert names["numbers"] == pytest.approx(expected.result.metrics, abs=1e-6)
    assert names["metric"].result.best_f1 == expected.result.best_f1
    assert evaluate_detections(coco, expected.detections) == expected.result
    assert capsys.readouterr().out == f"{names['metric'].result.table()}\n"


def test_the_page_of_performance_has_the_measured_figures() -> None:
    build_page = runpy.run_path(str(REPOSITORY / "scripts" / "build_performance_page.py"))["build_page"]
    page = (REPOSITORY / "docs" / "performance.md").read_text()
    assert build_page(page) == page, "run: python scripts/build_performance_page.py"
    assert page.count("| **") >= 1


def test_pipelines_and_messages_of_the_page_on_augmentation_are_true(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "augmentation.md").read_text()
    for text in re.findall(r"```yaml\n(.*?)```", page + (REPOSITORY / "README.md").read_text(), re.DOTALL):
        (tmp_path / "my.yaml").write_text(text)
        assert check_recipe(load_recipe(tmp_path / "my.yaml", ["--training.use_cpu", "true"])) == []
    wrong = [{"Blur": {}}, {"OneOf": [{"MotionBlur": {"limit": 3}}]}, {"Affine": {"p": 2}}]
    assert "\n".join(read_pipeline(wrong).problems) in page
