import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_detr_ft.errors import CheckpointError, DataError, RecipeError
from hf_detr_ft.report import attention_sheet as attention
from hf_detr_ft.report.attention_sheet import draw_attention
from hf_detr_ft.synthetic.render import render
from tests.fixtures import CLASSES, plain_image

TINY = "package:hf_detr_ft/tiny_detr"


@pytest.fixture
def run(spread_run: Path) -> str:
    return str(spread_run)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a photo in it."""
    monkeypatch.chdir(tmp_path)
    plain_image(90, 150, 0).save("photo.jpg")
    return tmp_path


def test_the_picture_and_what_is_printed(folder: Path) -> None:
    Image.fromarray(render(16, seed=5, classes=("bottle", "cone", "mug"), size=(180, 240)).image).save("drawn.png")
    printed = draw_attention(TINY, "drawn.png")
    with Image.open("attention.png") as picture:
        assert picture.mode == "RGB"
        seen = np.asarray(picture).astype(int)
    assert seen.shape[1] > 600
    assert (seen[:3] == 255).all()
    assert (np.ptp(seen, axis=-1) > 60).any()
    first, *rest, last = printed.splitlines()
    assert first == f"drawn.png: the attention of {len(rest)} detections with a score above 0.5"
    assert [line.split()[0] for line in rest] == [str(index + 1) for index in range(len(rest))]
    assert all(line.split()[1] in ("bottle", "cone", "mug") for line in rest)
    assert all(re.search(r" 0\.\d\d  \d+% of the decoder's attention in its box$", line) for line in rest)
    assert last == "written: attention.png"


def test_a_photo_is_turned_upright_first(run: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain_image(90, 150, 3).save("turned.jpg", exif=exif)
    seen: list = []
    monkeypatch.setattr(attention, "encode", lambda *args: seen.append(args) or b"png")
    draw_attention(run, Path("turned.jpg"), Path("a.png"))
    ((image, found, names, title),) = seen
    assert image.size == (90, 150)
    assert found.size == (150, 90)
    assert names == list(CLASSES)
    assert title == "spread: turned.jpg"
    assert Path("a.png").read_bytes() == b"png"


def test_without_detections_the_closest_query_is_drawn_and_called_so(run: str, folder: Path) -> None:
    first, second, _ = draw_attention(run, "photo.jpg", threshold=1.0).splitlines()
    assert first == "photo.jpg: no detection with a score above 1; the query that comes closest:"
    assert second.startswith("  1  ")
    assert Path("attention.png").stat().st_size > 10_000


def test_nothing_is_replaced_without_being_asked(run: str, folder: Path) -> None:
    Path("attention.png").write_bytes(b"mine")
    with pytest.raises(RecipeError, match="'attention.png' is there already.*--overwrite"):
        draw_attention(run, "photo.jpg")
    assert Path("attention.png").read_bytes() == b"mine"
    draw_attention(run, "photo.jpg", overwrite=True)
    assert Path("attention.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("image", "output", "threshold", "error", "message"),
    [
        ("photo.jpg", "a.jpg", 0.5, RecipeError, "expected the name of a PNG, found 'a.jpg'. Name it 'a.png'"),
        ("photo.jpg", "no/a.png", 0.5, RecipeError, "Make 'no'"),
        ("photo.jpg", "folder.png", 0.5, RecipeError, "'folder.png' is a folder"),
        ("photo.png", "photo.png", 0.5, RecipeError, "is the image itself"),
        ("photo.jpg", "a.png", 1.5, RecipeError, "--threshold: expected a score from 0 to 1, found 1.5"),
        ("none.jpg", "a.png", 0.5, DataError, "none.jpg: expected an image, found no such file"),
        ("text.jpg", "a.png", 0.5, DataError, "text.jpg: expected an image"),
        ("folder.png", "a.png", 0.5, DataError, "folder.png: expected an image"),
        ("line.png", "a.png", 0.5, DataError, "line.png: an image of 5000 x 1 pixels"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    run: str, folder: Path, image: str, output: str, threshold: float, error: type[Exception], message: str
) -> None:
    plain_image(90, 150, 0).save("photo.png")
    Path("folder.png").mkdir()
    Path("text.jpg").write_text("no image")
    Image.new("RGB", (5000, 1)).save("line.png")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(error, match=message):
        draw_attention(run, image, Path(output), threshold, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_no_model(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        draw_attention("./no_run", "photo.jpg")


def test_a_disk_that_refuses(run: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(attention, "write_bytes", refuse)
    with pytest.raises(DataError, match="attention.png: cannot be written: No space left on device"):
        draw_attention(run, "photo.jpg")


def test_the_users_matplotlibrc_changes_nothing(run: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    draw_attention(run, "photo.jpg", Path("before.png"))
    for name, value in (("axes.titlecolor", "red"), ("text.usetex", True), ("savefig.facecolor", "black")):
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    draw_attention(run, "photo.jpg", Path("after.png"))
    assert Path("before.png").read_bytes() == Path("after.png").read_bytes()
