"""The demo as a person meets it: the verb in a process of its own, and its page in a browser, where there is one."""

import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_detr_ft.inference.detect import load_detector
from hf_detr_ft.synthetic.render import render
from tests.demo.browser import Browser
from tests.fixtures import tiny_detr_with_masks, write_run_folder
from tests.report.test_browser import BROWSER

MODEL = "package:hf_detr_ft/tiny_dfine"
COUNT = "document.querySelectorAll('section')[{}].querySelectorAll('.box').length"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address that `hf-detr-ft demo` says, which ends without a word of trouble on Ctrl-C."""
    masks = write_run_folder(tmp_path_factory.mktemp("runs") / "masks", tiny_detr_with_masks())
    command = [sys.executable, "-m", "hf_detr_ft.cli", "demo", MODEL, str(masks), "--port", "0"]
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a test run in the background does not
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heeds)
    assert server.stdout is not None
    said = server.stdout.readline()
    yield said.split()[0]
    server.send_signal(signal.SIGINT)
    _, trouble = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "Traceback" not in trouble and "password" not in trouble


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = list((load_detector(MODEL)[0].config.id2label or {}).values())
    path = tmp_path_factory.mktemp("photos") / "a photo & more.jpg"
    Image.fromarray(render(3, seed=7, classes=names, size=(240, 320)).image).save(path)
    return path


def pixels(picture: bytes) -> np.ndarray:
    """Pixels `[h, w, 3]` of a PNG."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def pixels_of(picture: bytes, colour: tuple[int, ...]) -> int:
    """Count of pixels that have a colour, in a PNG."""
    return int((pixels(picture) == colour).all(axis=-1).sum())


def test_the_address_is_this_machines_alone(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_photo_is_dropped_and_the_slider_changes_its_boxes(address: str, photo: Path, tmp_path: Path) -> None:
    with Browser(str(BROWSER), tmp_path) as page:
        page.open(address)
        page.wait_for("document.readyState === 'complete' && !document.getElementById('file')?.disabled")
        before = page.picture()
        page.choose_file("#file", photo)
        page.wait_for("document.getElementById('status').textContent.includes('320 × 240 pixels')")
        counts = [page.ask(COUNT.format(model)) for model in range(2)]
        assert all(counts)
        seen = page.picture()
        (tmp_path / "boxes.png").write_bytes(seen)
        colours = page.ask("[...document.querySelectorAll('.box')].map((box) => box.style.borderColor)")
        for colour in {tuple(map(int, re.findall(r"\d+", text))) for text in colours}:
            assert pixels_of(seen, colour) > 50 > pixels_of(before, colour)

        tinted = "document.querySelectorAll('section')[{}].querySelectorAll('.masks span').length"
        assert [page.ask(tinted.format(model)) for model in range(2)] == [0, counts[1]]
        page.ask("document.querySelectorAll('.masks')[1].hidden = true")
        changed = (pixels(seen) != pixels(page.picture())).any(axis=-1)
        assert changed.sum() > 1000, "masks are seen"
        page.ask("document.querySelectorAll('.masks')[1].hidden = false")

        set_slider = """{
            const slider = document.querySelectorAll('input[type=range]')[0];
            slider.value = %s;
            slider.dispatchEvent(new Event('input', {bubbles: true}));
        }"""
        page.ask(set_slider % 0.02)
        more = page.ask(COUNT.format(0))
        page.ask(set_slider % 0.99)
        assert more > counts[0] > page.ask(COUNT.format(0))
        assert page.ask(COUNT.format(1)) == counts[1]
        page.ask(set_slider % 0.5)
        asked = page.ask("performance.getEntriesByType('resource').map((one) => one.name.split('?')[0])")
        assert asked.count(f"{address}/detect") == 1  # the models ran once
        assert not [one for one in asked if not one.startswith((f"{address}/", "data:"))]

        page.ask("document.querySelector('button[data-all=\"\"]').click()")
        assert [page.ask(COUNT.format(model)) for model in range(2)] == [0, 0]
        page.ask("document.querySelector('button[data-all=\"1\"]').click()")

        for section in range(2):
            page.ask(f"document.querySelectorAll('section')[{section}].querySelector('.box').click()")
            image = f"document.querySelectorAll('section')[{section}].querySelector('.attention img')"
            assert page.wait_for(f"{image}?.naturalWidth") > 300
        (tmp_path / "attention.png").write_bytes(page.picture())

        broken = tmp_path / "broken.jpg"
        broken.write_bytes(photo.read_bytes()[:3000])
        page.choose_file("#file", broken)
        words = page.wait_for(
            "!document.getElementById('error').hidden && document.getElementById('error').textContent"
        )
        assert words.startswith("broken.jpg: expected a whole image")
        assert [complaint for complaint in page.complaints if "422" not in complaint] == []
