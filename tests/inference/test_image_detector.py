"""`hf_detr_ft.Detector`: what it takes, what it gives, and that its boxes are those of `pipeline()`."""

import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import torch
from PIL import Image
from transformers import pipeline

import hf_detr_ft
from hf_detr_ft import Detector
from hf_detr_ft.errors import CheckpointError, DataError, RecipeError
from hf_detr_ft.inference import image_input
from hf_detr_ft.inference.detect import ImageDetections, detect
from hf_detr_ft.inference.image_detector import Found
from hf_detr_ft.synthetic.render import render
from tests.fixtures import CLASSES, plain_image, tiny_detr_with_masks, tiny_processor

TINY = "package:hf_detr_ft/tiny_detr"


@pytest.fixture(scope="module")
def detector(spread_run: Path) -> Detector:
    return Detector.from_pretrained(spread_run)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of `tmp_path`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def assert_same(one: Found, other: Found, atol: float = 1e-4) -> None:
    assert one["names"] == other["names"] and len(one["names"]) > 3
    np.testing.assert_allclose(one["boxes"], other["boxes"], atol=atol)
    np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-6)


def assert_those_of_the_pipeline(found: Found, expected: list[dict], at: float = 1e-3) -> None:
    """The pipeline cuts corners off to whole pixels: equal to within 0.001 where no whole number is as near as that."""
    wanted = sorted(expected, key=lambda entry: -entry["score"])
    assert [entry["label"] for entry in wanted] == found["names"]
    np.testing.assert_allclose([entry["score"] for entry in wanted], found["scores"], atol=1e-5)
    corners = np.array([list(entry["box"].values()) for entry in wanted]).reshape(-1, 4)
    low, high = (found["boxes"] + off for off in (-at, at))
    assert ((corners == low.astype(int)) | (corners == high.astype(int))).all()


