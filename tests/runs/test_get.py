"""`get balloon DIR` against a small server on loopback that can do everything wrong."""

import io
import json
import re
import socket
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.runs import get as get_module
from hf_detr_ft.runs.get import get

PHOTOS = {"train": ("a.jpg", "b.jpg"), "val": ("c.jpg",)}


def photo(seed: int) -> bytes:
    """A JPEG of some kilobytes that zip cannot make smaller."""
    pixels = bytes((i * i * (seed + 3) // 7 + i * seed) % 256 for i in range(48 * 64 * 3))
    file = io.BytesIO()
    Image.frombytes("RGB", (64, 48), pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def release(shift: int = 0) -> dict[str, bytes]:
    """The members of the release's archive, drawn small; `shift` moves the objects."""
    members = {}
    for split, names in PHOTOS.items():
        via = {}
        for index, name in enumerate(names):
            content = photo(10 * len(split) + index)
            members[f"balloon/{split}/{name}"] = content
            x, y = [5 + shift, 25 + shift, 25 + shift], [4, 4, 14 + index]
            shape = {"name": "polygon", "all_points_x": x, "all_points_y": y}
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


class Release:
    """What the server serves, how it misbehaves, and the `Range` of each request it got."""

    def __init__(self) -> None:
        self.content = zipped(release())
        self.validators: dict[str, str] = {"ETag": '"one"'}
        self.ranges = True
        self.if_range = True
        self.cut_after: int | None = None
        self.status: int | None = None
        self.length = True
        self.asked: list[str | None] = []
        self.sent: list[int] = []
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        if self.status:
            return handler.send_error(self.status)
        start = 0
        unchanged = not self.if_range or handler.headers.get("If-Range") in self.validators.values()
        if wanted and self.ranges and unchanged:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1))  # type: ignore[union-attr]
            if start >= len(self.content):
                return handler.send_error(416)
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        for name, value in self.validators.items():
            handler.send_header(name, value)
        if self.length:
            handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        body = self.content[start : self.cut_after]
        self.sent.append(len(body))
        handler.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Release]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Release()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served.url = f"http://127.0.0.1:{http.server_port}/v2.1/balloon_dataset.zip"
        yield served
        http.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder to make; nothing else may be left beside it."""
    return tmp_path / "sets" / "balloon"


def refused(server: Release, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        get("balloon", root, server.url)
    return str(caught.value)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_whole(root: Path, shift: int = 0) -> None:
    members = release(shift)
    found = tree(root)
    photos = {name: content for name, content in found.items() if name.endswith(".jpg")}
    assert photos == {f"{s}2017/{n}": members[f"balloon/{s}/{n}"] for s, names in PHOTOS.items() for n in names}
    assert found.keys() - photos.keys() == {"annotations/custom_train.json", "annotations/custom_val.json"}
    train = json.loads(found["annotations/custom_train.json"])
    assert train["categories"] == [{"id": 1, "name": "balloon"}]
    assert [image["file_name"] for image in train["images"]] == ["a.jpg", "b.jpg"]
    assert [(a["bbox"], a["area"]) for a in train["annotations"]] == [
        ([5 + shift, 4, 20, 10], 100.0),
        ([5 + shift, 4, 20, 11], 110.0),
    ]
    assert [path.name for path in root.parent.iterdir()] == ["balloon"], "something was left beside the data set"


def test_downloads_and_lays_out(server: Release, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert get("balloon", root, server.url) == 0
    assert_whole(root)
    assert server.asked == [None]
    out = capsys.readouterr().out
    assert f"{root} train: 2 images, 2 objects (balloon 2); 2 small, 0 medium, 0 large" in out
    assert f"--data.root {root}" in out


def test_complete_data_set_is_left_alone(
    server: Release, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    get("balloon", root, server.url)
    before = tree(root)
    monkeypatch.chdir(root.parent)
    assert get("balloon", Path("balloon/../balloon"), server.url) == 0
    assert "complete already, nothing was downloaded" in capsys.readouterr().out
    assert tree(root) == before
    assert len(server.asked) == 1


def test_empty_folder_is_filled(server: Release, root: Path) -> None:
    root.mkdir(parents=True)
    get("balloon", root, server.url)
    assert_whole(root)


def test_folder_with_other_things_is_refused(server: Release, root: Path) -> None:
    root.mkdir(parents=True)
    (root / "thesis.txt").write_text("mine")
    assert "is not this data set; give a new or empty folder" in refused(server, root)
    assert tree(root) == {"thesis.txt": b"mine"}
    assert server.asked == []


def test_file_in_the_way_is_refused(server: Release, root: Path) -> None:
    root.parent.mkdir()
    root.write_text("mine")
    assert "is not this data set" in refused(server, root)
    assert root.read_text() == "mine"


def test_parent_that_is_a_file_is_refused(server: Release, tmp_path: Path) -> None:
    (tmp_path / "sets").write_text("mine")
    assert "cannot be read or written: Not a directory" in refused(server, tmp_path / "sets" / "balloon")


def test_incomplete_data_set_is_refused(server: Release, root: Path) -> None:
    get("balloon", root, server.url)
    (root / "train2017" / "b.jpg").unlink()
    assert "incomplete, without train2017/b.jpg; remove the folder" in refused(server, root)
    (root / "annotations" / "custom_val.json").write_text("[]")
    assert "custom_val.json: expected COCO with 'images'" in refused(server, root)


def cut(server: Release, root: Path) -> int:
    """Runs until the connection breaks halfway; how many bytes came."""
    server.cut_after = len(server.content) // 2
    message = refused(server, root)
    assert f"connection lost after {server.cut_after} of {len(server.content)} bytes; run again" in message
    assert not root.exists()
    came, server.cut_after = server.cut_after, None
    return came


def test_goes_on_after_a_lost_connection(server: Release, root: Path) -> None:
    came = cut(server, root)
    get("balloon", root, server.url)
    assert server.asked == [None, f"bytes={came}-"]
    assert server.sent == [came, len(server.content) - came]
    assert_whole(root)


def test_goes_on_twice(server: Release, root: Path) -> None:
    came = cut(server, root)
    server.cut_after = came + 100
    assert f"after {came + 100} of" in refused(server, root)
    server.cut_after = None
    get("balloon", root, server.url)
    assert server.asked == [None, f"bytes={came}-", f"bytes={came + 100}-"]
    assert_whole(root)


def test_starts_over_where_the_server_cannot_go_on(server: Release, root: Path) -> None:
    came = cut(server, root)
    server.ranges = False
    get("balloon", root, server.url)
    assert server.asked == [None, f"bytes={came}-"]
    assert_whole(root)


@pytest.mark.parametrize("if_range", [True, False], ids=["If-Range honoured", "If-Range ignored"])
def test_starts_over_where_the_file_has_changed(server: Release, root: Path, if_range: bool) -> None:
    came = cut(server, root)
    server.content, server.validators, server.if_range = zipped(release(shift=3)), {"ETag": '"two"'}, if_range
    get("balloon", root, server.url)
    assert server.asked == [None, f"bytes={came}-"] + ([] if if_range else [None])
    assert_whole(root, shift=3)


def test_starts_over_where_the_file_has_shrunk(server: Release, root: Path) -> None:
    came = cut(server, root)
    work = root.with_name(".balloon.download")
    (work / "archive.part").write_bytes(server.content + b"more")
    get("balloon", root, server.url)
    assert server.asked == [None, f"bytes={len(server.content) + 4}-", None]
    assert came < len(server.content)
    assert_whole(root)


@pytest.mark.parametrize(
    ("validators", "goes_on"),
    [
        ({}, False),
        ({"ETag": 'W/"weak"'}, False),
        ({"ETag": 'W/"weak"', "Last-Modified": "Mon, 06 Nov 2017 10:00:00 GMT"}, True),
    ],
)
def test_goes_on_only_if_a_change_would_be_seen(
    server: Release, root: Path, validators: dict[str, str], goes_on: bool
) -> None:
    server.validators = validators
    came = cut(server, root)
    get("balloon", root, server.url)
    assert server.asked == [None, f"bytes={came}-" if goes_on else None]
    assert_whole(root)


def test_another_url_starts_over(server: Release, root: Path) -> None:
    cut(server, root)
    get("balloon", root, server.url + "?mirror=2")
    assert server.asked == [None, None]
    assert_whole(root)


def test_unreadable_state_starts_over(server: Release, root: Path) -> None:
    cut(server, root)
    (root.with_name(".balloon.download") / "archive.json").write_text('{"url": ')
    get("balloon", root, server.url)
    assert server.asked == [None, None]
    assert_whole(root)


@pytest.mark.parametrize("step", ["convert_via", "write_coco"])
def test_interrupted_while_unpacking(server: Release, root: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(get_module, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            get("balloon", root, server.url)
    assert not root.exists()
    assert get("balloon", root, server.url) == 0
    assert server.asked == [None], "the archive was there already"
    assert_whole(root)


def test_without_a_server(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: nobody else can answer there
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/balloon_dataset.zip"
        with pytest.raises(DataError) as caught:
            get("balloon", root, url)
    message = str(caught.value)
    assert message.startswith(f"cannot reach {url} (")
    assert "refused" in message
    assert "--data.root" in message
    assert "\n" not in message
    assert caught.value.exit_status == 1
    assert not root.parent.exists()


def test_default_address_is_the_release_and_no_network_names_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unresolved(*arguments: object, **options: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    for proxy in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    with pytest.raises(DataError) as caught:
        get("balloon", root)
    assert "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/balloon_dataset.zip" in str(caught.value)
    assert "name resolution" in str(caught.value)
    assert "--data.root" in str(caught.value)


def test_silent_server(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(get_module, "TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DataError) as caught:
        get("balloon", root, f"http://127.0.0.1:{silent.getsockname()[1]}/balloon_dataset.zip")
    assert "no answer within 0.05 seconds" in str(caught.value)
    assert "--data.root" in str(caught.value)


@pytest.mark.parametrize(("status", "reason"), [(404, "404 Not Found"), (503, "503 Service Unavailable")])
def test_http_errors(server: Release, root: Path, status: int, reason: str) -> None:
    server.status = status
    message = refused(server, root)
    assert f"{server.url}: the server answers {reason}" in message
    assert "--data.root" in message
    assert not root.exists()


def flipped() -> bytes:
    """A bit of a photo's compressed data is wrong, everything else is right."""
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
def test_what_is_no_whole_zip(server: Release, root: Path, content: bytes, expected: str) -> None:
    good = server.content
    server.content, server.length = content, False
    message = refused(server, root)
    assert f"{server.url}: expected a zip archive, {expected}" in message
    assert not root.exists()
    server.content = good
    get("balloon", root, server.url)
    assert_whole(root)


