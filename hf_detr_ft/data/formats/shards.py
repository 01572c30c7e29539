"""Shards on the disk and on the Hub: listed, opened and told apart by the same functions.

A path on the Hub begins as `hf:/datasets/USER/NAME`, which is what `Path` makes of `hf://datasets/…`.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from hf_detr_ft.data.formats.layout import Tree
from hf_detr_ft.errors import DataError, first_line
from hf_detr_ft.plain_files import open_file

HUB = "hf://datasets/"
"""Beginning of a `data.root` that names a data set of the Hub."""
AHEAD = 1 << 16
"""Bytes that are read beyond what is asked for, where labels alone are read."""


def on_hub(path: Path) -> bool:
    """True of a path on the Hub."""
    return path.parts[:1] == ("hf:",)


def shard_name(path: Path) -> str:
    """A path as users write it."""
    return str(path).replace("hf:/", "hf://", 1) if on_hub(path) else str(path)


def list_shards(root: Path) -> Tree:
    """Files below a folder, on the disk or on the Hub.

    Raises:
        DataError: there is no such folder or data set, or no network.
    """
    if not on_hub(root):
        return Tree(root)
    with explain_hub(shard_name(root)):
        folder = shard_name(root).removeprefix("hf://")
        return Tree(root, [name.removeprefix(f"{folder}/") for name in _hub().find(folder)])


def open_shard(path: Path, *, labels_alone: bool = False) -> BinaryIO:
    """Opens a shard for reading.

    Args:
        path: on the disk or on the Hub.
        labels_alone: what is asked for lies scattered between images that are not.

    Raises:
        OSError: it cannot be opened.
    """
    if not on_hub(path):
        return open_file(path)
    ahead = {"block_size": AHEAD} if labels_alone else {}
    return cast(BinaryIO, _hub().open(shard_name(path), "rb", **ahead))


def shard_state(path: Path) -> list[Any]:
    """Name of a shard, its size in bytes first behind it, and more that is another wherever it was written to."""
    if not on_hub(path):
        status = path.stat()
        return [str(path.absolute()), status.st_size, status.st_mtime_ns]
    with explain_hub(shard_name(path)):
        info = _hub().info(shard_name(path))
        return [shard_name(path), info["size"], info.get("blob_id")]


def state_of(path: Path) -> str:
    """Digest of the states of all files at a path; another one wherever something was written."""
    files = [path] if path.is_file() else [path / name for name in list_shards(path).files]
    text = repr([shard_state(file) for file in files if on_hub(file) or file.exists()])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def explain_hub(root: str) -> Iterator[None]:
    """Turns what the Hub's client raises into words.

    Raises:
        DataError: there is no such data set, or no network.
    """
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise DataError(
            f"{root}: expected a data set of the Hub, such as {HUB}user/name, cannot read it: {first_line(error)}; "
            "check the name, the network and, where it is private, `hf auth login`"
        ) from error


def _hub() -> Any:
    from huggingface_hub import HfFileSystem

    return HfFileSystem()  # the same one each time
