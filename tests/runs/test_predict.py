import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from hf_detr_ft.data.find_images import find_images
from hf_detr_ft.errors import CheckpointError, DataError, RecipeError
from hf_detr_ft.model.speed import bf16_backbone
from hf_detr_ft.plots import draw_boxes
from hf_detr_ft.runs.predict import name_drawn_images, predict
from tests.fixtures import CLASSES, plain_image


@pytest.fixture(autouse=True)
def _in_fp32_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test should depend on what is faster on this machine."""
    monkeypatch.setattr(bf16_backbone, "is_faster_in_bf16", lambda model: False)


@pytest.fixture
def run(spread_run: Path) -> str:
    return str(spread_run)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images of all kinds, in the current directory."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    plain_image(90, 150, 0).save(folder / "plain.jpg")
    plain_image(150, 90, 1).convert("L").save(folder / "grey.png")
    plain_image(90, 150, 2).convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    plain_image(90, 150, 3).save(folder / "turned.jpg", exif=exif)
    Image.new("RGB", (1, 1), "red").save(folder / "one pixel.png")
    plain_image(320, 240, 5).resize((1800, 2400)).save(folder / "huge größe ж.JPG", format="JPEG")
    (folder / "notes.txt").write_text("no image")
    (folder / "._plain.jpg").write_bytes(b"what macOS leaves on foreign disks")
    return folder


def results(output: Path) -> list[dict]:
    return json.loads((output / "detections.json").read_text(encoding="utf-8"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def truncated() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 150, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()[:3000]


def test_a_folder_of_all_kinds(run: str, photos: Path, capsys: pytest.CaptureFixture):
    assert predict(run, ["photos"], threshold=0) == 0
    output = photos.parent / "predictions"
    drawn = ["cmyk.jpg", "grey.png", "huge größe ж.jpg", "one pixel.png", "plain.jpg", "turned.jpg"]
    assert names(output) == sorted([*drawn, "detections.json"])
    sizes = {name: Image.open(output / name).size for name in drawn}
    assert sizes["huge größe ж.jpg"] == (1800, 2400)
    assert sizes["turned.jpg"] == (90, 150)
    assert sizes["one pixel.png"] == (1, 1)
    assert all(Image.open(output / name).mode == "RGB" for name in drawn)
    found = results(output)
    assert len(found) == 6 * 12
    assert list(dict.fromkeys((entry["image_id"], entry["file_name"]) for entry in found)) == [
        (1, "photos/cmyk.jpg"),
        (2, "photos/grey.png"),
        (3, "photos/huge größe ж.JPG"),
        (4, "photos/one pixel.png"),
        (5, "photos/plain.jpg"),
        (6, "photos/turned.jpg"),
    ]
    text = capsys.readouterr().out
    assert "6 of 6 images, 72 detections with a score above 0, 0 images without any" in text
    assert "predictions: 6 drawn images, detections.json" in text


def test_boxes_are_those_of_the_pipeline(run: str, photos: Path):
    predict(run, ["photos/turned.jpg", "photos/plain.jpg", "photos/grey.png"], threshold=0.3, batch_size=2)
    found = results(photos.parent / "predictions")
    detector = pipeline("object-detection", model=run)
    for name in ("turned.jpg", "plain.jpg", "grey.png"):
        expected = sorted(detector(str(photos / name), threshold=0.3), key=lambda entry: -entry["score"])
        entries = [entry for entry in found if entry["file_name"] == f"photos/{name}"]
        assert len(entries) == len(expected) > 0
        for entry, other in zip(entries, expected, strict=True):
            x, y, w, h = entry["bbox"]
            assert entry["score"] == pytest.approx(other["score"], abs=2e-6)
            assert entry["category_id"] == dict(zip(CLASSES, (3, 7), strict=True))[other["label"]]
            assert [x, y, x + w, y + h] == pytest.approx(list(other["box"].values()), abs=1.02)
            assert entry["bbox"] == [round(value, 2) for value in entry["bbox"]]


def test_the_result_does_not_depend_on_batch_size_or_order(run: str, photos: Path):
    predict(run, ["photos"], threshold=0, output=Path("one"), batch_size=1)
    inputs = [
        f"photos/{name}" for name in sorted(names(photos), reverse=True) if name[0] != "." and "notes" not in name
    ]
    predict(run, inputs, threshold=0, output=Path("six"), batch_size=6)
    one, six = results(Path("one")), results(Path("six"))
    assert [(e["image_id"], e["file_name"]) for e in one] == [(e["image_id"], e["file_name"]) for e in six]
    np.testing.assert_allclose([e["bbox"] for e in one], [e["bbox"] for e in six], atol=0.05)


def test_coco_tools_read_the_results(run: str, photos: Path):
    from pycocotools.coco import COCO

    predict(run, ["photos"], threshold=0.5)
    coco = COCO()
    coco.dataset = {"images": [{"id": n} for n in range(1, 7)], "categories": [{"id": 3}, {"id": 7}], "annotations": []}
    coco.createIndex()
    loaded = coco.loadRes("predictions/detections.json")
    assert len(loaded.anns) == len(results(Path("predictions"))) > 0
    assert all(entry["score"] > 0.5 for entry in results(Path("predictions")))


def test_broken_images_are_skipped_and_the_status_says_so(run: str, photos: Path, capsys: pytest.CaptureFixture):
    (photos / "broken.jpg").write_bytes(truncated())
    (photos / "empty.png").write_bytes(b"")
    Image.new("RGB", (5000, 1)).save(photos / "line.png")
    assert predict(run, ["photos", "photos/notes.txt"], threshold=0, batch_size=3) == 1
    captured = capsys.readouterr()
    for message in (
        "skipped: photos/broken.jpg: expected a whole image, found one that is truncated",
        "skipped: photos/empty.png: expected an image, found an empty file",
        "skipped: photos/line.png: an image of 5000 x 1 pixels cannot be resized",
        "skipped: photos/notes.txt: expected an image, found a file in no format",
    ):
        assert message in captured.err
        assert message not in captured.out
    assert "6 of 10 images, 72 detections" in captured.out
    # The ids are places among all inputs, so that they stay when a file is repaired.
    ids = {entry["file_name"]: entry["image_id"] for entry in results(Path("predictions"))}
    assert ids["photos/cmyk.jpg"] == 2
    assert ids["photos/turned.jpg"] == 10
    assert len(ids) == 6
    assert "broken.jpg" not in names(Path("predictions"))


def test_only_broken_images(run: str, photos: Path, capsys: pytest.CaptureFixture):
    (photos / "broken.jpg").write_bytes(truncated())
    assert predict(run, ["photos/broken.jpg"]) == 1
    assert results(Path("predictions")) == []
    assert "0 of 1 images, 0 detections" in capsys.readouterr().out


def test_nothing_above_the_threshold(run: str, photos: Path, capsys: pytest.CaptureFixture):
    assert predict(run, ["photos/grey.png"], threshold=1) == 0
    assert results(Path("predictions")) == []
    assert "1 images without any" in (text := capsys.readouterr().out)
    assert "The highest score was 0." in text
    drawn, photo = Image.open("predictions/grey.png"), Image.open(photos / "grey.png")
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(photo.convert("RGB")))


def test_detections_are_drawn_with_the_most_certain_on_top(run: str, photos: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(draw_boxes, "draw_detections", lambda image, *arguments: calls.append(arguments) or image)
    predict(run, ["photos/plain.jpg"], threshold=0)
    ((boxes_xyxy_px, texts, labels),) = calls
    entries = results(Path("predictions"))[::-1]
    assert texts == [f"{CLASSES[e['category_id'] == 7]} {e['score']:.2f}" for e in entries]
    assert [float(text.split()[1]) for text in texts] == sorted(float(text.split()[1]) for text in texts)
    np.testing.assert_allclose(boxes_xyxy_px[:, :2], [e["bbox"][:2] for e in entries], atol=0.01)
    assert len(labels) == 12


def test_a_model_without_category_ids_gives_labels(photos: Path, run: str):
    other = Path(shutil.copytree(run, "other"))
    config = json.loads((other / "config.json").read_text())
    config.pop("category_ids")
    (other / "config.json").write_text(json.dumps(config))
    predict("other", ["photos/plain.jpg"], threshold=0, output=Path("labels"))
    predict(run, ["photos/plain.jpg"], threshold=0, output=Path("ids"))
    assert [{3: 0, 7: 1}[e["category_id"]] for e in results(Path("ids"))] == [
        e["category_id"] for e in results(Path("labels"))
    ]
    (other / "config.json").write_text(json.dumps({**config, "category_ids": [1, 2, 3]}))
    with pytest.raises(CheckpointError, match=r"'other': config\.json has 3 category_ids for 2 classes"):
        predict("other", ["photos/plain.jpg"], output=Path("none"))
    assert not Path("none").exists()


# Inputs


def test_same_names_in_two_folders(run: str, photos: Path):
    for folder in ("a", "b/deep", "B"):
        (photos / folder).mkdir(parents=True)
        plain_image(60, 60, 1).save(photos / folder / "IMG_1.jpg")
    plain_image(60, 60, 1).save(photos / "a" / "img_1.bmp")
    plain_image(60, 60, 1).save(photos / "a" / "IMG_1_2.jpg")
    assert predict(run, ["photos/a", "photos/b", "photos/B"], threshold=0) == 0
    drawn = [name for name in names(Path("predictions")) if name != "detections.json"]
    assert len({name.lower() for name in drawn}) == 5
    assert len(results(Path("predictions"))) == 5 * 12


def test_drawn_names_are_unique_and_follow_the_inputs():
    files = [Path(name) for name in ("a/x.jpg", "a/x.png", "a/x.tif", "b/X.jpeg", "b/x_2.jpg", "c/x.jpg")]
    drawn = [path.name for path in name_drawn_images(files, Path("out")).values()]
    assert drawn == ["x.jpg", "x.png", "x_2.jpg", "X_3.jpg", "x_2_2.jpg", "x_4.jpg"]


def test_inputs_are_found_once_and_sorted(photos: Path):
    (photos / "deep" / ".hidden").mkdir(parents=True)
    plain_image(9, 9, 0).save(photos / "deep" / "b.webp")
    plain_image(9, 9, 0).save(photos / "deep" / ".hidden" / "c.png")
    (photos / "link.jpg").symlink_to(photos / "plain.jpg")
    everything = find_images(["photos", str(photos), "photos/plain.jpg", "photos/*.jpg"], Path("predictions"))
    assert [path.name for path in everything] == sorted(path.name for path in everything) or everything == sorted(
        everything
    )
    assert len(everything) == 7
    assert len({path.resolve() for path in everything}) == 7
    assert Path("photos/deep/b.webp") in everything


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.png", ["grey.png", "one pixel.png"]),
        (
            "photos/*",
            ["cmyk.jpg", "grey.png", "huge größe ж.JPG", "one pixel.png", "plain.jpg", "turned.jpg", "b.webp"],
        ),
        ("**/*.webp", ["b.webp"]),
        ("photos/[pt]*.jpg", ["plain.jpg", "turned.jpg"]),
        ("photos/huge*", ["huge größe ж.JPG"]),
    ],
)
def test_patterns(photos: Path, pattern: str, expected: list[str]):
    (photos / "deep").mkdir()
    plain_image(9, 9, 0).save(photos / "deep" / "b.webp")
    assert {path.name for path in find_images([pattern], Path("predictions"))} == set(expected)


def test_a_file_whose_name_looks_like_a_pattern(photos: Path):
    plain_image(9, 9, 0).save(photos / "plain[1].jpg")
    assert [path.name for path in find_images(["photos/plain[1].jpg"], Path("x"))] == ["plain[1].jpg"]


def test_all_inputs_that_match_nothing_are_named_at_once(run: str, photos: Path):
    (photos / "empty folder").mkdir()
    with pytest.raises(RecipeError) as error:
        predict(run, ["photos/*.gif", "photos/empty folder", "nowhere.jpg", "photos/plain.jpg"])
    lines = str(error.value).splitlines()
    assert lines[0].startswith("'photos/*.gif': expected a pattern that matches images, found none")
    assert lines[1].startswith("'photos/empty folder': expected images in this folder, found none")
    assert lines[2].startswith("'nowhere.jpg': expected a file, a folder or a pattern, found no such file")
    assert len(lines) == 4
    assert error.value.exit_status == 2
    assert not Path("predictions").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_may_not_be_searched(photos: Path):
    (photos / "locked").mkdir(mode=0)
    with pytest.raises(DataError, match="locked: cannot be searched"):
        find_images(["photos"], Path("x"))


# Output


def test_an_output_with_files_is_left_alone_unless_asked(run: str, photos: Path):
    output = photos.parent / "out"
    output.mkdir()
    (output / ".DS_Store").touch()
    predict(run, ["photos/plain.jpg"], output=output, threshold=0)
    (output / "mine.txt").write_text("mine")
    with pytest.raises(RecipeError, match=r"out' is not empty. Name another folder, or give --overwrite"):
        predict(run, ["photos/plain.jpg"], output=output)
    assert len(results(output)) == 12
    assert predict(run, ["photos/plain.jpg"], output=output, threshold=1, overwrite=True) == 0
    assert results(output) == []
    assert names(output) == [".DS_Store", "detections.json", "mine.txt", "plain.jpg"]


@pytest.mark.parametrize("output", ["photos", "photos/../photos", "link"])
def test_inputs_are_never_replaced(run: str, photos: Path, output: str):
    Path("link").symlink_to(photos)
    before = (photos / "plain.jpg").read_bytes()
    with pytest.raises(RecipeError, match=r"plain\.jpg' is an input and would be replaced"):
        predict(run, ["photos/plain.jpg"], output=Path(output), overwrite=True)
    assert (photos / "plain.jpg").read_bytes() == before


def test_drawn_images_are_not_taken_for_inputs_the_next_time(run: str, photos: Path):
    for _ in range(2):
        assert predict(run, ["."], threshold=0, overwrite=True) == 0
        assert len(results(Path("predictions"))) == 6 * 12
    assert len(find_images(["**/*"], Path("predictions"))) == 6


def test_an_output_that_is_a_file_or_cannot_be_made(run: str, photos: Path):
    with pytest.raises(RecipeError, match=r"expected a folder, 'photos/notes\.txt' is a file"):
        predict(run, ["photos/plain.jpg"], output=Path("photos/notes.txt"))
    with pytest.raises(DataError, match=r"photos/notes\.txt/out: cannot be written: Not a directory"):
        predict(run, ["photos/plain.jpg"], output=Path("photos/notes.txt/out"))


def test_a_disk_that_is_full_leaves_no_half_image(run: str, photos: Path, monkeypatch: pytest.MonkeyPatch):
    def save(image: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(DataError, match=r"plain\.jpg: cannot be written: No space left on device"):
        predict(run, ["photos/plain.jpg"])
    assert names(Path("predictions")) == []


def test_an_image_too_long_for_jpeg_is_drawn_as_png(run: str, photos: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hf_detr_ft.inference.write_images.LONGEST_JPEG_SIDE", 100)
    predict(run, ["photos/plain.jpg"])
    assert names(Path("predictions")) == ["detections.json", "plain.jpg.png"]
    assert Image.open("predictions/plain.jpg.png").format == "PNG"


# Arguments


@pytest.mark.parametrize("threshold", [-0.1, 1.1, 50, float("nan")])
def test_a_threshold_that_is_no_score(run: str, photos: Path, threshold: float):
    with pytest.raises(RecipeError, match=f"--threshold: expected a score from 0 to 1, found {threshold}") as error:
        predict(run, ["photos"], threshold=threshold)
    assert error.value.exit_status == 2


def test_a_batch_without_images(run: str, photos: Path):
    with pytest.raises(RecipeError, match="--batch-size: expected 1 or more images, found 0"):
        predict(run, ["photos"], batch_size=0)


def test_a_model_that_is_not_there_leaves_no_output(photos: Path):
    with pytest.raises(CheckpointError, match="found no such folder"):
        predict("./nowhere", ["photos"])
    assert not Path("predictions").exists()


def test_real_photos(run: str, balloon: Path, tmp_path: Path):
    folder = balloon / "val2017"
    assert predict(run, [str(folder)], threshold=0.3, output=tmp_path / "out") == 0
    for path in folder.glob("*.jpg"):
        assert Image.open(tmp_path / "out" / path.name).size == Image.open(path).size


def test_bf16_is_tried_out_where_there_are_images_enough(
    run: str, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[object] = []
    monkeypatch.setattr(bf16_backbone, "is_faster_in_bf16", lambda model: bool(tried.append(model)))
    predict(run, ["photos"], output=tmp_path / "six")
    assert not tried
    for number in range(2):
        plain_image(90, 150, number).save(photos / f"{number}.png")
    predict(run, ["photos"], output=tmp_path / "eight")
    assert len(tried) == 1


def test_the_model_runs_where_the_accelerator_is(run: str, photos: Path, monkeypatch: pytest.MonkeyPatch):
    accelerator, moved, move = torch.device("cpu", 0), [], torch.nn.Module.to
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: accelerator)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *where: moved.extend(where) or move(self, *where))
    predict(run, ["photos/plain.jpg"])
    assert accelerator in moved


def test_in_fp32_boxes_are_those_of_the_pipeline_and_in_bf16_nearly_so(run: str, photos: Path):
    for precision in ("fp32", "bf16"):
        predict(run, ["photos/plain.jpg"], threshold=0, output=Path(precision), precision=precision)
    exact, rounded = (
        sorted(results(Path(name)), key=lambda result: (result["category_id"], result["bbox"]))
        for name in ("fp32", "bf16")
    )
    wanted = pipeline("object-detection", run, device="cpu")("photos/plain.jpg", threshold=0)
    assert sorted(result["score"] for result in exact) == pytest.approx(sorted(r["score"] for r in wanted), abs=1e-5)
    scores = [[result["score"] for result in found] for found in (exact, rounded)]
    assert scores[0] != scores[1]
    assert sorted(scores[1]) == pytest.approx(sorted(scores[0]), abs=0.01)
