"""The balloon data set: downloads its archive, checks it and lays it out as DETR fine-tuners expect it.

Nothing of the download is trusted. Only the images that the VIA files name are extracted, each to a plain file name and
with as many bytes as the VIA file states, and only once the archive is seen to hold no more than it should.
"""

import http.client
import io
import shutil
import struct
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from hf_detr_ft.atomic import is_free, write_folder
from hf_detr_ft.data.coco import leaves_folder
from hf_detr_ft.data.formats.coco_json import describe, image_size_reader, load_json, parse_json, write_coco
from hf_detr_ft.data.formats.via import VIA_FILE_NAME, convert_via
from hf_detr_ft.errors import DataError

URL = "https://github.com/matterport/Mask_RCNN/releases/download/v2.1/balloon_dataset.zip"
NAME = "balloon"
"""The archive's folder, and the one class."""
SPLITS = ("train", "val")
TIMEOUT_S = 60.0
"""Seconds without a byte from the server until the download is given up."""
READ_BYTES = 1 << 16
MAX_BYTES = 1 << 28
"""Largest size of the archive, and of what is in it; both are about 38 million. Anything larger is something else."""
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError)
"""Errors with which `zipfile` meets an archive that is damaged, cut off or none."""
ELSEWHERE = "if the data set is on this machine already, give its folder to the recipe with --data.root"


def write_balloon_folder(destination: Path) -> list[str]:
    """Downloads the data set into a new or empty folder, which is either whole afterwards or as it was.

    Args:
        destination: the folder to make, with `annotations/custom_{train,val}.json`, `train2017/` and `val2017/`.

    Returns:
        What each split holds, for the terminal.

    Raises:
        DataError: the download failed or is not what it should be, or the disk refuses it.
    """
    archive = download(URL)
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened, write_folder(destination) as folder:
            check_members(opened, URL)
            return [f"{destination} {split}: {_unpack_split(opened, split, folder)}" for split in SPLITS]
    except DAMAGE as error:
        is_zip = archive.startswith(b"PK")
        found = "a zip archive that is damaged or cut off" if is_zip else f"a file that begins {archive[:16]!r}"
        raise DataError(f"{URL}: expected a zip archive, found {found} ({error}); run again, or {ELSEWHERE}") from error


def is_complete(destination: Path) -> bool:
    """True where the data set is there, whole, and False in front of a free folder.

    Raises:
        DataError: `destination` holds anything else.
    """
    if is_free(destination):
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


def download(url: str, elsewhere: str = ELSEWHERE) -> bytes:
    """The file at an address.

    Args:
        url: the address.
        elsewhere: what else can be done, for messages.

    Raises:
        DataError: there is no network, no answer, no such file, not all of it, or more than `MAX_BYTES`.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "hf-detr-ft", "Accept-Encoding": "identity"})
    content = bytearray()
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            title = url.rpartition("/")[2]
            with tqdm(total=total, unit="B", unit_scale=True, desc=title, disable=None) as bar:
                while len(content) <= MAX_BYTES and (chunk := response.read(READ_BYTES)):
                    content += chunk
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url}: the server answers {error.code} {error.reason}; {elsewhere}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise DataError(f"{url}: no answer within {TIMEOUT_S:g} seconds; try again, or {elsewhere}") from error
        if content:
            raise DataError(f"{url}: connection lost ({reason}); run again") from error
        raise DataError(f"cannot reach {url} ({reason}): is there a network? Otherwise, {elsewhere}") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"{url}: more than {MAX_BYTES} bytes; this is not the archive")
    if total is not None and len(content) < total:
        raise DataError(f"{url}: connection lost after {len(content)} of {total} bytes; run again")
    return bytes(content)


def check_members(opened: zipfile.ZipFile, name: str) -> None:
    """Refuses an archive that would fill the disk, or needs more than zlib to be read. Raises DataError."""
    if sum(member.file_size for member in opened.infolist()) > MAX_BYTES:
        raise DataError(f"{name}: its members hold more than {MAX_BYTES} bytes; this is not the archive")
    for member in opened.infolist():
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{name}: {member.filename!r} is encrypted, or compressed otherwise than by deflate")


def _unpack_split(opened: zipfile.ZipFile, split: str, destination: Path) -> str:
    """Extracts the images that the split's VIA file names, and writes the COCO JSON. Returns what the split holds."""
    prefix = f"{NAME}/{split}/"
    members = {member.filename: member for member in opened.infolist()}
    source = f"{URL}: {prefix}{VIA_FILE_NAME}"
    if prefix + VIA_FILE_NAME not in members:
        raise DataError(f"{source}: not in the archive, which holds: {', '.join(list(members)[:5]) or 'nothing'}, …")
    via = parse_json(opened.read(prefix + VIA_FILE_NAME), source)
    folder = destination / f"{split}2017"
    folder.mkdir()
    problems = []
    for entry in via.values() if isinstance(via, dict) else ():
        image, size = (entry.get("filename"), entry.get("size")) if isinstance(entry, dict) else (None, None)
        if not isinstance(image, str) or PurePosixPath(image).name != image or leaves_folder(image):
            problems.append(f"expected an entry with an image's file name, found {image!r}")
        elif type(size) is not int:
            problems.append(f"{image!r}: expected the image's byte count as 'size', found {size!r}")
        elif prefix + image not in members:
            problems.append(f"{image!r}: not in the archive")
        else:
            with opened.open(prefix + image) as packed, (folder / image).open("wb") as file:
                shutil.copyfileobj(packed, file)
            found = (folder / image).stat().st_size
            if found != size:
                problems.append(f"{image!r}: expected {size} bytes, found {found}")
    if problems:
        raise DataError("\n  ".join([f"{source}: the images are not those of the data set:", *problems]))
    coco = convert_via(via, image_size_reader(folder), source=source, class_name=NAME)
    write_coco(destination / "annotations" / f"custom_{split}.json", coco)
    return describe(coco)
