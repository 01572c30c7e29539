"""The balloon archive: its download from a server on loopback that can do much wrong, and what is taken out of it."""

import io
import json
import socket
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from hf_detr_ft.data.formats import balloon_archive
from hf_detr_ft.data.formats.balloon_archive import is_complete, write_balloon_folder
from hf_detr_ft.errors import DataError

IMAGES = {"train": ("a.jpg", "b.jpg"), "val": ("c.jpg",)}


def jpeg(seed: int) -> bytes:
    """Some kilobytes that zip cannot make smaller."""
    pixels = bytes((i * i * (seed + 3) // 7 + i * seed) % 256 for i in range(48 * 64 * 3))
    file = io.BytesIO()
    Image.frombytes("RGB", (64, 48), pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def release() -> dict[str, bytes]:
    """The members of the release's archive, drawn small."""
    members = {}
    for split, names in IMAGES.items():
        via = {}
        for index, name in enumerate(names):
            content = jpeg(10 * len(split) + index)
            members[f"balloon/{split}/{name}"] = content
            shape = {"name": "polygon", "all_points_x": [5, 25, 25], "all_points_y": [4, 4, 14 + index]}
            regions = {"0": {"shape_attributes": shape, "region_attributes": {}}}
            via[f"{name}{len(content)}"] = {"filename": name, "size": len(content), "regions": regions}
        members[f"balloon/{split}/via_region_data.json"] = json.dumps(via).encode()
    return members


def zipped(members: dict[str, bytes], *extra: zipfile.ZipInfo) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for member in extra:
            archive.writestr(member, b"../../elsewhere")
    return file.getvalue()


class Server:
    """The archive that is served, and the ways in which it misbehaves."""

    def __init__(self) -> None:
        self.content = zipped(release())
        self.status = 200
        self.cut_after: int | None = None
        self.asked = 0

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked += 1
        if self.status != 200:
            return handler.send_error(self.status)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(self.content)))
        handler.end_headers()
        handler.wfile.write(self.content[: self.cut_after])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(balloon_archive, "URL", f"http://127.0.0.1:{http.server_port}/balloon_dataset.zip")
        yield served
        http.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder to make; nothing else may be left beside it."""
    return tmp_path / "sets" / "balloon"


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        write_balloon_folder(root)
    assert caught.value.exit_status == 1
    assert not root.exists()
    assert not root.parent.is_dir() or list(root.parent.iterdir()) == [], "something was left behind"
    return str(caught.value)


def refused_archive(root: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> str:
    with monkeypatch.context() as patch:
        patch.setattr(balloon_archive, "download", lambda url: content)
        return refused(root)


def assert_whole(root: Path) -> None:
    members = release()
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    images = {name: content for name, content in found.items() if name.endswith(".jpg")}
    assert images == {f"{s}2017/{n}": members[f"balloon/{s}/{n}"] for s, names in IMAGES.items() for n in names}
    assert found.keys() - images.keys() == {"annotations/custom_train.json", "annotations/custom_val.json"}
    train = json.loads(found["annotations/custom_train.json"])
    assert train["categories"] == [{"id": 1, "name": "balloon"}]
    assert [image["file_name"] for image in train["images"]] == ["a.jpg", "b.jpg"]
    assert [(a["bbox"], a["area"]) for a in train["annotations"]] == [([5, 4, 20, 10], 100.0), ([5, 4, 20, 11], 110.0)]
    assert [path.name for path in root.parent.iterdir()] == ["balloon"], "something was left beside the data set"


@pytest.mark.parametrize("empty", [False, True], ids=["new", "empty"])
def test_downloads_and_lays_out(server: Server, root: Path, empty: bool) -> None:
    if empty:
        root.mkdir(parents=True)
    assert write_balloon_folder(root) == [
        f"{root} train: 2 images, 2 objects (balloon 2); 2 small, 0 medium, 0 large",
        f"{root} val: 1 images, 1 objects (balloon 1); 1 small, 0 medium, 0 large",
    ]
    assert_whole(root)
    assert is_complete(root)


def test_what_is_there_is_complete_or_said(server: Server, root: Path) -> None:
    assert not is_complete(root)
    write_balloon_folder(root)
    (root / "train2017" / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"incomplete, without train2017/b.jpg; remove the folder"):
        is_complete(root)
    (root / "annotations" / "custom_val.json").write_text("[]")
    with pytest.raises(DataError, match=r"custom_val.json: expected COCO with 'images'"):
        is_complete(root)
    other = root.with_name("mine")
    other.mkdir()
    assert not is_complete(other)
    (other / "thesis.txt").write_text("mine")
    for path in (other, other / "thesis.txt"):
        with pytest.raises(DataError, match="is not this data set; give a new or empty folder"):
            is_complete(path)


def test_parent_that_is_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sets").write_text("mine")
    assert "cannot be read or written: Not a directory" in refused(tmp_path / "sets" / "balloon")


# The download


def test_a_lost_connection(server: Server, root: Path) -> None:
    server.cut_after = len(server.content) // 2
    assert f"connection lost after {server.cut_after} of {len(server.content)} bytes; run again" in refused(root)
    server.cut_after = None
    write_balloon_folder(root)
    assert_whole(root)


def test_no_server(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: nobody else can answer there
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/balloon_dataset.zip"
        monkeypatch.setattr(balloon_archive, "URL", url)
        message = refused(root)
    assert message.startswith(f"cannot reach {url} (") and "refused" in message
    assert "--data.root" in message and "\n" not in message
    assert not root.parent.exists()


def test_no_network(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unresolved(*arguments: object, **options: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    message = refused(root)
    assert "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/balloon_dataset.zip" in message
    assert "name resolution" in message and "--data.root" in message


def test_silent_server(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(balloon_archive, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(balloon_archive, "URL", f"http://127.0.0.1:{silent.getsockname()[1]}/b.zip")
        assert "no answer within 0.05 seconds" in refused(root)


@pytest.mark.parametrize(("status", "reason"), [(404, "404 Not Found"), (503, "503 Service Unavailable")])
def test_http_errors(server: Server, root: Path, status: int, reason: str) -> None:
    server.status = status
    message = refused(root)
    assert f"the server answers {reason}" in message and "--data.root" in message


def test_more_than_the_archive_can_be(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balloon_archive, "MAX_BYTES", 1000)
    assert "more than 1000 bytes; this is not the archive" in refused(root)


# The archive


def flipped() -> bytes:
    """A bit of an image's compressed data is wrong, everything else is right."""
    content = bytearray(zipped(release()))
    content[len("balloon/train/a.jpg") + 30 + 500] ^= 4
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (zipped(release())[:-40], "found a zip archive that is damaged or cut off"),
        (zipped(release())[:3000], "found a zip archive that is damaged or cut off"),
        (flipped(), "found a zip archive that is damaged or cut off"),
        (b"<!DOCTYPE html><title>Log in", "found a file that begins b'<!DOCTYPE html><'"),
        (b"", "found a file that begins b''"),
    ],
    ids=["no end", "half", "flipped bit", "web page", "nothing"],
)
def test_what_is_no_whole_zip(root: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str) -> None:
    assert f"expected a zip archive, {expected}" in refused_archive(root, monkeypatch, content)


