"""The page in a real browser, where there is one: the script runs, and the slider changes the boxes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hf_detr_ft.report.load_run import load_run
from hf_detr_ft.report.pages import build_run_page
from hf_detr_ft.report.render_page import render_page
from hf_detr_ft.run_folder import RunFolder
from tests.report.constructed import truth, validation, views, write_run
from tests.report.parsed import Element, parse

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


def after_script(html: str, folder: Path, then: str = "") -> tuple[Element, str]:
    """The page as it is when its script and another one have run, and what the browser said of it."""
    if then:  # the page's own policy refuses any other script
        html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
        html = html.replace("</body>", f"<script>{then}</script></body>")
    (folder / "page.html").write_text(html, encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--enable-logging=stderr", "--dump-dom", (folder / "page.html").as_uri()]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "HOME": str(folder)}
    )
    said = "\n".join(line for line in ended.stderr.splitlines() if "CONSOLE" in line)
    return parse(ended.stdout), said


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("data")
    run = write_run(tmp_path_factory.mktemp("runs") / "drawn", root)
    return render_page(build_run_page(load_run(RunFolder(run)), views(validation(root / "val2017"))))


def shown(page: Element) -> list[str]:
    marks = page.all("g", class_="mark")
    return [
        mark.attributes["data-score"]
        for mark in marks
        if {"off", "object", "crowd"}.isdisjoint(mark.attributes["class"].split())
    ]


def test_the_script_runs_and_nothing_is_complained_of(html: str, tmp_path: Path) -> None:
    page, said = after_script(html, tmp_path)
    assert said == ""
    assert not [form for form in page.all("form") if "hidden" in form.attributes]
    assert page.all("button", id="theme")[0].text() == "Dark colours"
    assert page.all("th", scope="col")[0].all("button") or page.all("table", class_="sortable")


def move_to(threshold: float) -> str:
    return f"""
    const slider = document.querySelector("input[type=range]");
    slider.value = "{threshold}";
    slider.dispatchEvent(new Event("input", {{bubbles: true}}));
    """


def test_the_slider_changes_the_boxes(html: str, tmp_path: Path) -> None:
    assert shown(after_script(html, tmp_path)[0]) == ["0.9"]  # the threshold of the best F1
    page, said = after_script(html, tmp_path, move_to(0.48))
    assert said == ""
    assert sorted(shown(page), key=float) == ["0.5", "0.55", "0.6", "0.7", "0.8", "0.9"]
    texts = [counts.text() for counts in page.all("p", class_="counts")]
    assert texts == [
        "0 found, 2 missed, 3 wrong",
        "1 found, 1 missed, 2 wrong",
        "no objects, 0 wrong",
        "no objects, 0 wrong",
    ]
    assert page.all("output")[0].text() == "0.480"
    lower, _ = after_script(html, tmp_path, move_to(0.1))
    assert "2 found, 0 missed, 2 wrong" in [counts.text() for counts in lower.all("p", class_="counts")]
    assert len(lower.all("g", class_="missed")) == 2


def test_photos_can_be_chosen_by_kind_of_error(html: str, tmp_path: Path) -> None:
    choose = 'document.querySelector("input[value=localisation]").click();'
    for threshold, expected in ((0.48, {"2.png"}), (0.7, set())):
        page, _ = after_script(html, tmp_path, move_to(threshold) + choose)
        cards = {card.attributes["data-name"]: card.attributes["class"] for card in page.all("article")}
        assert {name for name, classes in cards.items() if "filtered" not in classes} == expected
        assert ("hidden" in page.all("p", class_="none")[0].attributes) == bool(expected)


def test_images_behind_a_click_are_shown_when_a_kind_is_chosen(tmp_path: Path) -> None:
    root = tmp_path / "data"
    run = write_run(tmp_path / "drawn", root, coco=truth(6))
    html = render_page(build_run_page(load_run(RunFolder(run)), views(validation(root / "val2017", 6))))
    assert "open" not in after_script(html, tmp_path)[0].all("details", class_="more")[0].attributes
    page, said = after_script(html, tmp_path, 'document.querySelector("input[value=right]").click();')
    assert said == "" and "open" in page.all("details", class_="more")[0].attributes


def test_tables_are_sorted_by_a_click_and_colours_are_changed(html: str, tmp_path: Path) -> None:
    click = """
    document.querySelectorAll("#table-classes th button")[2].click();
    document.getElementById("theme").click();
    """
    page, _ = after_script(html, tmp_path, click)
    (classes,) = page.all("table", id="table-classes")
    values = [float(row.all("data")[1].attributes["value"]) for row in classes.all("tbody")[0].all("tr")]
    assert values == sorted(values, reverse=True) and values[0] > values[1]
    assert page.all("html")[0].attributes["data-theme"] == "dark"
