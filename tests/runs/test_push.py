"""`push` lists what goes up and says where it lies."""

import io
import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants
from PIL import Image

from hf_detr_ft.cli import main
from hf_detr_ft.errors import InputError
from hf_detr_ft.runs.push import push
from tests.fixtures import write_run_folder
from tests.hub.hub_server import HubServer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = write_run_folder(tmp_path / "balloon")
    (run / "metrics.json").write_text(json.dumps({"best": {"metrics": {"map": 0.5}}}))
    (run / "training_args.bin").write_bytes(b"pickle")
    return run


def test_push_lists_the_files_and_the_address(run: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert push(run, "detr-balloon", private=True, license="mit") == 0
    stored = hub.files("anna/detr-balloon")
    assert hub.repos["anna/detr-balloon"].private
    assert b"license: mit" in stored["README.md"]
    first, *listed, last = capsys.readouterr().out.splitlines()
    assert first == f"{run} goes to anna/detr-balloon:"
    assert last == f"Published: {hub.url}/anna/detr-balloon"
    assert {line.split()[0] for line in listed} == stored.keys() - {".gitattributes"}
    sizes = {line.split()[0]: line.split(maxsplit=1)[1] for line in listed}
    assert sizes["metrics.json"] == "35 B"
    assert sizes["model.safetensors"] == f"{(run / 'model.safetensors').stat().st_size / 1e6:.1f} MB"
    assert sizes["README.md"] == f"{len(stored['README.md']) / 1e3:.1f} kB"


@pytest.mark.parametrize("name", ["anna/detr-balloon", "detr-balloon"])
def test_a_dry_run_lists_the_same_and_asks_nobody(
    run: Path, hub: HubServer, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), name, "--dry-run"]) == 0
    first, *listed, last = capsys.readouterr().out.splitlines()
    assert hub.requests == []
    assert first == f"{run} would go to {name}:"
    assert last == "Nothing was sent."
    push(run, "anna/detr-balloon")
    assert {line.split()[0] for line in listed} == hub.files("anna/detr-balloon").keys() - {".gitattributes"}


def photo_with_a_place(path: Path) -> Path:
    """A photo that its camera held on its side, with the place where it was taken; larger than what goes up."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8825] = 6, "a camera of mine", {2: (52.0, 31.0, 12.0)}
    Image.new("RGB", (2000, 400), "red").save(path, exif=exif, comment=b"a name of mine")
    return path


def test_examples_are_photos_that_are_named_without_what_their_files_tell(
    run: Path, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [photo_with_a_place(tmp_path / "at home.jpg"), tmp_path / "clear.png"]
    Image.new("RGBA", (40, 30)).save(photos[1])
    Image.new("RGB", (40, 30)).save(tmp_path / "not named.jpg")
    flags = [part for photo in photos for part in ("--example", str(photo))]
    assert main(["push", str(run), "anna/shown", *flags, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert hub.requests == [] and "examples/1.jpg" in said and "examples/2.jpg" in said
    assert "The photos in examples/ are upright, at most 1600 pixels a side, and without EXIF.\n" in said

    assert main(["push", str(run), "anna/shown", *flags]) == 0
    files = hub.files("anna/shown")
    assert sorted(name for name in files if name.endswith((".jpg", ".png"))) == ["examples/1.jpg", "examples/2.jpg"]
    first = Image.open(io.BytesIO(files["examples/1.jpg"]))
    assert first.size == (320, 1600) and not first.getexif() and "comment" not in first.info
    assert not [text for text in (b"mine", b"at home", b"Exif") if text in hub.stored_bytes()]
    place = "https://huggingface.co/anna/shown/resolve/main/"
    widget = [{"src": f"{place}examples/1.jpg"}, {"src": f"{place}examples/2.jpg"}]
    assert ModelCard(files["README.md"].decode()).data["widget"] == widget

    push(run, "anna/shown")
    assert ModelCard(hub.files("anna/shown")["README.md"].decode()).data["widget"] == widget
    push(run, "anna/shown", example=photos[1:])
    files = hub.files("anna/shown")
    assert ModelCard(files["README.md"].decode()).data["widget"] == widget[:1]
    assert "examples/1.jpg" in files and "examples/2.jpg" not in files, "none stays that is not named any more"
    push(run, "anna/shown", revision="v2", example=photos[:1])
    card = ModelCard(hub.files("anna/shown", "v2")["README.md"].decode())
    assert card.data["widget"] == [{"src": "https://huggingface.co/anna/shown/resolve/v2/examples/1.jpg"}]


def test_an_example_that_is_no_photo_stops_the_push(
    run: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), "anna/shown", "--example", str(run / "training_args.bin")]) == 1
    assert f"{run}/training_args.bin: expected an image, found a file in no format" in capsys.readouterr().err
    assert main(["push", str(run), "anna/shown", "--example", str(run / "none.jpg")]) == 1
    assert f"{run}/none.jpg: expected an image, found no such file" in capsys.readouterr().err
    assert hub.requests == []


def test_a_card_written_by_hand_says_how_examples_are_named(
    run: Path, hub: HubServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    push(run, "anna/shown", example=[photo_with_a_place(tmp_path / "a.jpg")])
    assert b"# Mine" in hub.files("anna/shown")["README.md"]
    assert 'widget: [{"src": "https://huggingface.co/anna/shown/resolve/main/examples/1.jpg"}]' in caplog.text


def test_push_without_a_network_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"^http://127\.0\.0\.1:9 cannot be reached .*$"):
        push(run, "anna/detr-balloon")
