"""The page as a file: whole, safe, without an address, and never too large."""

import base64
import hashlib
import html
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_detr_ft.plots.training_curves import plot_losses
from hf_detr_ft.report import render_page as page_module
from hf_detr_ft.report.blocks import (
    BoxMark,
    Bullets,
    Code,
    Collapsible,
    Gallery,
    GalleryItem,
    Heading,
    Note,
    Number,
    Page,
    Picture,
    Plot,
    Section,
    Table,
    Text,
)
from hf_detr_ft.report.render_page import render_page
from tests.report.constructed import history
from tests.report.parsed import Element, parse, table

NASTY = '</script><img src=x onerror="alert(1)">&amp;{{ 7*7 }}\'"'


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def full_page(photos: int = 2) -> Page:
    mark = BoxMark(10, 20, 30, 40, NASTY, "object", -1.0)
    wrong = BoxMark(50, 0, 50, 50, NASTY, "duplicate", 0.75)
    cards = [GalleryItem(noise(64, 48, n), NASTY, [mark], [wrong]) for n in range(photos)]
    plots = [Plot(f"loss-{n}", plot_losses({NASTY: history(2)}), NASTY) for n in range(2)]
    blocks = [
        Text(NASTY),
        Note(NASTY),
        Heading(NASTY),
        Bullets([NASTY]),
        Table("one", NASTY, ["", NASTY], [(NASTY, NASTY), ("b", Number(1 / 3)), ("c", Number(None))], sortable=True),
        *plots,
        Picture(noise(20, 30), NASTY),
        Collapsible(NASTY, [Code(NASTY, NASTY), Plot("inside", plot_losses({"a": history(1)}))]),
        Gallery(cards, 0.5, 0.05),
    ]
    return Page(NASTY, NASTY, [Section(NASTY, "first", blocks), Section("Empty", "second", [])], [NASTY])


@pytest.fixture(scope="module")
def text() -> str:
    return render_page(full_page())


@pytest.fixture(scope="module")
def parsed(text: str) -> Element:
    return parse(text)


def test_names_are_shown_as_they_are_and_never_run(text: str, parsed: Element) -> None:
    assert "<img src=x" not in text
    assert len(parsed.all("script")) == 1 and not parsed.all("img", src="x")
    for tag in ("title", "h1", "h2", "h3", "h4", "li", "summary", "caption", "pre", "figcaption"):
        assert any(element.text() == NASTY for element in parsed.all(tag)), tag
    assert not [name for element in parsed.all("*") for name in element.attributes if name.startswith("on")]


def test_nothing_comes_from_elsewhere(text: str, parsed: Element) -> None:
    addresses = [
        element.attributes[name]
        for element in parsed.all("*")
        for name in ("src", "href")
        if name in element.attributes
    ]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|https?://", text)
    assert not re.search(r"url\((?!#)", text)
    policy = parsed.all("meta", http_equiv="") or parsed.all("meta", **{"http-equiv": "Content-Security-Policy"})
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        == (policy[0].attributes["content"])
    )


def test_references_within_the_page_lead_somewhere_and_ids_are_unique(text: str, parsed: Element) -> None:
    ids = [element.attributes["id"] for element in parsed.all("*") if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    references = {element.attributes["href"][1:] for tag in ("a", "use") for element in parsed.all(tag)}
    references |= set(re.findall(r"url\(#([^)]*)\)", text))
    references |= {element.attributes["aria-labelledby"] for element in parsed.all("section")}
    assert references <= set(ids)
    assert {"first", "second"} <= references


def test_it_can_be_used_by_keyboard_and_read_aloud(parsed: Element) -> None:
    assert parsed.all("html", lang="en") and parsed.all("nav") and parsed.all("main")
    assert all(image.attributes["alt"] for image in parsed.all("img"))
    assert all(svg.attributes["aria-label"] for svg in parsed.all("svg"))
    assert all(region.attributes["tabindex"] == "0" for region in parsed.all("div", role="region"))
    assert not [element for element in parsed.all("div") if "onclick" in element.attributes]
    labelled = [control for label in parsed.all("label") for control in label.all("input")]
    assert len(labelled) == len(parsed.all("input"))
    headings = [int(element.tag[1]) for element in parsed.all("*") if re.fullmatch("h[1-6]", element.tag)]
    assert headings[0] == 1 and headings.count(1) == 1


def test_numbers_keep_all_their_digits(parsed: Element) -> None:
    columns, rows = table(parsed, "one")
    assert columns == ["", NASTY]
    assert rows == {NASTY: [NASTY], "b": [1 / 3], "c": [None]}
    assert [data.text() for data in parsed.all("data")] == ["0.333", "n/a"]


def test_a_photo_is_in_the_page_once_though_it_is_shown_twice(text: str, parsed: Element) -> None:
    (gallery,) = parsed.all("div", class_="gallery")
    assert len(gallery.all("image")) == 2 and len(gallery.all("use")) == 2
    assert text.count("data:image/jpeg") == 3


def test_without_a_script_the_boxes_of_the_threshold_are_drawn(parsed: Element) -> None:
    marks = parsed.all("g", class_="mark")
    assert [mark.attributes["class"] for mark in marks] == ["mark object missed", "mark duplicate"] * 2
    assert parsed.all("p", class_="counts")[0].text() == "0 found, 1 missed, 1 wrong"
    assert all("hidden" in form.attributes for form in parsed.all("form"))
    higher = replace(full_page().sections[0].blocks[-1], threshold=0.8)
    shown = parse(render_page(Page("a", "b", [Section("c", "d", [higher])])))
    assert [mark.attributes["class"] for mark in shown.all("g", class_="mark")] == [
        "mark object missed",
        "mark duplicate off",
    ] * 2


def test_photos_get_smaller_until_the_page_fits() -> None:
    cards = [GalleryItem(noise(640, 480, n), "a.jpg", [], []) for n in range(24)]
    gallery = Page("a", "b", [Section("c", "d", [Gallery(cards, 0.5, 0.05)])])
    usual = render_page(gallery)
    assert 1_000_000 < len(usual.encode()) <= page_module.LARGEST == 5_000_000
    small = render_page(gallery, 400_000)
    assert 0 < len(small.encode()) <= 400_000
    assert small.count("data:image/jpeg") == 24


def test_of_many_images_some_are_seen_without_a_click() -> None:
    cards = [GalleryItem(noise(64, 48, n), f"{n}.jpg", [], []) for n in range(6)]
    drawn = parse(render_page(Page("a", "b", [Section("c", "d", [Gallery(cards, 0.5, 0.05)])])))
    (more,) = drawn.all("details", class_="more")
    assert [card.attributes["data-name"] for card in more.all("article")] == ["4.jpg", "5.jpg"]
    assert more.all("summary")[0].text() == "2 more images"
    assert len(drawn.all("article")) == 6


def test_where_no_photo_is_small_enough_the_page_has_none_and_says_so() -> None:
    drawn = parse(render_page(full_page(), 30_000))
    assert not drawn.all("img") and not drawn.all("div", class_="gallery")
    assert "Photos are left out: the page would be too large." in [
        note.text() for note in drawn.all("p", class_="note")
    ]
    assert drawn.all("details")


def test_half_characters_do_not_stop_it() -> None:
    assert "a\\ud800b" in html.unescape(render_page(Page("a\ud800b", "", [])))


def test_the_script_is_small_and_plain() -> None:
    script = (Path(page_module.FOLDER) / "page.js").read_text()
    assert len(script) < 8000
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|eval|document\.write|Function\(|fetch|XMLHttp", script
    )