def test_no_damage_ends_in_a_traceback(server: Release, tmp_path: Path) -> None:
    """Every byte of the archive's directory, and some before it, is turned over, one at a time."""
    good = server.content
    archive = tmp_path / "archive.zip"
    outcomes = set()
    for place in [*range(0, 600, 7), *range(good.rindex(b"PK\x05\x06") - 300, len(good))]:
        archive.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            get_module.unpack(archive, tmp_path / "data", "balloon", "url")
            outcomes.add("unpacked")
        except DataError:
            outcomes.add("refused")
    assert outcomes == {"unpacked", "refused"}


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_members_that_leave_the_folder(server: Release, root: Path, tmp_path: Path) -> None:
    outside = ["../evil.jpg", "balloon/../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg", "C:evil.jpg"]
    server.content = zipped(release(), *map(zipfile.ZipInfo, outside), link("balloon/train/d.jpg"))
    lines = refused(server, root).split("\n  ")
    assert lines[0] == f"{server.url}: refused, nothing was extracted:"
    assert lines[1:] == [f"{name!r} leaves the folder" for name in outside] + [
        "'balloon/train/d.jpg' is a link or a device"
    ]
    assert list(tree(tmp_path)) == []


def test_link_in_the_place_of_a_photo(server: Release, root: Path, tmp_path: Path) -> None:
    members = release()
    del members["balloon/val/c.jpg"]
    server.content = zipped(members, link("balloon/val/c.jpg"))
    assert "'balloon/val/c.jpg' is a link or a device" in refused(server, root)
    assert list(tree(tmp_path)) == []


