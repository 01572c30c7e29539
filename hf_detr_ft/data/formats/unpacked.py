"""Images that lie in tables or archives, unpacked once into the cache of `datasets`."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from hf_detr_ft.atomic import write_folder
from hf_detr_ft.errors import DataError

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


def unpack_once(sources: Sequence[Path], write: Callable[[Path], None]) -> Path:
    """A folder of the cache, which `write` fills where it is not there yet.

    Args:
        sources: files that are unpacked; whenever their names, sizes or times change, they are unpacked anew.
        write: writes into the folder that it is given; whatever it raises leaves none.

    Raises:
        DataError: the disk refuses.
    """
    import datasets

    state = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]
    place = Path(datasets.config.HF_DATASETS_CACHE) / "hf_detr_ft" / "unpacked" / key
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
    last = SAFE.sub("_", (name or "").replace("\\", "/").rpartition("/")[2])[-100:].lstrip(".")
    suffix = next((suffix for start, suffix in SUFFIXES.items() if content.startswith(start)), ".img")
    file_name = f"{number:06d}_{last}" if "." in last else f"{number:06d}{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file_name).write_bytes(content)
    return file_name
