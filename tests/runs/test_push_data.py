"""`push-data`: any data set as Parquet on the Hub, read back by our reader and by `datasets`."""

import re
from pathlib import Path

import datasets
import pytest
from PIL import Image

from hf_detr_ft.cli import main
from hf_detr_ft.data.formats import write_parquet
from hf_detr_ft.errors import DataError, InputError, RecipeError
from hf_detr_ft.recipe.sections import DataConfig
from hf_detr_ft.runs.push_data import push_data
from tests.data.formats.test_round_trip import hold_drawn
from tests.data.formats.writers import CLASSES, DRAWN, WRITERS
from tests.hub.hub_server import HubServer, Refusal

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set in YOLO's form."""
    WRITERS["yolo"][0](tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["yolo", "coco", "voc", "csv"])
def test_every_format_comes_back_from_a_local_folder(name: str, tmp_path: Path) -> None:
    WRITERS[name][0](tmp_path / "data")
    assert main(["push-data", str(tmp_path / "data"), "anna/drawn", "--output", str(tmp_path / "hub")]) == 0
    hold_drawn(DataConfig(root=str(tmp_path / "hub")), "parquet")


def test_others_read_it_by_its_card(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns are those of cppe-5, in as many files as the bytes need."""
    monkeypatch.setattr(write_parquet, "SHARD_BYTES", 200)
    push_data(str(folder), "anna/drawn", output=tmp_path / "hub", license="cc-by-4.0")
    assert len(list((tmp_path / "hub" / "data").glob("train-*-of-*.parquet"))) > 1
    data = datasets.load_dataset(str(tmp_path / "hub"))
    assert set(data) == {"train", "validation"}
    assert list(data["train"].features) == ["image_id", "image", "width", "height", "objects"]
    assert set(data["train"].features["objects"]) == {"id", "area", "bbox", "category"}
    names = data["train"].features["objects"]["category"].feature.names
    assert names == CLASSES
    for split, images in (("train", DRAWN["train"]), ("validation", DRAWN["val"])):
        assert len(data[split]) == len(images)
        rows = {
            Path(cell["path"]).name: row
            for cell, row in zip(
                data[split].cast_column("image", datasets.Image(decode=False))["image"], data[split], strict=True
            )
        }
        for file_name, (width, height, boxes) in images.items():
            row = rows[file_name]
            assert row["image"].size == (row["width"], row["height"]) == (width, height)
            assert [names[label] for label in row["objects"]["category"]] == [box[0] for box in boxes]
            for box, expected in zip(row["objects"]["bbox"], boxes, strict=True):
                assert box == pytest.approx(expected[1:], abs=1e-3)


def test_the_card_says_what_is_in_it_and_its_code_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    push_data(str(folder), "anna/drawn", output=Path("anna/drawn"), license="cc-by-4.0")
    card = Path("anna/drawn/README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "| class | train | validation |" in card
    assert f"| images | {len(DRAWN['train'])} | {len(DRAWN['val'])} |" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    capsys.readouterr()
    exec(compile(code, "README.md", "exec"), {})
    assert str(CLASSES) in capsys.readouterr().out
    assert "hf-detr-ft train RECIPE --data.root hf://datasets/anna/drawn" in card


def test_it_goes_up_once_unless_asked_and_again_where_it_broke(
    folder: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refusals.append(("POST .*/commit/main", Refusal(403, "It broke")))
    with pytest.raises(InputError, match="It broke"):
        push_data(str(folder), "drawn", private=True)
    assert hub.files("anna/drawn").keys() == {".gitattributes"}
    hub.refusals.clear()
    hub.requests.clear()
    capsys.readouterr()
    assert push_data(str(folder), "drawn", private=True) == 0
    assert not [request for request in hub.requests if request.startswith("PUT")], "its files were there already"
    assert hub.repos["anna/drawn"].private
    names = {"README.md", *(f"data/{split}-00000-of-00001.parquet" for split in ("train", "validation"))}
    assert hub.files("anna/drawn").keys() == {".gitattributes", *names}
    assert f"Published: {hub.url}/datasets/anna/drawn" in capsys.readouterr().out
    with pytest.raises(InputError, match="holds 2 files already, such as data/train.*Name another data set, or give"):
        push_data(str(folder), "drawn")
    repo = hub.repos["anna/drawn"]
    repo.commit("main", {**repo.trees[repo.branches["main"]], "data/test-00000-of-00001.parquet": b"old"}, "by hand")
    push_data(str(folder), "drawn", overwrite=True)
    assert hub.files("anna/drawn").keys() == {".gitattributes", *names}, "an old split would be shown beside the new"
    assert hub.unknown == []


def test_a_dry_run_asks_nobody_and_says_where_photos_were_taken(
    folder: Path, hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(folder.rglob("*.png"))
    image, exif = Image.open(path), Image.Exif()
    exif[0x8825] = {2: (52.0, 31.0, 12.0)}
    image.save(path, exif=exif)
    assert main(["push-data", str(folder), "drawn", "--dry-run"]) == 0
    text = capsys.readouterr().out
    count = sum(map(len, DRAWN.values()))
    assert f"1 of {count} photos say in their EXIF where they were taken" in text
    assert re.search(r"  data/train-00000-of-00001\.parquet +\d+\.\d kB\n", text)
    assert "Nothing was sent." in text
    assert hub.requests == []


def test_what_is_wrong_is_said_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "mine").touch()
    with pytest.raises(RecipeError, match="hub' is not empty. Name another folder"):
        push_data(str(folder), "anna/drawn", output=tmp_path / "hub")
    next(folder.rglob("*.png")).unlink()
    for path in folder.rglob("labels/**/*.txt"):
        path.write_text("0 2 2 2 2\n")
    with pytest.raises(DataError):
        push_data(str(folder), "anna/drawn", output=tmp_path / "new")
    assert not (tmp_path / "new").exists()