def test_it_is_public_and_importing_the_package_imports_nothing() -> None:
    code = (
        "import sys, hf_detr_ft; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules);"
        "hf_detr_ft.Detector; others = {'supervision', 'matplotlib', 'datasets', 'pandas', 'pycocotools', 'cv2'};"
        "print(sorted(others & set(sys.modules)), 'transformers.pipelines' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[] False"
    with pytest.raises(AttributeError, match="has no attribute 'Detectors'"):
        hf_detr_ft.Detectors  # noqa: B018


def test_one_image_of_any_kind(detector: Detector, tmp_path: Path, served: str) -> None:
    image = plain_image(90, 150, 0)
    path = tmp_path / "photo.png"
    image.save(path)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    expected = detector(image, threshold=0.0)
    assert expected["source"] is None and len(expected["names"]) == 12
    address = f"{served}/photo.png"
    for same in (path, str(path), address, np.array(image), pixels, pixels / 255, image.convert("RGBA")):
        found = detector(same, threshold=0.0)
        assert_same(found, expected)
        assert found["source"] == (str(same) if isinstance(same, str | Path) else None)


def test_grey_images(detector: Detector) -> None:
    grey = plain_image(90, 150, 0).convert("L")
    expected = detector(grey.convert("RGB"), threshold=0.0)
    for same in (grey, np.array(grey), torch.from_numpy(np.array(grey))[None]):
        assert_same(detector(same, threshold=0.0), expected)


def test_an_image_in_memory_is_turned_upright_as_its_file_is(detector: Detector, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain_image(90, 150, 3).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as image:
        assert_same(detector(image, threshold=0.0), detector(tmp_path / "turned.jpg", threshold=0.0))
        assert image.size == (150, 90) and image.getexif()[0x0112] == 6, "the user's image stays as it is"


def test_several_keep_their_order_whatever_their_shapes(detector: Detector, tmp_path: Path) -> None:
    shapes = [(90, 150), (150, 90), (90, 150), (64, 64), (150, 90)]
    images = [plain_image(*shape, seed) for seed, shape in enumerate(shapes)]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    alone = [detector(image, threshold=0.0) for image in images]
    for batch_size in (1, 2, 8):
        together = detector(images, threshold=0.0, batch_size=batch_size)
        for one, other in zip(together, alone, strict=True):
            assert_same(one, other, atol=2e-3)
    in_folder = detector(tmp_path, threshold=0.0)
    assert [found["source"] for found in in_folder] == [str(tmp_path / f"{number}.png") for number in range(5)]
    assert_same(in_folder[1], alone[1], atol=2e-3)
    assert detector([], threshold=0.0) == []
    stacked = np.stack([np.array(images[0]), np.array(images[2])])
    for batch in (stacked, torch.from_numpy(stacked).permute(0, 3, 1, 2)):
        assert_same(detector(batch, threshold=0.0)[1], alone[2], atol=2e-3)


def test_the_batch_goes_through_the_model_by_shape(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple] = []
    hook = detector.model.register_forward_pre_hook(
        lambda _, __, kwargs: shapes.append(tuple(kwargs["pixel_values"].shape)), with_kwargs=True
    )
    detector([plain_image(96, 96, 0), plain_image(96, 128, 1), plain_image(96, 96, 2)])
    hook.remove()
    assert sorted(shapes) == [(1, 3, 96, 128), (2, 3, 96, 96)]


def test_thresholds_by_class(detector: Detector) -> None:
    image = plain_image(90, 150, 0)
    everything = detector(image, threshold=0.0)
    middle = float(np.median(everything["scores"]))
    assert len(detector(image, threshold=middle)["names"]) == 6
    for threshold in ({"mug": 0.0}, {"mug": 1.0, "cone": 0.0}, {"mug": 0.0, "cone": middle}, {}):
        found = detector(image, threshold=threshold)
        least = {"mug": 0.5, "cone": 0.5, **threshold}
        kept = [score > least[name] for name, score in zip(everything["names"], everything["scores"], strict=True)]
        np.testing.assert_array_equal(found["scores"], everything["scores"][kept])
    assert set(everything["names"]) == {"cone"}


def test_a_threshold_is_that_of_the_detections_own_class() -> None:
    scores = np.array([0.3, 0.9, 0.6, 0.7], np.float32)
    found = ImageDetections(scores, np.array([0, 1, 0, 1]), np.zeros((4, 4), np.float32))
    kept = found.above(np.array([0.5, 0.8]))
    assert kept.scores.tolist() == pytest.approx([0.9, 0.6]) and kept.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (1.5, "threshold: expected scores from 0 to 1, found 1.5"),
        ({"cone": -1}, "found -1"),
        ({"kone": 0.5}, "threshold: the model has no class 'kone'; it has mug, cone"),
    ],
)
def test_a_threshold_that_is_none(detector: Detector, threshold: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        detector(plain_image(90, 150, 0), threshold=threshold)


def test_suppression_is_within_a_class() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [50, 50, 60, 60]], dtype=np.float32)
    found = ImageDetections(np.array([0.6, 0.9, 0.8, 0.7], np.float32), np.array([0, 0, 1, 0]), boxes)
    kept = found.above(0).without_overlaps(0.5)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.8, 0.7]) and kept.labels.tolist() == [0, 1, 0]
    assert len(found.above(0).without_overlaps(0.95)) == 4


def test_suppression_on_request(detector: Detector) -> None:
    image = plain_image(90, 150, 0)
    found = [detector(image, threshold=0.0, nms=iou) for iou in (0.05, 1.0)]
    assert len(found[0]["names"]) < len(found[1]["names"]) == 12


def test_supervision_gets_the_same(detector: Detector) -> None:
    found = detector(plain_image(90, 150, 0), threshold=0.0)
    converted = detector.to_supervision(found)
    np.testing.assert_array_equal(converted.xyxy, found["boxes"])
    np.testing.assert_array_equal(converted.confidence, found["scores"])
    assert list(converted["class_name"]) == found["names"]
    assert sorted(set(converted.class_id)) == sorted({CLASSES.index(name) for name in found["names"]})
    assert len(detector.to_supervision(detector(plain_image(90, 150, 0), threshold=1.0))) == 0
    assert isinstance(converted, sv.Detections)
    assert converted.mask is None and "segmentations" not in found


