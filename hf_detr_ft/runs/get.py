"""`hf-detr-ft get balloon DIR`: downloads a small data set and lays it out as DETR fine-tuners expect it.

Nothing of the download is trusted: names that leave the folder, links, sizes and byte counts are checked, and no member
is extracted but the photos that the VIA files name. All work happens in a hidden folder beside DIR, which is renamed
when it is complete, so DIR is either whole or not there. The hidden folder keeps an interrupted download for the next
run.
"""

import http.client
import json
import os
import re
import shutil
import stat
import struct
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from hf_detr_ft.data.coco import leaves_folder
from hf_detr_ft.data.drawn_folder import write_drawn_folder
from hf_detr_ft.data.formats.coco_json import describe, image_size_reader, load_json, parse_json, write_coco
from hf_detr_ft.data.formats.via import VIA_FILE_NAME, convert_via
from hf_detr_ft.errors import DataError, RecipeError

URLS = {"balloon": "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/balloon_dataset.zip"}
SPLITS = ("train", "val")
TIMEOUT_S = 60.0
"""Seconds without a byte from the server until the download is given up."""
CHUNK = 1 << 16
MAX_BYTES = 1 << 30
"""Of the archive, and of what is in it; balloon's are 38 million. Anything larger is not the archive asked for."""
ELSEWHERE = "if the data set is on this machine already, give its folder to the recipe with --data.root"


def get(name: str, destination: Path, url: str | None = None) -> int:
    """Downloads the data set `name` into `destination`, unless it is there already. Returns the exit status.

    Args:
        name: `balloon`.
        destination: the folder to make, with `annotations/custom_{train,val}.json`, `train2017/` and `val2017/`.
        url: another place of the same archive.

    Raises:
        RecipeError: the arguments are wrong.
        DataError: `destination` holds other things, or the download failed or is not what it should be.
    """
    if name not in URLS:
        raise RecipeError(f"get: unknown data set {name!r}; expected one of: {', '.join(URLS)}")
    url = URLS[name] if url is None else url
    if not re.match(r"https?://[^/]", url):
        raise RecipeError(f"get: expected a URL that starts with http:// or https://, found {url!r}")
    destination = Path(os.path.abspath(destination.expanduser()))
    work = destination.with_name(f".{destination.name}.download")
    try:
        if is_complete(destination):
            print(f"{destination}: complete already, nothing was downloaded")
            return 0
        archive = download(url, work)
        try:
            counts = unpack(archive, work / "data", name, url)
        except DataError:
            shutil.rmtree(work)  # so that the next run does not meet the same archive
            raise
        if destination.exists():
            destination.rmdir()  # empty, as is_complete has seen; Windows renames to no folder that exists
        (work / "data").rename(destination)
        shutil.rmtree(work)
    except OSError as error:
        raise DataError(f"{error.filename or destination}: cannot be read or written: {error.strerror}") from error
    for split, count in counts.items():
        print(f"{destination} {split}: {count}")
    print(f"Next: accelerate launch train.py recipes/{name}.yaml --data.root {destination}")
    return 0


def is_complete(destination: Path) -> bool:
    """Whether the data set is there, whole. Raises DataError where `destination` holds anything else."""
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return False
    annotations = {split: destination / "annotations" / f"custom_{split}.json" for split in SPLITS}
    if not all(file.is_file() for file in annotations.values()):
        raise DataError(f"{destination}: is there already and is not this data set; give a new or empty folder")
    missing = []
    for split, file in annotations.items():
        coco = load_json(file)
        images = coco.get("images") if isinstance(coco, dict) else None
        if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
            raise DataError(f"{file}: expected COCO with 'images'; remove {destination} and run again")
        names = [image.get("file_name") for image in images]
        missing += [f"{split}2017/{name}" for name in names if not (destination / f"{split}2017" / str(name)).is_file()]
    if missing:
        raise DataError(f"{destination}: incomplete, without {', '.join(missing)}; remove the folder and run again")
    return True


@dataclass(frozen=True)
class _Remote:
    """What the server said of the file whose first bytes lie here."""

    url: str
    validator: str | None
    """A strong ETag, else the date of the last change; the same for as long as the file is the same."""
    total: int | None
    """In bytes."""

    @classmethod
    def of(cls, url: str, response: http.client.HTTPResponse) -> "_Remote":
        etag = response.headers.get("ETag")
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        length = response.headers.get("Content-Range" if response.status == 206 else "Content-Length", "")
        total = length.rpartition("/")[2]
        return cls(url, validator, int(total) if re.fullmatch("[0-9]{1,15}", total) else None)

    @classmethod
    def load(cls, path: Path) -> "_Remote | None":
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):  # never written, or not to its end
            return None


def download(url: str, work: Path) -> Path:
    """The archive under `work`: there already, or gone on with, or downloaded anew. Raises DataError."""
    archive, part, state = work / "archive.zip", work / "archive.part", work / "archive.json"
    before = _Remote.load(state)
    if before is None or before.url != url:
        before = None
        archive.unlink(missing_ok=True)
    if archive.is_file():
        return archive
    start = part.stat().st_size if before is not None and part.is_file() else 0
    response = _open(url, start, before)
    if start and not _goes_on(response, start, before):
        if response.status == 206:  # of another file, although it was asked not to
            response.close()
            response = _open(url, 0, None)
        start = 0
    remote = _Remote.of(url, response)
    work.mkdir(parents=True, exist_ok=True)  # only now, so that nothing is left where there is no network
    with response, part.open("ab" if start else "wb") as file:
        state.write_text(json.dumps(asdict(remote)), encoding="utf-8")
        title = url.rpartition("/")[2]
        with tqdm(total=remote.total, initial=start, unit="B", unit_scale=True, desc=title, disable=None) as bar:
            for chunk in _chunks(response, url):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > MAX_BYTES:
                    raise DataError(f"{url}: more than {MAX_BYTES} bytes; this is not the archive")
    size = part.stat().st_size
    if remote.total is not None and size != remote.total:
        raise DataError(f"{url}: connection lost after {size} of {remote.total} bytes; run again to go on from there")
    part.rename(archive)
    return archive


