"""Names of classes, files and data sets that try to steer a terminal, the page and the model card."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from hf_detr_ft import cli
from hf_detr_ft.hub import build_model_card
from hf_detr_ft.run_folder import CONFIG
from hf_detr_ft.yaml12 import dump_yaml
from tests.fixtures import tiny_detr, write_coco_folder, write_run_folder

CODES = "\x1b]0;owned\x07\u202egpj\u200b\r\nerror: all is lost"
STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]|^error: all", re.MULTILINE)
CLASSES = (f"mug{CODES}", "[cone](javascript:alert(1)) `|` <img src=x onerror=alert(1)> *_b_* \\")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, recipe and a run of one step, whose names of all kinds hold control codes."""
    folder = tmp_path_factory.mktemp("hostile")
    categories = [{"id": id_, "name": name} for id_, name in enumerate(CLASSES, start=1)]
    write_coco_folder(folder / "data", ((64, 80), (80, 64)), ((64, 80), (64, 80)), categories, train_objects=(13, 1))
    for split in ("train", "val"):
        path = folder / f"data/annotations/custom_{split}.json"
        coco = json.loads(path.read_text())
        for image in coco["images"]:
            images, old = folder / f"data/{split}2017", image["file_name"]
            image["file_name"] = f"{split}{CODES}{old}"
            (images / old).rename(images / image["file_name"])
        path.write_text(json.dumps(coco))
    write_run_folder(folder / "model", tiny_detr(("other", "names")))
    recipe = {
        "data": {"root": "data", "name": f"set{CODES}"},
        "model": {"checkpoint": "model", "shortest_edge": 64, "longest_edge": 96},
        "training": {"output_dir": "run", "use_cpu": True, "bf16": False, "max_steps": 1, "disable_tqdm": True},
    }
    (folder / "r.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["train", "r.yaml"]) == 0
    return folder


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("check r.yaml", r"set\x1b]0;owned\x07\u202egpj\u200b\r\nerror: all is lost: 2 training"),
        ("evaluate run", r"mug\x1b]0;owned\x07\u202egpj\u200b\r\nerror: all is lost"),
        ("predict run data/val2017 --threshold 0", r"mug\x1b]0;owned\x07\u202egpj\u200b\r\nerror: all is lost"),
        ("report run --overwrite", "written: run/report.html"),
    ],
)
def test_no_verb_prints_them(
    command: str, shown: str, hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    shutil.copytree(hostile, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    if command.startswith("predict"):
        photo = next(Path("data/val2017").iterdir())
        photo.write_bytes(photo.read_bytes()[:300])
    capfd.readouterr()
    cli.main(command.split())
    out, err = capfd.readouterr()
    assert shown in out + err
    assert not STEERING.findall(out + err)


def test_whatever_is_printed_is_written_out(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setattr(cli, "run", lambda arguments: print(CODES) or 0)
    assert cli.main([]) == 0
    assert capfd.readouterr().out == r"\x1b]0;owned\x07\u202egpj\u200b\r" + "\nerror: all is lost\n"


def test_an_error_does_not_print_them(capfd) -> None:
    assert cli.main(["check", f"no{CODES}.yaml"]) == 2
    err = capfd.readouterr().err
    assert r"no\x1b]0;owned\x07\u202egpj\u200b" in err and "\x1b" not in err


def test_a_log_does_not_print_them(caplog: pytest.LogCaptureFixture) -> None:
    cli.main(["check", "nothing.yaml"])
    logging.getLogger("somebody").warning("%s", CODES)
    assert caplog.messages == [r"\x1b]0;owned\x07\u202egpj\u200b\r" + "\nerror: all is lost"]


def test_the_page_does_not_obey_them(hostile: Path) -> None:
    page = (hostile / "run/report.html").read_text(encoding="utf-8")
    assert r"mug\x1b]0;owned\x07\u202egpj\u200b\r" in page
    assert not re.search("[\x07\x1b\u202e\u200b]", page)
    assert "<img src=x" not in page


def test_the_model_card_shows_them_as_they_are(hostile: Path) -> None:
    card = build_model_card(hostile / "run", 'me/x"`')
    assert not re.search("[\x07\x1b\u202e\u200b]", card)
    metadata, _, text = card.removeprefix("---\n").partition("\n---\n")
    assert "error: all is lost" not in metadata.splitlines()
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "javascript:" not in "".join(re.findall("<a .*?>", html)) and "<img" not in html
    assert "[cone](javascript:alert(1)) `|` &lt;img src=x onerror=alert(1)&gt; *_b_* \\</td>" in html
    rows = re.findall("<tr>.*?</tr>", html.partition("Per class")[2], re.DOTALL)
    assert [row.count("<td>") for row in rows[1:3]] == [4, 4]


def test_settings_in_backticks_stay_in_them(hostile: Path, tmp_path: Path) -> None:
    shutil.copytree(hostile / "run", tmp_path / "run")
    recipe = (tmp_path / "run/recipe.yaml").read_text(encoding="utf-8")
    changed = re.sub("optim: .*", 'optim: "``<b>|`"', recipe)
    (tmp_path / "run/recipe.yaml").write_text(changed, encoding="utf-8")
    html = MarkdownIt("commonmark").enable("table").render(build_model_card(tmp_path / "run").split("\n---\n", 1)[1])
    assert "<td><code>``&lt;b&gt;|`</code></td>" in html


def test_half_characters_are_refused(hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    shutil.copytree(hostile, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    path = Path("data/annotations/custom_train.json")
    coco = json.loads(path.read_text())
    coco["categories"][0]["name"], coco["images"][0]["file_name"] = "mug\ud83d", "a\udcff.jpg"
    path.write_text(json.dumps(coco))
    for command in ("check r.yaml", "train r.yaml --training.output_dir other"):
        assert cli.main(command.split()) == 1
        out, err = capfd.readouterr()
        assert "expected 'name' to be a text that is not empty, of whole characters, found 'mug\\ud83d'" in out + err
        assert "'file_name' to be a text that is not empty, of whole characters, found 'a\\udcff.jpg'" in out + err
    assert json.loads((hostile / "run" / CONFIG).read_text())["id2label"]["0"] == CLASSES[0]
