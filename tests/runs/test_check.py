"""`hf-detr-ft check`: problems, then the model, then the largest batches."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from hf_detr_ft.cli import main
from hf_detr_ft.data.checks import image_checks
from hf_detr_ft.evaluation.suspects import find_suspects
from hf_detr_ft.model import more_queries
from hf_detr_ft.runs import check_model
from tests.data.planted import write_planted
from tests.fixtures import CLASSES, as_flags, tiny_detr, write_coco_folder


@pytest.fixture
def job(tmp_path: Path) -> list[str]:
    write_coco_folder(tmp_path, train_sizes=[(96, 128), (128, 96), (48, 144)], val_sizes=[(96, 128)])
    tiny_detr(["a"]).save_pretrained(tmp_path / "checkpoint")
    flags = {
        "data.root": tmp_path,
        "model.checkpoint": tmp_path / "checkpoint",
        "model.shortest_edge": 64,
        "model.longest_edge": 160,
        "training.per_device_train_batch_size": 2,
        "training.bf16": "false",
    }
    return as_flags(flags)


def test_good_data_end_with_the_memory_of_the_largest_batches(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", *job]) == 0
    out = capsys.readouterr().out
    assert "data      0 errors" in out
    assert "training: 3 images" in out
    assert f"classes (2): {', '.join(CLASSES)}" in out
    assert "trains layer2, layer3, layer4" in out
    match = re.search(r"training  2 images of (\d+) x (\d+) pixels: .*, peak memory (\d+\.\d+) GiB on cpu", out)
    assert match is not None
    assert int(match[1]) % 32 == int(match[2]) % 32 == 0 and int(match[1]) * int(match[2]) >= 64 * 96, "size_step is 32"
    match = re.search(r"evaluation 1 images of 64 x 85 pixels: .*, peak memory (\d+\.\d+) GiB on cpu", out)
    assert match is not None and float(match[1]) > 0
    assert f"hf-detr-ft train --data.root {tmp_path}" in out
    assert "GiB on cpu" in out
    assert not (tmp_path / "runs").exists()


def test_headers_alone_are_read_by_choice_each_once(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("decoded"))
    read, real = [], image_checks.read_image
    monkeypatch.setattr(
        image_checks, "read_image", lambda path, decode: (read.append(path.name), real(path, decode))[1]
    )
    assert main(["check", *job[:2], "--headers-only", *job[2:]]) == 0
    out = capsys.readouterr().out
    assert "data      0 errors" in out
    assert "--headers" not in out.splitlines()[-1], "training has no such flag"
    assert len(read) == len(set(read)) == 4


def test_errors_end_with_status_1_before_any_model(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = tmp_path / "annotations" / "custom_val.json"
    coco = json.loads(annotations.read_text())
    coco["annotations"][0]["category_id"] = 99
    annotations.write_text(json.dumps(coco))
    assert main(["check", *job, "--model.checkpoint", "/nowhere"]) == 1
    out = capsys.readouterr().out
    assert "custom_val.json" in out
    assert "data      1 errors" in out
    assert not re.search("^model", out, re.MULTILINE)


def test_more_objects_than_queries_are_reported(
    job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(more_queries, "STEPS", 1)
    annotations = tmp_path / "annotations" / "custom_train.json"
    coco = json.loads(annotations.read_text())
    first = coco["annotations"][0]
    coco["annotations"] += [{**first, "id": 1000 + number} for number in range(120)]
    annotations.write_text(json.dumps(coco))
    (tmp_path / "annotations" / "custom_val.json").write_text(annotations.read_text())
    assert main(["check", *job, "--data.val_images", "train2017"]) in (0, 1)
    out = capsys.readouterr().out
    warnings = [line for line in out.splitlines() if line.startswith("warning   ")]
    worst = f"(the most, 122, {coco['images'][0]['file_name']})"
    assert warnings == [
        f"warning   1 of 3 training images have more objects than the model queries, 12 {worst}: 110 of them are "
        "never learned. Cut such images up, or set model.num_queries to 122 or more.",
        f"warning   1 of 3 validation images have more objects than the model queries, 12 {worst}: 110 of them are "
        "never found. Cut such images up, or set model.num_queries to 122 or more.",
        "warning   1 of 3 validation images have more objects of a class than detections count, 100 "
        f"{worst.replace('122', '121')}: 21 of them count as missed. For an AP of all beside COCO's set "
        "evaluation.max_detections to 121 or more.",
    ]
    assert "matching  of 2 images, 2 layers, 12 queries and 122 objects: 0.0 MiB of costs" in out
    enough = ("--model.num_queries", "122", "--evaluation.max_detections", "150")
    assert main(["check", *job, *enough, "--data.val_images", "train2017"]) in (0, 1)
    out = capsys.readouterr().out
    assert "warning   " not in out
    assert "matching  of 2 images, 2 layers, 122 queries and 122 objects: 0.2 MiB of costs" in out


@pytest.mark.parametrize("verb", ["check", "train"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_too_thin_for_the_model_is_found_before_any_model(
    split: str, verb: str, job: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = tmp_path / "annotations" / f"custom_{split}.json"
    coco = json.loads(annotations.read_text())
    image = coco["images"][0]
    coco["annotations"] = [{**coco["annotations"][0], "image_id": coco["images"][-1]["id"], "bbox": [0, 0, 9, 9]}]
    coco["images"].append({**image, "id": 5, "file_name": "thin.png", "width": 2000, "height": 1})
    Image.new("RGB", (2000, 1)).save(tmp_path / f"{split}2017" / "thin.png")
    annotations.write_text(json.dumps(coco))
    flags = [*job, "--model.checkpoint", "/nowhere", "--training.output_dir", str(tmp_path / "run")]
    assert main([verb, *flags]) == 1
    printed = capsys.readouterr()
    assert "error [thin-image]" in printed.out + printed.err
    assert "resized to 160 pixels, found 2000 x 1 pixels; cut it up" in printed.out + printed.err
    assert main([verb, *flags, "--model.square_edge", "64"]) == 1, "a square has room for it; the model is missing"
    printed = capsys.readouterr()
    assert "thin-image" not in printed.out + printed.err
    assert "model.checkpoint" in printed.err


def test_what_is_planted_is_printed_by_kind_and_as_json_and_repaired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, fixed = write_planted(tmp_path / "data"), tmp_path / "fixed"
    flags = ["--model.shortest_edge", "64", "--model.checkpoint", "/nowhere", "--training.use_cpu", "true"]
    job = ["check", "--data.root", str(root), *flags]
    assert main(job) == 1
    table = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [line.split() for line in table if "box-twice" in line] == [["box-twice", "1", "warning"]]
    assert table == sorted(table, key=lambda line: line.split()[2]), "errors first"
    assert main([*job, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["errors"] == sum(problem["severity"] == "error" for problem in found["problems"]) > 5
    assert found["kinds"]["category-alike"] == 2
    assert main([*job, "--fix", str(fixed)]) == 0
    assert f"listed in {fixed / 'changes.json'}" in capsys.readouterr().out
    assert main(["check", "--data.root", str(fixed), *flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["errors"] == 0
    assert main([*job, "--fix", str(fixed)]) == 1
    assert "--fix: expected a folder that is not there yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fix"], "--fix: expected a folder behind it"),
        (["--model"], "--model: expected a run behind it"),
        (["--output", "x"], "--output: expected --model RUN beside it"),
    ],
)
def test_options_without_what_they_need_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_model_shows_what_it_contradicts_in_each_split(
    spread_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_model, "find_worst_suspects", find_suspects)  # of a model that knows nothing, none is
    root, output = write_coco_folder(tmp_path / "data"), tmp_path / "suspects"
    job = ["check", "--model", str(spread_run), "--output", str(output), "--data.root", str(root)]
    assert main([*job, "--training.use_cpu", "true", "--training.disable_tqdm", "true"]) == 0
    printed = capsys.readouterr().out
    for split in ("train", "val"):
        suspects = json.loads((output / f"suspects-{split}.json").read_text())
        assert suspects
        assert [entry["weight"] for entry in suspects] == sorted((entry["weight"] for entry in suspects), reverse=True)
        assert {entry["kind"] for entry in suspects} <= {"missing", "class", "place"}
        assert f"{split}: the model contradicts {len(suspects)} annotation" in printed
        with Image.open(output / f"suspects-{split}.png") as sheet:
            assert sheet.width == 1200
    assert main([*job]) == 2
    assert "--output: expected a folder that is empty or not there" in capsys.readouterr().err
