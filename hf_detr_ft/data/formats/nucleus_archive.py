"""The nuclei of the Data Science Bowl 2018: its masks become COCO's boxes and polygons, a fifth of it validation.

The 670 training images of its first stage come as `IMAGE/images/IMAGE.png` with a PNG for each nucleus in `IMAGE/masks`
(Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7). Nothing of an archive is trusted: it is read, not unpacked, and
what it holds is written under names that are letters and digits.
"""

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hf_detr_ft.atomic import write_folder
from hf_detr_ft.data.formats.balloon_archive import DAMAGE, check_members, download
from hf_detr_ft.data.formats.coco_json import describe, write_coco
from hf_detr_ft.data.images import decode_rgb
from hf_detr_ft.errors import DataError
from hf_detr_ft.synthetic.render import mask_outlines

URL = "https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip"
"""Image set BBBC038v1 of the Broad Bioimage Benchmark Collection; at Kaggle the same archive takes an account."""
ELSEWHERE = "if you have stage1_train.zip, or its folder, give it with --from"
LAYOUT = "IMAGE/images/IMAGE.png and IMAGE/masks/*.png"
VALIDATION_SHARE = 5
SHOWN = 10
"""Problems that are listed."""
_FILE = re.compile(r"(?:^|/)([^/]+)/(images|masks)/([^/]+)\.png$", re.IGNORECASE)
_PLAIN = re.compile(r"[\w-]{1,128}", re.ASCII)

Read = Callable[[], bytes]


@dataclass
class Nuclei:
    """Files of one image."""

    images: list[Read] = field(default_factory=list)
    masks: list[Read] = field(default_factory=list)


def write_nucleus_folder(destination: Path, source: Path | None = None) -> list[str]:
    """Writes the data set into a new or empty folder, which is either whole afterwards or as it was.

    Args:
        destination: the folder to make, with `annotations/custom_{train,val}.json`, `train2017/` and `val2017/`.
        source: the archive or a folder with its content; downloaded where not given.

    Returns:
        What each split holds, for the terminal.

    Raises:
        DataError: the download failed, or what is there is not the data set.
    """
    with _opened(source) as (name, files), write_folder(destination) as folder:
        found = _group(files)
        problems = [problem for image, nuclei in found.items() for problem in _problems(image, nuclei)]
        if len(found) < 2:
            problems = [f"expected {LAYOUT} of two images or more, found {len(found)}"]
        if problems:
            raise _refusal(name, problems)
        return [
            f"{destination} {split}: {_write_split(folder, split, images, found, name)}"
            for split, images in split_images(found).items()
        ]


def split_images(images: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of the training and the validation images, each sorted.

    Validation is the fifth of all images, one at least, whose names have the smallest SHA-256.
    """
    by_hash = sorted(images, key=lambda image: hashlib.sha256(image.encode()).digest())
    count = max(1, len(by_hash) // VALIDATION_SHARE)
    return {"train": sorted(by_hash[count:]), "val": sorted(by_hash[:count])}


@contextmanager
def _opened(source: Path | None) -> Iterator[tuple[str, dict[str, Read]]]:
    """Name for messages, and the files by their paths."""
    if source is not None and source.is_dir():
        paths = {path.relative_to(source.parent).as_posix(): path for path in sorted(source.rglob("*.png"))}
        yield str(source), {name: path.read_bytes for name, path in paths.items() if path.is_file()}
        return
    name = URL if source is None else str(source)
    if source is not None and not source.is_file():
        raise DataError(f"{source}: no such file or folder; expected stage1_train.zip, or a folder with {LAYOUT}")
    archive = BytesIO(download(URL, ELSEWHERE)) if source is None else source
    try:
        with zipfile.ZipFile(archive) as opened:
            check_members(opened, name)
            members = [member for member in opened.infolist() if not member.is_dir()]
            yield name, {member.filename: _member(opened, member) for member in members}
    except DAMAGE as error:
        raise DataError(f"{name}: expected a whole zip archive ({error}); {ELSEWHERE}") from error


def _member(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> Read:
    return lambda: opened.read(member)


def _group(files: Mapping[str, Read]) -> dict[str, Nuclei]:
    """Files by their images, those that macOS adds to archives left out."""
    found: dict[str, Nuclei] = {}
    for name, read in sorted(files.items()):
        match = _FILE.search(name)
        if match is None or match[3].startswith("._"):
            continue
        nuclei = found.setdefault(match[1], Nuclei())
        (nuclei.images if match[2].lower() == "images" else nuclei.masks).append(read)
    return found


def _problems(image: str, nuclei: Nuclei) -> Iterator[str]:
    if not _PLAIN.fullmatch(image):
        yield f"{image[:80]!r}: expected a name of letters, digits, - and _"
    if len(nuclei.images) != 1:
        yield f"{image[:80]!r}: expected one PNG in images, found {len(nuclei.images)}"
    if not nuclei.masks:
        yield f"{image[:80]!r}: expected PNGs in masks, found none; test images have no masks"


def _refusal(name: str, problems: list[str]) -> DataError:
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return DataError("\n  ".join([f"{name}: this is not the data set:", *problems[:SHOWN], *more]))


def _write_split(folder: Path, split: str, images: list[str], found: Mapping[str, Nuclei], name: str) -> str:
    """Writes images and annotations of a split; returns what it holds."""
    pictures = folder / f"{split}2017"
    pictures.mkdir()
    coco: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "nucleus"}]}
    problems = []
    for image_id, image in enumerate(tqdm(images, desc=pictures.name, unit="image", disable=None), start=1):
        content = found[image].images[0]()
        try:
            width, height = decode_rgb(content).size
            objects = [_object(read(), (height, width)) for read in found[image].masks]
        except DataError as error:
            problems.append(f"{image}: {error}")
            continue
        (pictures / f"{image}.png").write_bytes(content)
        coco["images"].append({"id": image_id, "file_name": f"{image}.png", "height": height, "width": width})
        for values in filter(None, objects):
            ids = {"id": len(coco["annotations"]) + 1, "image_id": image_id, "category_id": 1}
            coco["annotations"].append({**ids, **values, "iscrowd": 0})
    if problems:
        raise _refusal(name, problems)
    write_coco(folder / "annotations" / f"custom_{split}.json", coco)
    return describe(coco)


def _object(content: bytes, size: tuple[int, int]) -> dict[str, Any] | None:
    """Box, area and outline of a nucleus of an image of this (height, width); None of a mask without any pixel."""
    mask = np.asarray(decode_rgb(content)).any(axis=-1)
    if mask.shape != size:
        raise DataError(f"expected masks of {size[1]} x {size[0]} pixels, found {mask.shape[1]} x {mask.shape[0]}")
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    top, left, bottom, right = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    crop = np.ascontiguousarray(mask[top:bottom, left:right]).astype(np.uint8)
    outlines = [(points + np.array([left, top])).ravel().tolist() for points in mask_outlines(crop)]
    return {"bbox": [left, top, right - left, bottom - top], "area": int(crop.sum()), "segmentation": outlines}
