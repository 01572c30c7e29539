"""A model of facebookresearch/detr as a folder that lives as long as the process."""

import logging
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hf_detr_ft.model.original.from_original import convert_original

logger = logging.getLogger(__name__)
_folders: list[TemporaryDirectory] = []
"""Kept, since each removes its folder once it is let go."""


@cache
def convert_once(path: str, changed: int) -> str:
    """The folder of a converted file.

    Args:
        path: of the file.
        changed: when it was, so that another file under the same name is converted anew.

    Raises:
        CheckpointError: it cannot be read, or is of another model.
    """
    converted = convert_original(Path(path))
    folder = TemporaryDirectory(prefix="hf_detr_ft_")
    _folders.append(folder)
    converted.save(Path(folder.name))
    for note in converted.notes:
        if not note.startswith("class "):  # which whoever fine-tunes replaces
            logger.warning("%s: %s", path, note)
    return folder.name
