"""Pages that are made from code agree with it, and code on pages runs."""

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

from hf_detr_ft import attention, plots
from tests.report.constructed import write_run

REPOSITORY = Path(__file__).parents[1]
WRITTEN = ("average-precision.png", "drawn.png", "sheet.png", "precision-recall.png", "sample.png", "attention.png")


def test_the_page_of_recipe_fields_is_up_to_date() -> None:
    page = runpy.run_path(str(REPOSITORY / "scripts" / "build_recipe_page.py"))["build_page"]()
    assert (REPOSITORY / "docs" / "recipe.md").read_text() == page, "run: python scripts/build_recipe_page.py"
    assert page.count("\n| `") > 45


def test_the_page_of_figures_runs_and_shows_every_public_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "plots.md").read_text(), re.DOTALL))
    assert [name for name in plots.__all__ if f"plots.{name}" not in code] == []
    assert [name for name in attention.__all__ if name not in code and name != "ImageAttention"] == []
    write_run(tmp_path / "runs" / "balloon", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/plots.md", "exec"), {})
    assert all(Image.open(name).width > 100 for name in WRITTEN)
    assert capsys.readouterr().out == "9 detections, the best with a score of 0.9\n"


def test_the_page_of_performance_has_the_measured_figures() -> None:
    build_page = runpy.run_path(str(REPOSITORY / "scripts" / "build_performance_page.py"))["build_page"]
    page = (REPOSITORY / "docs" / "performance.md").read_text()
    assert build_page(page) == page, "run: python scripts/build_performance_page.py"
    assert page.count("| **") >= 1
