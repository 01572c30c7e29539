"""Videos, tables and data sets of `hf-detr-ft predict`."""

import csv
import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_detr_ft.boxes import xywh_to_xyxy
from hf_detr_ft.cli import main
from hf_detr_ft.data.split_source import Source, load_source
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.inference import detect_files
from hf_detr_ft.inference.detect import ImageDetections
from hf_detr_ft.inference.detect_files import Look, Seen, detect_video
from hf_detr_ft.inference.image_detector import Detector
from hf_detr_ft.inference.video import Video
from hf_detr_ft.inference.write_found import build_data_set
from hf_detr_ft.recipe.sections import DataConfig
from hf_detr_ft.runs.predict import predict
from tests.fixtures import CLASSES, plain_image
from tests.inference.videos import plain_frames, turn, write_video

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture
def run(spread_run: Path) -> str:
    return str(spread_run)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two photos of one name in two folders, and a video of six frames, in the current directory."""
    monkeypatch.chdir(tmp_path)
    for place, seed in (("in/a", 0), ("in/b", 1)):
        Path(place).mkdir(parents=True)
        plain_image(64, 96, seed).save(f"{place}/photo.png")
    write_video(Path("in/clip.mp4"), plain_frames(6, 90, 60))
    return Path("in")


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def results(folder: str) -> list[dict[str, Any]]:
    return json.loads(Path(folder, "detections.json").read_text())


def frames_of(path: str) -> list[np.ndarray]:
    with Video(Path(path)) as video:
        return [np.asarray(video.to_image(frame)).astype(int) for frame in video.frames()]


def test_a_video_is_drawn_frame_by_frame(run: str, inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(run, ["in"], threshold=0.3, output=Path("out"), batch_size=4, precision="fp32") == 0
    text = capsys.readouterr().out
    assert "2 of 2 images and 1 of 1 videos" in text
    assert "in/clip.mp4: 6 frames in " in text
    assert "out: 2 drawn images, 1 drawn videos, detections.json" in text
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("clip.mp4", "detections.json", "photo.png", "photo_2.png"),
    ]
    stored, drawn = frames_of("in/clip.mp4"), frames_of("out/clip.mp4")
    assert len(stored) == len(drawn) == 6
    assert all(np.abs(one - other).max() > 5 for one, other in zip(stored, drawn, strict=True))
    frames = [entry for entry in results("out") if entry["file_name"] == "in/clip.mp4"]
    found = {entry["frame"]: entry["image_id"] for entry in frames}
    assert found == {number: number + 3 for number in range(6)}, "an image's id is its place among all"
    assert {entry["time"] for entry in frames} == {0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert all("track_id" not in entry for entry in frames)
    alone = Detector.from_pretrained(run)(frames_of("in/clip.mp4")[4].astype(np.uint8), threshold=0.3)
    boxes = xywh_to_xyxy(np.array([entry["bbox"] for entry in frames if entry["frame"] == 4]))
    np.testing.assert_allclose(boxes, alone["boxes"], atol=0.02)


def test_a_turned_video_is_drawn_upright(run: str, inputs: Path) -> None:
    turn(inputs / "clip.mp4")
    predict(run, ["in/clip.mp4"], output=Path("out"), precision="fp32")
    assert frames_of("out/clip.mp4")[0].shape == (60, 90, 3)


def test_tracks_and_every_second_frame(run: str, inputs: Path) -> None:
    """The same picture again and again, so each object is found again, at the same place."""
    write_video(Path("still.mp4"), [plain_image(64, 96, 0)] * 6)
    arguments = ["still.mp4", "--threshold", "0.3", "--precision", "fp32", "--track", "--every", "2", "--output", "out"]
    assert main(["predict", run, *arguments]) == 0
    assert {entry["frame"] for entry in results("out")} == {0, 2, 4}
    assert len(frames_of("out/still.mp4")) == 3
    by_track = defaultdict(list)
    for entry in results("out"):
        by_track[entry["track_id"]].append(entry)
    assert len(by_track) > 1
    for entries in by_track.values():
        assert [entry["frame"] for entry in entries] == [0, 2, 4]
        assert len({entry["category_id"] for entry in entries}) == 1


def test_the_table_has_a_row_for_each_detection_and_for_an_image_without(run: str, inputs: Path) -> None:
    for format in ("json", "csv"):
        arguments = ["--threshold", "0.3", "--precision", "fp32", "--output", format, "--format", format, "--track"]
        assert main(["predict", run, "in", *arguments]) == 0
    rows = table(Path("csv/detections.csv").read_text())
    assert len(rows) == len(results("json")) > 0
    for row, entry in zip(rows, results("json"), strict=True):
        assert (row["filename"], float(row["score"])) == (entry["file_name"], entry["score"])
        assert row["frame"] == str(entry.get("frame", ""))
        assert row["track_id"] == str(entry.get("track_id", ""))
        corners = [float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax")]
        assert corners == pytest.approx(xywh_to_xyxy(np.array(entry["bbox"])).tolist(), abs=0.011)
    main(["predict", run, "in/a", "--threshold", "1", "--output", "none", "--format", "csv"])
    [row] = table(Path("none/detections.csv").read_text())
    assert (row["filename"], row["class"], row["xmin"], row["width"]) == ("in/a/photo.png", "", "", "96")


@pytest.mark.parametrize("format", ["coco", "yolo", "voc"])
def test_predictions_come_back_as_a_data_set(
    run: str, inputs: Path, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written is read again by the readers of `check` and `train`, box by box."""
    arguments = ["--threshold", "0.2", "--precision", "fp32", "--format", format, "--output", "out/labels"]
    assert main(["predict", run, "in", *arguments]) == 0
    assert "out/labels: 8 images, " in capsys.readouterr().out
    assert [path.name for path in Path("out").iterdir()] == ["labels"], "frames are there no more"
    hold_expected(load_source(DataConfig(root="out/labels"), "train"), run, ["in"], inside=True)
    assert main(["check", "--data.root", "out/labels", "--data.val_share", "0.5"]) in (0, 1)