def _open(url: str, start: int, before: _Remote | None) -> http.client.HTTPResponse:
    """Asks for the file from byte `start` on, if it has not changed since. Raises DataError."""
    headers = {"User-Agent": "hf-detr-ft", "Accept-Encoding": "identity"}
    if start and before is not None and before.validator is not None:
        headers |= {"Range": f"bytes={start}-", "If-Range": before.validator}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # as much is here as the server has
            return _open(url, 0, None)
        raise DataError(f"{url}: the server answers {error.code} {error.reason}; {ELSEWHERE}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise DataError(f"{url}: no answer within {TIMEOUT_S:g} seconds; try again, or {ELSEWHERE}") from error
        raise DataError(f"cannot reach {url} ({reason}): is there a network? Otherwise, {ELSEWHERE}") from error


def _goes_on(response: http.client.HTTPResponse, start: int, before: _Remote | None) -> bool:
    """Whether the response is the rest of the file that was begun."""
    rest = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    return response.status == 206 and rest and _Remote.of(before.url, response) == before if before else False


def _chunks(response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except TimeoutError as error:
        raise DataError(f"{url}: nothing came for {TIMEOUT_S:g} seconds; run again to go on from there") from error
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url}: connection lost ({error}); run again to go on from there") from error


def unpack(archive: Path, data: Path, name: str, url: str) -> dict[str, str]:
    """Makes the folder `data` of the archive. Returns a description of each split. Raises DataError."""
    shutil.rmtree(data, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            _check_members(opened, url)
            return {split: _unpack_split(opened, f"{name}/{split}/", data, split, name, url) for split in SPLITS}
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError) as error:
        with archive.open("rb") as file:
            head = file.read(16)
        found = "a zip archive that is damaged or cut off" if head.startswith(b"PK") else f"a file that begins {head!r}"
        raise DataError(f"{url}: expected a zip archive, found {found} ({error}); run again, or {ELSEWHERE}") from error


def _check_members(opened: zipfile.ZipFile, url: str) -> None:
    """Raises DataError listing the members that no honest archive has; then nothing is extracted at all."""
    problems = []
    for member in opened.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        if leaves_folder(member.filename):
            problems.append(f"{member.filename!r} leaves the folder")
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            problems.append(f"{member.filename!r} is a link or a device")
        elif member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problems.append(f"{member.filename!r} is encrypted, or compressed otherwise than by deflate")
        elif member.header_offset < 0:
            problems.append(f"{member.filename!r} begins before the archive")
    if sum(member.file_size for member in opened.infolist()) > MAX_BYTES:
        problems.append(f"its members hold more than {MAX_BYTES} bytes")
    if problems:
        raise DataError("\n  ".join([f"{url}: refused, nothing was extracted:", *problems]))


def _unpack_split(opened: zipfile.ZipFile, prefix: str, data: Path, split: str, name: str, url: str) -> str:
    """Extracts the photos that the split's VIA file names, each of as many bytes as it states; writes the COCO JSON."""
    members = {member.filename: member for member in opened.infolist()}
    source = f"{url}: {prefix}{VIA_FILE_NAME}"
    if prefix + VIA_FILE_NAME not in members:
        raise DataError(f"{source}: not in the archive, which holds: {', '.join(list(members)[:5]) or 'nothing'}, …")
    via = parse_json(opened.read(prefix + VIA_FILE_NAME), source)
    folder = data / f"{split}2017"
    folder.mkdir(parents=True)
    problems = []
    for entry in via.values() if isinstance(via, dict) else ():
        photo, size = (entry.get("filename"), entry.get("size")) if isinstance(entry, dict) else (None, None)
        if not isinstance(photo, str) or PurePosixPath(photo).name != photo or leaves_folder(photo):
            problems.append(f"expected an entry with a photo's file name, found {photo!r}")
        elif type(size) is not int:
            problems.append(f"{photo!r}: expected the photo's byte count as 'size', found {size!r}")
        elif prefix + photo not in members:
            problems.append(f"{photo!r}: not in the archive")
        else:
            with opened.open(prefix + photo) as packed, (folder / photo).open("wb") as file:
                shutil.copyfileobj(packed, file)
            found = (folder / photo).stat().st_size
            if found != size:
                problems.append(f"{photo!r}: expected {size} bytes, found {found}")
    if problems:
        raise DataError("\n  ".join([f"{source}: the photos are not those of the data set:", *problems]))
    coco = convert_via(via, image_size_reader(folder), source=source, class_name=name)
    write_coco(data / "annotations" / f"custom_{split}.json", coco)
    return describe(coco)


def get_synthetic(destination: Path, **settings: Any) -> int:
    """Draws a data set; see `data.drawn_folder.write_drawn_folder`. Returns the exit status."""
    for line in write_drawn_folder(destination, **settings):
        print(line)
    return 0
