"""The sheet of predictions: rows and truth in, one PNG out; the detections are constructed, or of a random DETR."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image, ImageDraw

from hf_detr_ft.data.coco import LabelMap
from hf_detr_ft.data.dataset import FEATURES, load_split
from hf_detr_ft.data.images import decode_cell
from hf_detr_ft.data.transform import DetrTransform, transformed
from hf_detr_ft.evaluation.detections import Detections
from hf_detr_ft.evaluation.matching import match_detections
from hf_detr_ft.evaluation.truth import read_truth
from hf_detr_ft.inference.detect import detect, load_detector
from hf_detr_ft.plots.box_overlay import ComparedPhoto, found_colour
from hf_detr_ft.report import predictions_sheet as picture
from hf_detr_ft.report.load_run import Validation
from hf_detr_ft.report.predictions_sheet import compare, draw_predictions, encode, pick
from hf_detr_ft.run_folder import RunFolder
from tests.fixtures import CATEGORIES, CLASSES, tiny_processor, write_coco_folder, write_run_with_spread_weights
from tests.plots.compared import INSIDE, compared, extent

LABELS = LabelMap((3, 7), CLASSES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_with_spread_weights(tmp_path_factory.mktemp("runs") / "lively")


def one_photo(folder: Path, exif_orientation: int, *, as_bytes: bool) -> tuple[Dataset, dict, tuple[int, ...]]:
    """A photo of 200 x 300 upright pixels with one object, its truth and the object's box xyxy."""
    upright = Image.new("RGB", (200, 300), "grey")
    ImageDraw.Draw(upright).rectangle((30, 200, 129, 279), fill=INSIDE)
    undo = {1: None, 6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180}[exif_orientation]
    exif = Image.Exif()
    exif[0x0112] = exif_orientation
    stream = io.BytesIO()
    (upright if undo is None else upright.transpose(undo)).save(stream, "PNG", exif=exif)
    (folder / "photo.png").write_bytes(stream.getvalue())
    coco = {
        "images": [{"id": 5, "file_name": "photo.png", "width": 200, "height": 300}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 7, "bbox": [30, 200, 100, 80], "area": 8000}],
        "categories": list(CATEGORIES),
    }
    rows = load_split(coco, folder, LABELS)
    if as_bytes:
        image = {"path": "not on this disk/photo.png", "bytes": stream.getvalue()}
        rows = Dataset.from_dict({**rows.with_format(None)[:], "image": [image]}, features=FEATURES)
    return rows, coco, (30, 200, 130, 280)


def detections(image_id: int, *rows: tuple[tuple[float, ...], int, float]) -> Detections:
    """Detections of one image: box xyxy, label and score each."""
    return Detections.from_results(
        [
            {
                "image_id": image_id,
                "category_id": LABELS.category_ids[label],
                "bbox": [x, y, x1 - x, y1 - y],
                "score": s,
            }
            for (x, y, x1, y1), label, s in rows
        ]
    )


@pytest.mark.parametrize(("orientation", "as_bytes"), [(1, False), (6, False), (6, True), (3, True)])
def test_boxes_lie_on_the_objects_of_upright_and_turned_photos(
    tmp_path: Path, orientation: int, as_bytes: bool
) -> None:
    rows, truth, box = one_photo(tmp_path, orientation, as_bytes=as_bytes)
    found = detections(5, (box, 1, 0.9), ((5, 5, 40, 40), 0, 0.3))
    path = draw_predictions(RunFolder(tmp_path / "run"), Validation(truth, found, rows), threshold=0.5)
    seen = np.asarray(Image.open(path)).astype(int)
    inside = extent(seen, INSIDE)
    photo = seen[inside[1] - 10 :, :]  # without the legend; the label is above the box
    left, _, right, bottom = extent(photo, found_colour(1))
    np.testing.assert_allclose((left, right, bottom + inside[1] - 10), (inside[0], *inside[2:]), atol=5)
    np.testing.assert_allclose((inside[2] - inside[0]) / (inside[3] - inside[1]), 100 / 80, atol=0.1)


