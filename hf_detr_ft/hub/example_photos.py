"""Photos that the model's page on the Hub offers to try it on, which only those become that the user names."""

import re
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from hf_detr_ft.data.images import decode_rgb

FOLDER = "examples"
"""Folder of the repository that they lie in."""
OURS = re.compile(rf"{FOLDER}/\d+\.jpg")
"""Paths that they have there."""
LONGEST_SIDE = 1600
"""Pixels of a photo's longer side, above which it is scaled down."""


def read_examples(photos: Sequence[Path]) -> dict[str, bytes]:
    """Photos as JPEG by their path in the repository: upright, scaled down, and without the metadata of the file.

    Names, places and times that a camera or a program wrote into the file do not go up, nor does the file's own name.

    Args:
        photos: files of any kind that Pillow reads.

    Raises:
        DataError: one is missing, or no whole image.
    """
    examples = {}
    for number, photo in enumerate(photos, 1):
        image = decode_rgb(photo)
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        stream = BytesIO()
        image.save(stream, format="JPEG", quality=90)
        examples[f"{FOLDER}/{number}.jpg"] = stream.getvalue()
    return examples


def list_addresses(examples: Iterable[str], repo_id: str, revision: str | None) -> list[str]:
    """Addresses that examples have once they are on a branch of a repository, for `widget` in the card's metadata."""
    return [f"https://huggingface.co/{repo_id}/resolve/{revision or 'main'}/{name}" for name in examples]
