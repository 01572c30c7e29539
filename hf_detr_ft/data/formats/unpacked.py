"""Images that lie in tables or archives: unpacked once into the cache of `datasets`, or only measured."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hf_detr_ft.atomic import write_folder
from hf_detr_ft.data.formats.shards import shard_state
from hf_detr_ft.data.images import upright_size
from hf_detr_ft.errors import DataError

INDEX = "samples.jsonl"
MOST_BYTES = 1 << 30
"""Largest image that is unpacked."""
SAFE = re.compile(r"[^\w.-]", re.ASCII)
SUFFIXES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"RIFF": ".webp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


class Sample(NamedTuple):
    """An image of a shard, without its pixels."""

    file_name: str
    size: tuple[int, int]
    """(height, width) in pixels of the upright image."""
    shard: str
    label: bytes
    """Text that came with it."""


def measure_once(
    shards: Sequence[Path], samples: Callable[[], Iterable[tuple[Path, str, bytes, bytes]]]
) -> list[Sample]:
    """Samples of shards, all of which are read once for it; what is found is kept in the cache of `datasets`.

    Args:
        shards: their files.
        samples: gives shard, name, content of the image and label of each sample.

    Raises:
        DataError: an image is none, or the disk refuses.
    """

    def write(folder: Path) -> None:
        with (folder / INDEX).open("w") as lines:
            for number, (shard, name, content, label) in enumerate(samples()):
                try:
                    size = upright_size(content)
                except DataError as error:
                    raise DataError(f"{shard}, {name or f'row {number}'}: {error}") from error
                sample = [image_name(number, name, content), size, str(shard), label.decode("latin-1")]
                lines.write(json.dumps(sample) + "\n")

    place = unpack_once(shards, write, "measured")
    lines = map(json.loads, (place / INDEX).read_text().splitlines())
    return [Sample(name, (size[0], size[1]), shard, label.encode("latin-1")) for name, size, shard, label in lines]


def unpack_once(sources: Sequence[Path], write: Callable[[Path], None], kind: str = "unpacked") -> Path:
    """A folder of the cache, which `write` fills where it is not there yet.

    Args:
        sources: files that are unpacked; whenever their names, sizes or times change, they are unpacked anew.
        write: writes into the folder that it is given; whatever it raises leaves none.
        kind: of what is written, the name of the folder around it.

    Raises:
        DataError: the disk refuses.
    """
    import datasets

    key = hashlib.sha256(json.dumps([shard_state(path) for path in sources]).encode()).hexdigest()[:32]
    place = Path(datasets.config.HF_DATASETS_CACHE) / "hf_detr_ft" / kind / key
    if not place.is_dir():
        with write_folder(place) as folder:
            write(folder)
    return place


def write_image(folder: Path, number: int, name: str | None, content: bytes) -> str:
    """Writes one image under a name of its own, that nothing in `name` can lead out of the folder.

    Returns:
        The name.

    Raises:
        DataError: there is nothing to write, or too much.
    """
    if not content or len(content) > MOST_BYTES:
        raise DataError(f"expected an image of up to {MOST_BYTES >> 20} MB, found {len(content)} bytes")
    file_name = image_name(number, name, content)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file_name).write_bytes(content)
    return file_name


def image_name(number: int, name: str | None, content: bytes) -> str:
    """Name of the image that has a number in its split; what there is of `name` in it is harmless."""
    last = SAFE.sub("_", (name or "").replace("\\", "/").rpartition("/")[2])[-100:].lstrip(".")
    suffix = next((suffix for start, suffix in SUFFIXES.items() if content.startswith(start)), ".img")
    return f"{number:06d}_{last}" if "." in last else f"{number:06d}{suffix}"
