"""The demo's server and the functions behind its page: addresses, refusals, boxes, attention, two users at once."""

import http.client
import json
import socket
import threading
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from hf_detr_ft import Detector
from hf_detr_ft.cli import main
from hf_detr_ft.data.masks import Masks
from hf_detr_ft.demo import photo_answers
from hf_detr_ft.demo.page_server import LARGEST_PHOTO, PHOTO, PageServer, open_server
from hf_detr_ft.demo.photo_answers import LEAST_SCORE, PhotoAnswers, ShownModel, find_boxes, start_threshold
from hf_detr_ft.errors import RecipeError
from tests.fixtures import CLASSES, plain_image, tiny_detr_with_masks, tiny_processor

Answer = tuple[int, bytes, http.client.HTTPMessage]


@pytest.fixture(scope="module")
def answers(spread_run: Path) -> PhotoAnswers:
    return PhotoAnswers.load([str(spread_run)])


@pytest.fixture(scope="module")
def server(answers: PhotoAnswers) -> Iterator[PageServer]:
    with open_server("127.0.0.1", 0) as server:
        server.answers = answers
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def encode(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def send(server: PageServer, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {"Content-Type": PHOTO, **given} if method == "POST" else given)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, answer.headers


def words(answer: Answer) -> str:
    return json.loads(answer[1])["error"]


# The page


def test_the_page_asks_nobody_else(server: PageServer) -> None:
    for path in ("/", "/demo.css", "/demo.js"):
        status, content, headers = send(server, "GET", path)
        assert status == 200
        assert b"http://" not in content and b"https://" not in content
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
    assert send(server, "GET", "/../page_server.py")[0] == 404


def test_the_models_and_their_classes_are_told(server: PageServer, spread_run: Path) -> None:
    said = json.loads(send(server, "GET", "/models")[1])
    assert said["models"] == [{"name": spread_run.name, "threshold": 0.5}]
    assert list(said["classes"]) == list(CLASSES)
    assert len({entry["colour"] for entry in said["classes"].values()}) == len(CLASSES)


def test_the_threshold_starts_where_f1_is_best(tmp_path: Path) -> None:
    evaluation = {"metrics": {}, "best_f1": {"threshold": 0.62}}
    for best, expected in ((evaluation, 0.62), ({"metrics": {}, "best_f1": {"threshold": -1}}, 0.5)):
        (tmp_path / "metrics.json").write_text(json.dumps({"best": best}))
        assert start_threshold(str(tmp_path)) == expected
    assert start_threshold("anna/detr") == 0.5


# Photos


def test_the_boxes_are_those_of_the_detector(server: PageServer, answers: PhotoAnswers) -> None:
    image = plain_image(90, 120, seed=1)
    status, content, _ = send(server, "POST", "/detect", encode(image))
    said = json.loads(content)
    expected = answers.models[0].detector(image, threshold=LEAST_SCORE)
    boxes = said["found"][0]["boxes"]
    assert status == 200 and (said["width"], said["height"]) == (120, 90) and len(boxes) > 3
    assert [box["box"] for box in boxes] == expected["boxes"].tolist()
    assert [box["name"] for box in boxes] == expected["names"]
    assert [box["score"] for box in boxes] == expected["scores"].tolist()
    assert said["photo"].startswith("data:image/jpeg;base64,")


def test_masks_come_small_with_the_boxes_of_a_model_that_has_them(
    answers: PhotoAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_answers, "MASK_SIDE", 60)
    detector = Detector(tiny_detr_with_masks(), tiny_processor())
    photo = plain_image(90, 120, seed=1)
    boxes = find_boxes(ShownModel("masks", detector, 0.5), encode(photo), "photo")["boxes"]
    expected = Masks.of(detector(photo, threshold=LEAST_SCORE)["segmentations"]).decode()
    assert len(boxes) == len(expected) > 3
    for box, mask in zip(boxes, expected, strict=True):
        shown = Image.open(BytesIO(b64decode(box["mask"].removeprefix("data:image/png;base64,"))))
        assert shown.mode == "LA" and shown.size == (60, 45)
        np.testing.assert_array_equal(np.asarray(shown.getchannel("A")) == 255, mask[::2, ::2])
    assert "mask" not in answers.find(encode(photo), "photo")["found"][0]["boxes"][0]


def test_a_photo_that_a_camera_turned_is_shown_upright(answers: PhotoAnswers) -> None:
    stream = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    plain_image(90, 120, seed=1).save(stream, format="JPEG", exif=exif)
    said = answers.find(stream.getvalue(), "photo")
    assert (said["width"], said["height"]) == (90, 120)


def test_two_models_are_asked_about_one_photo(answers: PhotoAnswers) -> None:
    both = PhotoAnswers([*answers.models, *answers.models])
    said = both.find(encode(plain_image(90, 120, seed=1)), "photo")
    assert said["found"][0]["boxes"] == said["found"][1]["boxes"]


def test_two_users_at_once_get_their_own_boxes_and_maps(server: PageServer, answers: PhotoAnswers) -> None:
    photos = [encode(plain_image(90 + 30 * (n % 2), 120, seed=n)) for n in range(4)]
    alone = [answers.find(photo, "photo")["found"][0]["boxes"] for photo in photos]
    paths = [f"/attention?{address_of(boxes[0])}" for boxes in alone]
    maps = [send(server, "POST", path, photo)[1] for path, photo in zip(paths, photos, strict=True)]
    with ThreadPoolExecutor(8) as users:
        found = list(users.map(lambda photo: json.loads(send(server, "POST", "/detect", photo)[1]), photos * 2))
        drawn = list(users.map(lambda n: send(server, "POST", paths[n], photos[n])[1], [*range(4)] * 2))
    assert [one["found"][0]["boxes"] for one in found] == alone * 2
    assert drawn == maps * 2 and len(set(maps)) == 4


def address_of(found: dict, **changes: object) -> str:
    given = {"model": 0, "box": ",".join(map(str, found["box"])), "label": found["label"], "score": found["score"]}
    return urlencode({**given, **changes})


def test_nothing_is_kept(server: PageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    content = encode(plain_image(90, 120, seed=1))
    box = json.loads(send(server, "POST", "/detect?name=a.png", content)[1])["found"][0]["boxes"][0]
    assert send(server, "POST", f"/attention?{address_of(box)}", content)[2]["Content-Type"] == "image/png"
    assert list(tmp_path.iterdir()) == []


# Attention


def test_the_attention_is_of_the_clicked_box(answers: PhotoAnswers) -> None:
    image = plain_image(90, 120, seed=1)
    boxes = answers.find(encode(image), "photo")["found"][0]["boxes"]
    pictures = {answers.attend(encode(image), "photo", 0, box["box"], box["label"], box["score"]) for box in boxes[:3]}
    assert len(pictures) == 3
    assert all(Image.open(BytesIO(picture)).width > 500 for picture in pictures)


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"model": 7}, 422, "expected one of 1 models and one of its classes, found 7, 0"),
        ({"label": 99}, 422, "expected one of 1 models and one of its classes, found 0, 99"),
        ({"model": -1}, 422, "expected one of 1 models"),
        ({"box": "1,2,3"}, 422, "expected four corners and a score, found [1.0, 2.0, 3.0, 0.5]"),
        ({"box": "1,2,3,nan"}, 422, "expected four corners"),
        ({"box": "left"}, 400, "expected model, box, label and score as numbers."),
        ({"score": ""}, 400, "expected model, box, label and score as numbers."),
    ],
)
def test_a_box_that_is_none_is_refused(server: PageServer, changes: dict, status: int, said: str) -> None:
    path = address_of({"box": [1, 2, 30, 40], "label": 0, "score": 0.5}, **changes)
    answer = send(server, "POST", f"/attention?{path}", encode(plain_image(40, 50, seed=1)))
    assert answer[0] == status and words(answer).startswith(said)


