"""Measurements of outlines, kept for the next run: of a large file they take a third of the time to read it."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hf_detr_ft.atomic import write_json
from hf_detr_ft.data import outlines, segmentation_area
from hf_detr_ft.data.segmentation_area import Measured

KEPT_FROM = 1 << 26
"""Bytes of the least file whose measurements are kept; those of smaller ones take a second."""


def measurements_file(content: bytes) -> Path:
    """The file in the cache of `datasets` for an annotation file's content, another one with other code."""
    import datasets

    from hf_detr_ft.data.cache.row_cache import hash_sources

    modules = hash_sources((Path(outlines.__file__), Path(segmentation_area.__file__)))
    key = hashlib.sha256(modules.encode() + hashlib.sha256(content).digest()).hexdigest()[:32]
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_detr_ft" / "outlines" / f"{key}.json"


def load_measurements(file: Path) -> dict[int, Measured] | None:
    """Measurements by place, as `keep_measurements` wrote them; None where they are not there, or damaged."""
    try:
        return {int(place): Measured(*measured) for place, measured in json.loads(file.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def keep_measurements(file: Path, measured: Sequence[Measured]) -> None:
    """Writes those by their places that say anything; most outlines have neither fault nor another area."""
    said = {place: one for place, one in enumerate(measured) if one != Measured()}
    with suppress(OSError):  # they are made anew then
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, said, indent=None)
