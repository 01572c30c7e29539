"""`convert-checkpoint SRC DST`: what is printed and written, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

from hf_detr_ft.cli import main
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.runs.convert_checkpoint import convert_checkpoint
from tests.parity.original_models import Model, random_tensors


def test_there_and_back_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folder, back = tmp_path / "detr-r18.pth", tmp_path / "folder", tmp_path / "back.pth"
    tensors = random_tensors(Model("resnet18"))
    torch.save({"model": tensors}, source)
    categories = tmp_path / "train.json"
    categories.write_text(json.dumps({"categories": [{"id": 3, "name": "mug"}, {"id": 7, "name": "cone"}]}))
    assert main(["convert-checkpoint", str(source), str(folder), "--categories-from", str(categories)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("DetrForObjectDetection of 1") and lines[-1] == f"written: {folder}"
    assert lines[1] == "dilation: false, since its name does not say dc5, and it holds no arguments"
    names = json.loads((folder / "config.json").read_text())["id2label"]
    assert len(names) == 20 and (names["3"], names["7"], names["0"]) == ("mug", "cone", "N/A")
    assert main(["convert-checkpoint", str(folder), str(back), "--to", "original"]) == 0
    assert capsys.readouterr().out == f"class head: 20 rows and no object\nwritten: {back}\n"
    assert torch.load(back, weights_only=True)["model"].keys() == tensors.keys()
    assert main(["convert-checkpoint", str(source), str(folder)]) == 1
    assert f"{folder}: expected a place where nothing is yet" in capsys.readouterr().err


def test_flags_of_the_other_way_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--num-classes: goes with the way with --to original alone"):
        convert_checkpoint("a.pth", tmp_path / "folder", num_classes=91)
    with pytest.raises(RecipeError, match=r"--dilation: goes with the way from a .pth alone"):
        convert_checkpoint("folder", tmp_path / "a.pth", to="original", dilation=False)
    (tmp_path / "a.pth").touch()
    with pytest.raises(DataError, match=r"a.pth: expected a place where nothing is yet"):
        convert_checkpoint("folder", tmp_path / "a.pth", to="original")
    with pytest.raises(RecipeError, match=r"convert-checkpoint: expected a file in a folder that exists"):
        convert_checkpoint("folder", tmp_path / "none" / "a.pth", to="original")