# What is refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "my photo.jpg: expected an image, found an empty file."),
        (b"not an image", "my photo.jpg: expected an image, "),
        (encode(plain_image(90, 120, seed=1))[:200], "my photo.jpg: expected a whole image, "),
        (encode(Image.new("RGB", (3000, 1))), "an image of 3000 x 1 pixels cannot be resized"),
    ],
)
def test_a_file_that_is_no_photo_gets_words(server: PageServer, content: bytes, said: str) -> None:
    answer = send(server, "POST", f"/detect?{urlencode({'name': 'my photo.jpg'})}", content)
    assert answer[0] == 422 and said in words(answer)


def test_a_file_that_is_too_large_is_not_read(server: PageServer) -> None:
    answer = send(server, "POST", "/detect", b"", Content_Length=str(LARGEST_PHOTO + 1_000_000))
    assert answer[0] == 413 and words(answer) == "expected a file of at most 50 MB, found 51 MB. Scale the photo down."
    assert answer[2]["Connection"] == "close"


def test_a_page_of_another_site_gets_nothing(server: PageServer) -> None:
    photo = encode(plain_image(40, 50, seed=1))
    assert send(server, "GET", "/models", Host=f"evil.example:{server.port}")[0] == 403
    assert send(server, "POST", "/detect", photo, Host="evil.example")[0] == 403
    assert send(server, "POST", "/detect", photo, Content_Type="text/plain")[0] == 415
    assert send(server, "OPTIONS", "/detect")[0] == 501
    assert send(server, "GET", "/models", Host="[")[0] == 403
    assert send(server, "GET", "/models", Host=f"localhost:{server.port}")[0] == 200


