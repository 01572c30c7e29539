"""Figures in the page: the page's colours and font, ids of their own, nothing from outside."""

import io
import re
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hf_detr_ft.plots.style import FAINT, INK, PALETTE, new_figure
from hf_detr_ft.report.svg import report_style, to_png, to_svg
from tests.report.parsed import parse


def figure(title: str = "a title") -> Figure:
    made, axes = new_figure()
    axes.set_title(title, color=INK)
    axes.plot([1, 2], [3, 4], color=PALETTE[0], marker="o")
    axes.axhline(3.5, color=FAINT)
    return made


def test_ink_is_the_pages_and_colours_of_series_stay() -> None:
    svg = to_svg(figure(), "one", "what it shows")
    assert INK not in svg and FAINT not in svg
    assert "var(--ink)" in svg and "var(--faint)" in svg and PALETTE[0] in svg
    (element,) = parse(svg).all("svg")
    assert (element.attributes["role"], element.attributes["aria-label"]) == ("img", "what it shows")
    assert "width" not in element.attributes


def test_text_is_text_in_the_pages_font() -> None:
    svg = to_svg(figure("Gradient $norm$ <&>"), "one", "")
    assert any("Gradient" in text.text() for text in parse(svg).all("text"))
    assert "font-family" not in svg and "DejaVu" not in svg


def test_two_figures_share_no_id_and_each_finds_its_own() -> None:
    ids = []
    for name in ("one", "two"):
        page = parse(to_svg(figure(), name, ""))
        own = {element.attributes["id"] for element in page.all("*") if "id" in element.attributes}
        references = set(re.findall(r"url\(#([^)]*)\)", to_svg(figure(), name, "")))
        references |= {use.attributes["href"][1:] for use in page.all("use")}
        assert references == own and own
        ids.append(own)
    assert not ids[0] & ids[1]


def test_nothing_of_it_has_an_address_or_a_style_sheet() -> None:
    svg = to_svg(figure(), "one", "")
    assert "http" not in svg and "<style" not in svg and "xmlns" not in svg and "<!" not in svg


@pytest.mark.parametrize("name", ["\x00\x1b", "]]>", "气球", "$\\frac$"])
def test_any_letters_can_be_in_a_name(name: str) -> None:
    with report_style():
        svg = to_svg(figure(f"a{name}b"), "one", name)
    assert any(text.text().startswith("a") and text.text().endswith("b") for text in parse(svg).all("text"))


def test_photos_are_encoded_anew_and_maps_are_not() -> None:
    made, axes = new_figure()
    axes.imshow(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    seen: list[Image.Image] = []

    def encode(image: Image.Image) -> str:
        seen.append(image)
        return "data:image/jpeg;base64,AA"

    assert 'href="data:image/jpeg;base64,AA"' in to_svg(made, "one", "", encode)
    assert [image.mode for image in seen] == ["RGB"]
    assert "data:image/png" in to_svg(made, "one", "")


def test_the_users_matplotlibrc_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> tuple[str, bytes]:
        with report_style():
            drawn = figure()
        return to_svg(drawn, "one", ""), to_png(drawn)

    before = made()
    changes: dict[str, Any] = {"svg.fonttype": "path", "axes.facecolor": "red", "savefig.dpi": 30, "font.size": 30}
    for name, value in changes.items():
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    assert made() == before


def test_the_png_is_on_white() -> None:
    image = Image.open(io.BytesIO(to_png(figure()))).convert("RGB")
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.width == 630