def test_a_random_detr_over_a_split_with_more_images_than_there_is_room_for(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_coco_folder(tmp_path, val_sizes=[(60, 80), (80, 60)] * 10)
    truth = json.loads((root / "annotations" / "custom_val.json").read_text())
    rows = transformed(load_split(truth, root / "val2017", LABELS), DetrTransform(tiny_processor()))
    model, processor = load_detector(str(run))
    found = []
    for row in rows.with_format(None):
        (one,) = detect(model, processor, [decode_cell(row["image"])])
        boxes = zip(one.boxes_xyxy_px.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True)
        found.append(detections(row["image_id"], *boxes))
    shown = Validation(truth, Detections.concat(found), rows)
    drawn: list = []

    def noted(photos: list[ComparedPhoto], names: tuple[str, ...], title: str) -> bytes:
        drawn.extend([photos, names, title])
        return encode(photos, names, title)

    monkeypatch.setattr(picture, "encode", noted)
    monkeypatch.setattr(picture, "TILES", (100,))
    assert draw_predictions(RunFolder(run), shown, 0.2) == RunFolder(run).predictions
    photos, names, title = drawn
    assert tuple(names) == CLASSES
    assert title == "lively: 16 of 20 validation images, predictions with a score above 0.2"
    file_names = [image["file_name"] for image in truth["images"]]
    assert [photo.name for photo in photos] == [file_names[index] for index in pick(20, 16)]
    assert sum(len(photo.scores) for photo in photos) > 16
    assert all((photo.scores > 0.2).all() for photo in photos)
    assert sum(len(photo.true_labels) for photo in photos) == sum(
        annotation["image_id"] - 100 in pick(20, 16) for annotation in truth["annotations"]
    )
    assert [path.name for path in (run / "plots").iterdir()] == ["predictions.png"]
    image = Image.open(RunFolder(run).predictions)
    assert (image.format, image.mode) == ("PNG", "RGB")


def test_images_are_spread_evenly() -> None:
    assert pick(3, 16) == [0, 1, 2]
    assert pick(16, 16) == list(range(16))
    for count in (17, 20, 31, 5000):
        positions = pick(count, 16)
        assert len(set(positions)) == 16
        assert (positions[0], positions[-1]) == (0, count - 1)
        steps = np.diff(positions)
        assert steps.max() - steps.min() <= 1


def test_predictions_meet_objects_of_their_own_image_and_class() -> None:
    truth = {
        "images": [{"id": 30}, {"id": 10}, {"id": 20}],
        "categories": list(CATEGORIES),
        "annotations": [
            {"image_id": 10, "category_id": 3, "bbox": [0, 0, 10, 10]},
            {"image_id": 30, "category_id": 7, "bbox": [0, 0, 10, 10]},
            {"image_id": 30, "category_id": 3, "bbox": [20, 0, 10, 10]},
            {"image_id": 30, "category_id": 3, "bbox": [50, 50, 40, 40], "iscrowd": 1},
            {"image_id": 20, "category_id": 3, "bbox": [0, 0, 10, 10]},
        ],
    }
    rows = [{"image_id": 30, "file_name": "c"}, {"image_id": 10, "file_name": "a"}]
    found = detections(
        30,
        *(((0, 0, 10, 10), 1, 0.6), ((60, 60, 70, 70), 0, 0.7), ((0, 0, 10, 9), 1, 0.9), ((20, 0, 30, 10), 1, 0.8)),
    )
    images = [Image.new("RGB", (10, 10))] * 2
    first, second = compare(rows, images, [(100, 200), (50, 60)], match_detections(read_truth(truth), found), 0.5)
    assert (first.name, first.size) == ("c", (100, 200))
    assert first.true_labels.tolist() == [1, 0, 0]
    assert first.found.tolist() == [True, False, False]
    assert first.crowd.tolist() == [False, False, True]
    assert first.true_boxes_xyxy_px.tolist()[1] == [20, 0, 30, 10]
    assert first.is_tp.tolist() == [True, False, False, False]
    assert first.ignored.tolist() == [False, False, True, False]
    assert first.counts.tolist() == [1, 1, 2]
    assert (second.name, second.counts.tolist()) == ("a", [0, 1, 0])


@pytest.mark.parametrize(("threshold", "kept"), [(0.412, [0.9, 0.4127]), (0.9, []), (0.0, [0.9, 0.4127, 0.001])])
def test_predictions_above_the_threshold_of_the_title_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float, kept: list[float]
) -> None:
    rows, truth, box = one_photo(tmp_path, 1, as_bytes=False)
    drawn: list = []
    found = detections(5, (box, 1, 0.9), (box, 0, 0.4127), (box, 0, 0.001))
    monkeypatch.setattr(picture, "encode", lambda *args: drawn.extend(args) or b"")
    draw_predictions(RunFolder(tmp_path / "lively"), Validation(truth, found, rows), threshold)
    ((photo,), _, title) = drawn
    np.testing.assert_allclose(photo.scores, kept, atol=1e-6)
    assert title.startswith(f"lively: 1 validation image, predictions with a score above {threshold:g}")


def test_a_sheet_that_would_be_too_large_has_smaller_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (480, 480, 3), np.uint8))
    photo = compared((480, 480))
    photos = [ComparedPhoto(**{**vars(photo), "image": noise})] * 2
    assert Image.open(io.BytesIO(encode(photos, LABELS.names, "a"))).width > 2 * 480
    monkeypatch.setattr(picture, "LARGEST", 400_000)
    content = encode(photos, LABELS.names, "a")
    assert len(content) <= 400_000
    assert Image.open(io.BytesIO(content)).width < 2 * 480


def test_the_users_matplotlibrc_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    photos = [compared(objects=[((10, 10, 50, 50), 0, False)])]
    before = encode(photos, LABELS.names, "a")
    for name, value in (("axes.facecolor", "red"), ("text.usetex", True), ("hatch.linewidth", 9)):
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    assert encode(photos, LABELS.names, "a") == before