def test_a_table_comes_back_where_its_images_are(run: str, inputs: Path) -> None:
    predict(run, ["in/a", "in/b"], threshold=0.2, output=Path("out"), format="csv", precision="fp32")
    config = DataConfig(format="csv", train_annotations="out/detections.csv", train_images=".", val_annotations=None)
    hold_expected(load_source(config, "train"), run, ["in/a", "in/b"], inside=False)


def hold_expected(source: Source, run: str, given: list[str], inside: bool) -> None:
    """Holds a split that was read to what `predict` finds, where asked for with its boxes cut at the image's border."""
    predict(run, given, threshold=0.2, output=Path("again"), precision="fp32")
    expected, read = defaultdict(list), defaultdict(list)
    for entry in results("again"):
        name = Path(entry["file_name"]).parent.name + "_photo" if "frame" not in entry else f"{entry['frame']:06d}"
        expected[name].append(entry)
    names = {category["id"]: category["name"] for category in source.coco["categories"]}
    for entry in source.coco["annotations"]:
        read[entry["image_id"]].append(entry)
    assert len(source.coco["images"]) == len(expected)
    for image in source.coco["images"]:
        assert source.images_dir is not None
        size = Image.open(source.images_dir / image["file_name"]).size
        assert size == (image["width"], image["height"])
        own = expected[next(name for name in expected if name in image["file_name"].replace("/", "_"))]
        boxes, found = (
            xywh_to_xyxy(np.array([entry["bbox"] for entry in entries])) for entries in (own, read[image["id"]])
        )
        np.testing.assert_allclose(found, np.clip(boxes, 0, size * 2) if inside else boxes, atol=0.011)
        labels = [names[entry["category_id"]] for entry in read[image["id"]]]
        assert labels == [{3: CLASSES[0], 7: CLASSES[1]}[entry["category_id"]] for entry in own]


def test_a_data_set_replaces_nothing(run: str, inputs: Path) -> None:
    Path("out").mkdir()
    Path("out/mine.txt").touch()
    with pytest.raises(RecipeError, match="'out' is not empty; a data set takes a new folder. Name another one"):
        predict(run, ["in/a"], output=Path("out"), format="yolo", overwrite=True)
    assert [path.name for path in Path("out").iterdir()] == ["mine.txt"]
    shutil.rmtree("in/a")
    Path("in/b/photo.png").write_bytes(b"no photo")
    with pytest.raises(DataError, match="in/b/photo.png: could not be read, nor could any other image"):
        predict(run, ["in/b"], output=Path("new"), format="coco")
    assert sorted(path.name for path in Path().iterdir() if path.name != "cache") == ["in", "out"], "no frames stay"


def test_boxes_of_a_data_set_end_at_the_border_and_none_lies_outside() -> None:
    boxes = np.array([[-5, 10, 30, 70], [-20, 0, -1, 9], [3, 3, 3.001, 9]], dtype=np.float32)
    found = ImageDetections(np.array([0.9, 0.8, 0.7]), np.array([1, 0, 0]), boxes)
    path = Path("a.jpg")
    split, outside = build_data_set({path: [Seen(path, (60, 40), found, 0.9)]}, [path], {}, ["x", "y"], [4, 9])
    assert outside == 2
    [entry] = split.coco["annotations"]
    assert entry["bbox"] == [0, 10, 30, 50]
    assert (entry["area"], entry["category_id"], entry["score"]) == (1500, 9, 0.9)


def test_a_broken_video_is_skipped_and_the_status_says_so(
    run: str, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in/broken.mp4").write_bytes(b"no video")
    assert predict(run, ["in/broken.mp4", "in/a"], output=Path("out"), precision="fp32") == 1
    printed = capsys.readouterr()
    assert "skipped: in/broken.mp4: no video that can be read" in printed.err
    assert "1 of 1 images and 0 of 1 videos" in printed.out


def test_a_camera_is_read_until_it_is_interrupted(
    run: str, inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A video stands in for the camera: Ctrl-C comes in the third frame."""
    shown = iter(range(3))

    def look_until_interrupted(look: Look, path: Path, *settings: Any) -> Any:
        for one, image in detect_video(look, Path("in/clip.mp4"), *settings):
            if next(shown) == 2:
                raise KeyboardInterrupt
            yield one._replace(path=path), image

    monkeypatch.setattr(detect_files, "detect_video", look_until_interrupted)
    monkeypatch.setattr(Path, "exists", lambda path, **rest: str(path) == "/dev/video0" or os.path.exists(path))
    assert predict(run, ["0"], threshold=0.3, output=Path("out"), precision="fp32") == 0
    assert {entry["frame"] for entry in results("out")} == {0, 1}
    assert len(frames_of("out/video0.mp4")) == 2
    assert "/dev/video0: 2 frames in " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "--every: expected 1 or more frames, found 0"),
        ({"slice_side": 8}, "--slice: expected 32 or more pixels, found 8"),
    ],
)
def test_numbers_without_a_meaning(run: str, inputs: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        predict(run, ["in"], **arguments)
    assert not Path("predictions").exists()