def test_masks_come_with_the_boxes_of_a_model_that_has_them() -> None:
    detector = Detector(tiny_detr_with_masks(), tiny_processor())
    image = plain_image(90, 150, 0)
    found = detector(image, threshold=0.1)
    (expected,) = detect(detector.model, detector.processor, [image])
    masks = expected.above(0.1).masks
    assert masks is not None and len(masks) > 1 and found["segmentations"] == masks.as_dicts()
    converted = detector.to_supervision(found)
    np.testing.assert_array_equal(converted.mask, masks.decode())
    assert converted.mask.shape == (len(masks), 90, 150)
    assert detector.to_supervision(detector(image, threshold=1.0)).mask is None


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("no/such.jpg", "no/such.jpg: expected an image, found no such file"),
        (np.zeros((4, 4, 3)), r"an array: expected \[h, w, 3\] of uint8, found \[4, 4, 3\] of float64"),
        (np.zeros((3, 4, 5), np.uint8), r"found \[3, 4, 5\] of uint8. Colours come last"),
        (np.zeros((0, 4, 3), np.uint8), r"found \[0, 4, 3\] of uint8"),
        (torch.zeros(3, 0, 4), r"found \[3, 0, 4\]"),
        (torch.zeros(4, 4, 3), r"a tensor: expected the shape \[3, h, w\] or \[1, h, w\], found \[4, 4, 3\]"),
        (torch.full((3, 4, 4), -2.0), "expected values from 0 to 1, found -2 to -2. Give the image as it is before"),
        (7, "expected a path, an address, .* found int"),
        ([7], "found int"),
        ("http://127.0.0.1:9/a.jpg", "http://127.0.0.1:9/a.jpg: cannot be downloaded"),
    ],
)
def test_what_is_no_image_is_told(detector: Detector, image: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        detector(image)


def test_an_address_that_is_no_image(
    detector: Detector, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.html").write_text("<html></html>")
    with pytest.raises(DataError, match="page.html: expected an image, found a web page"):
        detector(f"{served}/page.html")
    monkeypatch.setattr(image_input, "LARGEST_DOWNLOAD", 5)
    with pytest.raises(DataError, match="page.html: expected an image of at most 5 bytes"):
        detector(f"{served}/page.html")


def test_a_folder_without_images(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expected images in this folder"):
        detector(tmp_path)


def test_a_truncated_image_in_memory(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    plain_image(90, 150, 0).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    with Image.open(path) as image, pytest.raises(DataError, match="cut.jpg"):
        detector(image)


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(CheckpointError, match="found no such folder"):
        Detector.from_pretrained("./nowhere")


def test_on_drawn_photos_it_gives_the_boxes_of_the_pipeline() -> None:
    detector = Detector.from_pretrained(TINY, device="cpu")
    stock = pipeline(
        "object-detection", str(Path(hf_detr_ft.__file__).with_name("tiny_detr")), dtype="float32", device="cpu"
    )
    images = [Image.fromarray(render(index).image) for index in range(4)]
    for threshold in (0.1, 0.5):
        found = detector(images, threshold=threshold)
        assert sum(len(one["names"]) for one in found) > 5
        for image, one in zip(images, found, strict=True):
            assert_those_of_the_pipeline(one, stock(image, threshold=threshold))


def test_on_balloon_photos_it_gives_the_boxes_of_the_pipeline(balloon: Path) -> None:
    detector = Detector.from_pretrained(TINY, device="cpu")
    stock = pipeline(
        "object-detection", str(Path(hf_detr_ft.__file__).with_name("tiny_detr")), dtype="float32", device="cpu"
    )
    found = detector(balloon / "val2017", threshold=0.05)
    assert len(found) == 13 and sum(len(one["names"]) for one in found) > 13
    for one in found:
        assert_those_of_the_pipeline(one, stock(one["source"], threshold=0.05))


def test_the_code_in_the_readme_runs(
    spread_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "import Detector" in block)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "balloon").symlink_to(spread_run)
    plain_image(90, 150, 0).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace('"balloon": 0.7', '"cone": 0.0'), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "cone" in printed and "Detections(" in printed


def test_in_bf16_boxes_are_nearly_the_same(spread_run: Path) -> None:
    image = plain_image(90, 150, 0)
    exact, rounded = (
        Detector.from_pretrained(spread_run, precision=precision)(image, threshold=0.0)
        for precision in ("fp32", "bf16")
    )
    assert exact["scores"].tolist() != rounded["scores"].tolist()
    np.testing.assert_allclose(np.sort(exact["scores"]), np.sort(rounded["scores"]), atol=0.1)