def test_encrypted_member(server: Release, root: Path) -> None:
    content = bytearray(server.content)
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    server.content = bytes(content)
    assert "'balloon/train/a.jpg' is encrypted" in refused(server, root)


def test_archive_that_would_fill_the_disk(server: Release, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = {**release(), "balloon/zeros": bytes(10_000_000)}
    server.content = zipped(bomb)
    monkeypatch.setattr(get_module, "MAX_BYTES", 5_000_000)
    assert "its members hold more than 5000000 bytes" in refused(server, root)
    monkeypatch.setattr(get_module, "MAX_BYTES", 1000)
    assert "more than 1000 bytes; this is not the archive" in refused(server, root)


def test_byte_counts_are_checked_all_at_once(server: Release, root: Path, tmp_path: Path) -> None:
    members = release()
    sizes = {name: len(members[f"balloon/train/{name}"]) for name in PHOTOS["train"]}
    members["balloon/train/a.jpg"] += b"\0"
    members["balloon/train/b.jpg"] = members["balloon/train/b.jpg"][:-2]
    server.content = zipped(members)
    assert refused(server, root).split("\n  ") == [
        f"{server.url}: balloon/train/via_region_data.json: the photos are not those of the data set:",
        f"'a.jpg': expected {sizes['a.jpg']} bytes, found {sizes['a.jpg'] + 1}",
        f"'b.jpg': expected {sizes['b.jpg']} bytes, found {sizes['b.jpg'] - 2}",
    ]
    assert list(tree(tmp_path)) == []


def test_entries_that_cannot_be_verified(server: Release, root: Path, tmp_path: Path) -> None:
    members = release()
    via = {
        "up": {"filename": "../../../evil.jpg", "size": 1, "regions": {}},
        "sub": {"filename": "sub/evil.jpg", "size": 1, "regions": {}},
        "windows": {"filename": "..\\evil.jpg", "size": 1, "regions": {}},
        "none": 5,
        "uncounted": {"filename": "a.jpg", "regions": {}},
        "gone": {"filename": "gone.jpg", "size": 1, "regions": {}},
    }
    members["balloon/train/via_region_data.json"] = json.dumps(via).encode()
    server.content = zipped(members)
    assert refused(server, root).split("\n  ")[1:] == [
        "expected an entry with a photo's file name, found '../../../evil.jpg'",
        "expected an entry with a photo's file name, found 'sub/evil.jpg'",
        "expected an entry with a photo's file name, found '..\\\\evil.jpg'",
        "expected an entry with a photo's file name, found None",
        "'a.jpg': expected the photo's byte count as 'size', found None",
        "'gone.jpg': not in the archive",
    ]
    assert list(tree(tmp_path)) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "not in the archive, which holds: balloon/train/a.jpg"),
        (b"{", "not a JSON file in UTF-8"),
        (b"[]", "not a VIA 1 or 2 annotation file"),
    ],
)
def test_archive_without_annotations(server: Release, root: Path, content: bytes | None, expected: str) -> None:
    members = release()
    name = "balloon/val/via_region_data.json"
    del members[name]
    server.content = zipped(members | ({} if content is None else {name: content}))
    message = refused(server, root)
    assert message.startswith(f"{server.url}: {name}: ")
    assert expected in message
    assert not root.exists()


