"""Properties of every reader: whatever a file holds, a message or a right result comes of it.

`READER_CASES=2000 pytest tests/data/formats/test_readers_fuzzed.py` tries as many on each reader.
"""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_detr_ft.data.checks.coco_checks import check_coco
from hf_detr_ft.data.coco import leaves_folder, read_coco
from hf_detr_ft.data.find_images import is_image
from hf_detr_ft.data.formats.coco_folder import mend_coco
from hf_detr_ft.data.formats.find_format import find_layout, read_layout
from hf_detr_ft.data.segmentation_area import is_number
from hf_detr_ft.errors import DataError
from hf_detr_ft.formatting import printable_lines
from tests.data.formats.writers import WRITERS

CASES = int(os.environ.get("READER_CASES", "10"))
PIECES = (
    *("", "\n", "\r", "\t", " ", ",", ";", ":", '"', "'", "{", "}", "[", "]", "<", ">", "/", "\\", "&", "*", "-", "#"),
    *("null", "true", "NaN", "Infinity", "-1", "0", "1e999", "9" * 400, "0x1f", "\ufeff", "\u202e", "\ud800"),
    *("../", "/etc/passwd", "C:\\", "a.png", "mug", "<!DOCTYPE x>", "&x;", "&a [*a]", "!!python/none", "[" * 200),
    *("\x00", "\x1b", "<a>" * 99, "%00"),
)
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(PIECES) | st.text(max_size=6) | st.none()),
    min_size=1,
    max_size=4,
)
"""Where in a file, how many signs go, and what comes in their place; None for the signs themselves once more."""


@pytest.fixture(scope="module", params=WRITERS)
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param) / "data"
    WRITERS[request.param][0](root)
    return root


def change(content: bytes, edits: list) -> bytes:
    text = content.decode("latin-1")
    for place, length, piece in edits:
        start = int(place * len(text))
        gone = text[start : start + length]
        new = gone * 2 if piece is None else piece.encode("utf-8", "surrogatepass").decode("latin-1")
        text = text[:start] + new + text[start + length :]
    return text.encode("latin-1")


@given(edits=EDITS, which=st.floats(0, 1))
@settings(
    max_examples=CASES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_message_or_a_right_result(sound: Path, cache_folder: Path, edits: list, which: float) -> None:
    files = sorted(path for path in sound.rglob("*") if path.is_file() and not is_image(path.name))
    file = files[min(int(which * len(files)), len(files) - 1)]
    whole, before = file.read_bytes(), sorted(sound.parent.rglob("*"))
    file.write_bytes(change(whole, edits))
    said = "right"
    try:
        hold_right(sound)
    except DataError as error:
        said = printable_lines(error)
    finally:
        file.write_bytes(whole)
        shutil.rmtree(cache_folder, ignore_errors=True)
    assert said.strip() and len(said.encode()) < 20_000
    assert sorted(sound.parent.rglob("*")) == before


def hold_right(root: Path) -> None:
    """Reads all splits; what comes of them is COCO, with boxes of finite numbers and names inside of the folder."""
    layout = find_layout(root)
    if layout.format == "coco":
        read = {split: (read_coco(place.annotations), place) for split, place in layout.splits.items()}
        for coco, place in read.values():
            check_coco(mend_coco(coco, place.images_dir)[0], place.annotations, place.images_dir, decode=False)
        return
    for coco, place in read_layout(layout).values():
        names = {category["id"] for category in coco["categories"]}
        assert all(not leaves_folder(image["file_name"]) for image in coco["images"])
        assert all((place.images_dir / image["file_name"]).is_file() for image in coco["images"])
        for entry in coco["annotations"]:
            assert entry["category_id"] in names
            assert all(map(is_number, entry["bbox"])) and min(entry["bbox"][2:]) >= 0
        check_coco(coco, place.annotations, place.images_dir, decode=False)
