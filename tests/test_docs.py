"""Pages that are made from code agree with it, and code on pages runs."""

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

from hf_detr_ft import attention, plots
from tests.report.constructed import write_run
from tests.test_structure import LAYERS

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
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


def test_the_page_of_performance_has_the_measured_figures() -> None:
    build_page = runpy.run_path(str(REPOSITORY / "scripts" / "build_performance_page.py"))["build_page"]
    page = (REPOSITORY / "docs" / "performance.md").read_text()
    assert build_page(page) == page, "run: python scripts/build_performance_page.py"
    assert page.count("| **") >= 1