def test_arguments_that_make_no_sense(root: Path) -> None:
    with pytest.raises(RecipeError, match="unknown data set 'coco'; expected one of: balloon"):
        get("coco", root)
    for url in ("file:///etc/passwd", "ftp://host/a.zip", "balloon.zip", "http://"):
        with pytest.raises(RecipeError, match="expected a URL that starts with http:// or https://"):
            get("balloon", root, url)


@pytest.mark.parametrize("url", ["http://host:port/a.zip", "http://[/a.zip", "http://a b/c.zip"])
def test_addresses_that_are_none(root: Path, url: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"cannot reach {url}")):
        get("balloon", root, url)


def test_balloon_end_to_end(server: Release, root: Path, balloon: Path) -> None:
    """The real photos and annotations, through an archive in the release's layout, with a lost connection."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for split in ("train", "val"):
            archive.write(balloon / "via" / f"via_region_data_{split}.json", f"balloon/{split}/via_region_data.json")
            for path in sorted((balloon / f"{split}2017").iterdir()):
                archive.write(path, f"balloon/{split}/{path.name}")
    server.content = file.getvalue()
    cut(server, root)
    assert get("balloon", root, server.url) == 0
    for split, objects in (("train", 255), ("val", 50)):
        photos = {path.name: path.read_bytes() for path in (balloon / f"{split}2017").iterdir()}
        assert {path.name: path.read_bytes() for path in (root / f"{split}2017").iterdir()} == photos
        ours, reference = (
            json.loads((base / "annotations" / f"custom_{split}.json").read_text()) for base in (root, balloon)
        )
        assert len(ours["annotations"]) == objects
        assert [a["bbox"] for a in ours["annotations"]] == [a["bbox"] for a in reference["annotations"]]
        assert [i["file_name"] for i in ours["images"]] == [i["file_name"] for i in reference["images"]]
    assert get("balloon", balloon, server.url) == 0, "the folder of VIA2COCO's files counts as complete"