def test_no_damage_ends_in_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of the archive's directory, and some before it, is turned over, one at a time."""
    good = zipped(release())
    outcomes = set()
    for place in [*range(0, 600, 7), *range(good.rindex(b"PK\x05\x06") - 300, len(good))]:
        content = good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :]
        monkeypatch.setattr(balloon_archive, "download", lambda url, content=content: content)
        try:
            write_balloon_folder(tmp_path / str(place))
            outcomes.add("unpacked")
        except DataError:
            outcomes.add("refused")
    assert outcomes == {"unpacked", "refused"}


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_nothing_but_the_named_images_is_extracted(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = ["../evil.jpg", "balloon/../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"]
    content = zipped(release(), *map(zipfile.ZipInfo, outside), link("balloon/train/d.jpg"))
    monkeypatch.setattr(balloon_archive, "download", lambda url: content)
    write_balloon_folder(root)
    assert_whole(root)
    assert [path.name for path in tmp_path.iterdir()] == ["sets"]


def test_link_in_the_place_of_an_image(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = release()
    del members["balloon/val/c.jpg"]
    message = refused_archive(root, monkeypatch, zipped(members, link("balloon/val/c.jpg")))
    assert "'c.jpg': expected " in message and "bytes, found 15" in message


def test_encrypted_member(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(zipped(release()))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert "'balloon/train/a.jpg' is encrypted" in refused_archive(root, monkeypatch, bytes(content))


def test_archive_that_would_fill_the_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = zipped({**release(), "balloon/zeros": bytes(10_000_000)})
    monkeypatch.setattr(balloon_archive, "MAX_BYTES", 5_000_000)
    assert "its members hold more than 5000000 bytes" in refused_archive(root, monkeypatch, content)


def test_entries_that_do_not_fit_are_told_all_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = release()
    size = len(members["balloon/train/b.jpg"])
    via = {
        "up": {"filename": "../../../evil.jpg", "size": 1, "regions": {}},
        "sub": {"filename": "sub/evil.jpg", "size": 1, "regions": {}},
        "windows": {"filename": "..\\evil.jpg", "size": 1, "regions": {}},
        "none": 5,
        "uncounted": {"filename": "a.jpg", "regions": {}},
        "gone": {"filename": "gone.jpg", "size": 1, "regions": {}},
        "other": {"filename": "b.jpg", "size": size - 1, "regions": {}},
    }
    members["balloon/train/via_region_data.json"] = json.dumps(via).encode()
    first, *lines = refused_archive(root, monkeypatch, zipped(members)).split("\n  ")
    assert first.endswith("balloon/train/via_region_data.json: the images are not those of the data set:")
    assert lines == [
        "expected an entry with an image's file name, found '../../../evil.jpg'",
        "expected an entry with an image's file name, found 'sub/evil.jpg'",
        "expected an entry with an image's file name, found '..\\\\evil.jpg'",
        "expected an entry with an image's file name, found None",
        "'a.jpg': expected the image's byte count as 'size', found None",
        "'gone.jpg': not in the archive",
        f"'b.jpg': expected {size - 1} bytes, found {size}",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "not in the archive, which holds: balloon/train/a.jpg"),
        (b"{", "not a JSON file in UTF-8"),
        (b"[]", "not a VIA 1 or 2 annotation file"),
    ],
)
def test_archive_without_annotations(
    root: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, expected: str
) -> None:
    members = release()
    name = "balloon/val/via_region_data.json"
    del members[name]
    members |= {} if content is None else {name: content}
    message = refused_archive(root, monkeypatch, zipped(members))
    assert message.startswith(f"{balloon_archive.URL}: {name}: ")
    assert expected in message


def test_an_interruption_leaves_nothing(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(balloon_archive, "convert_via", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_balloon_folder(root)
    assert list(root.parent.iterdir()) == []


def test_the_real_archive(server: Server, root: Path, balloon: Path) -> None:
    """The real images and annotations, through an archive in the release's layout."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for split in ("train", "val"):
            archive.write(balloon / "via" / f"via_region_data_{split}.json", f"balloon/{split}/via_region_data.json")
            for path in sorted((balloon / f"{split}2017").iterdir()):
                archive.write(path, f"balloon/{split}/{path.name}")
    server.content = file.getvalue()
    write_balloon_folder(root)
    for split, objects in (("train", 255), ("val", 50)):
        images = {path.name: path.read_bytes() for path in (balloon / f"{split}2017").iterdir()}
        assert {path.name: path.read_bytes() for path in (root / f"{split}2017").iterdir()} == images
        ours, reference = (
            json.loads((base / "annotations" / f"custom_{split}.json").read_text()) for base in (root, balloon)
        )
        assert len(ours["annotations"]) == objects
        assert [a["bbox"] for a in ours["annotations"]] == [a["bbox"] for a in reference["annotations"]]
        assert [i["file_name"] for i in ours["images"]] == [i["file_name"] for i in reference["images"]]
    assert is_complete(balloon), "the folder of VIA2COCO's files counts as complete"
