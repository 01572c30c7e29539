"""`hf-detr-ft get NAME FOLDER`: a data set, downloaded (balloon, nucleus) or drawn (synthetic)."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_detr_ft.data.drawn_folder import write_drawn_folder
from hf_detr_ft.data.formats.balloon_archive import is_complete, write_balloon_folder
from hf_detr_ft.data.formats.nucleus_archive import write_nucleus_folder


def get_balloon(destination: Path) -> int:
    """Downloads the balloon data set, unless it is there already. Returns the exit status.

    Raises:
        DataError: `destination` holds other things, or the download failed or is not what it should be.
    """
    return _get("balloon", destination, write_balloon_folder)


def get_nucleus(destination: Path, source: Path | None = None) -> int:
    """Downloads or reads the nuclei of the Data Science Bowl 2018, unless they are there. Returns the exit status.

    Args:
        destination: the folder to make.
        source: the archive or its folder; downloaded where not given.

    Raises:
        DataError: as `get_balloon`, or `source` is not the data set.
    """
    return _get("nucleus", destination, lambda folder: write_nucleus_folder(folder, source))


def _get(name: str, destination: Path, write: Callable[[Path], list[str]]) -> int:
    destination = Path(os.path.abspath(destination.expanduser()))
    if is_complete(destination):
        print(f"{destination}: complete already, nothing was downloaded")
        return 0
    for line in write(destination):
        print(line)
    print(f"Next: hf-detr-ft train {name} --data.root {destination}")
    return 0


def get_synthetic(destination: Path, short_side: Sequence[int], **settings: Any) -> int:
    """Draws a data set; see `data.drawn_folder.write_drawn_folder`. Returns the exit status."""
    least, most = short_side
    for line in write_drawn_folder(destination, short_side=(least, most), **settings):
        print(line)
    return 0
