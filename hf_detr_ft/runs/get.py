"""`hf-detr-ft get NAME FOLDER`: a small data set, downloaded (balloon) or drawn (synthetic)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_detr_ft.data.drawn_folder import write_drawn_folder
from hf_detr_ft.data.formats.balloon_archive import is_complete, write_balloon_folder


def get_balloon(destination: Path) -> int:
    """Downloads the balloon data set, unless it is there already. Returns the exit status.

    Raises:
        DataError: `destination` holds other things, or the download failed or is not what it should be.
    """
    destination = Path(os.path.abspath(destination.expanduser()))
    if is_complete(destination):
        print(f"{destination}: complete already, nothing was downloaded")
        return 0
    for line in write_balloon_folder(destination):
        print(line)
    print(f"Next: hf-detr-ft train balloon --data.root {destination}")
    return 0


def get_synthetic(destination: Path, short_side: Sequence[int], **settings: Any) -> int:
    """Draws a data set; see `data.drawn_folder.write_drawn_folder`. Returns the exit status."""
    least, most = short_side
    for line in write_drawn_folder(destination, short_side=(least, most), **settings):
        print(line)
    return 0