def test_what_breaks_is_logged_and_the_page_goes_on(
    server: PageServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("hf_detr_ft.demo.photo_answers.find_boxes", lambda *_: 1 / 0)
        answer = send(server, "POST", "/detect", encode(plain_image(40, 50, seed=1)))
    assert answer[0] == 500 and words(answer) == "ZeroDivisionError; the terminal has the details."
    assert "division by zero" in caplog.text
    assert send(server, "POST", "/detect", encode(plain_image(40, 50, seed=1)))[0] == 200


def test_a_browser_that_goes_away_is_not_spoken_of(server: PageServer, capsys: pytest.CaptureFixture[str]) -> None:
    for error in (ConnectionResetError(), BrokenPipeError(), ValueError("ours")):
        try:
            raise error
        except (OSError, ValueError):
            server.handle_error(None, ("127.0.0.1", 1))
        assert bool(capsys.readouterr().err) == isinstance(error, ValueError)


def test_one_connection_carries_several_requests(server: PageServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    sockets = set()
    for _ in range(2):
        connection.request("POST", "/detect", encode(plain_image(40, 50, seed=1)), {"Content-Type": PHOTO})
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read() and connection.sock is not None
        sockets.add(connection.sock.getsockname())
    connection.close()
    assert len(sockets) == 1


# Addresses


def test_a_taken_port_is_refused_in_words(spread_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", str(spread_run), "--port", str(port)]) == 2
    assert f"--port: {port} of 127.0.0.1 is taken by another program. Name another one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("127.0.0.1", 65536, "--port: expected 0 to 65535, found 65536"),
        ("192.0.2.1", 0, "--host: '192.0.2.1' is no address of this machine"),
        ("no such.invalid", 0, "--host: 'no such.invalid' is no address of this machine"),
    ],
)
def test_an_address_that_cannot_be_had_is_refused(host: str, port: int, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        open_server(host, port)


def test_it_is_known_who_can_reach_it() -> None:
    with open_server("127.0.0.1", 0) as alone, open_server("0.0.0.0", 0) as open_to_all:
        assert alone.is_loopback and not open_to_all.is_loopback
        assert alone.address == f"http://127.0.0.1:{alone.port}"


def test_a_model_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path / "nothing")]) == 1
    assert "expected a run folder or a Hub id, found no such folder" in capsys.readouterr().err
