"""Near-duplicates: photos that show the same, told by how their brightness changes from cell to cell of a grid.

Copies that were compressed, resized, brightened or cut by 1 % of a side keep a cosine above 0.85; the closest two of 74
different photos have 0.47, of 410 drawn ones 0.66.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hf_detr_ft.data.images import UPRIGHT, read_orientation
from hf_detr_ft.plain_files import open_file

CELLS = 13
"""Cells of the grid on each side."""
ALIKE = (0.85, 0.95, 0.99)
"""Cosines from which on two photos count as near-duplicates: the first, unless photos of a whole set are as alike as
that, as X-rays are."""
COMMON = 0.5
"""Share of the photos that may be near-duplicates before the next likeness is asked for."""
FLAT = 0.5
"""Mean change of brightness, of 255, below which a photo shows nothing that could be told again."""
AT_ONCE = 16
"""Images that a thread reads before it hands over what it made of them."""
BLOCK = 2048
"""Photos that are compared with all others at once."""


def make_thumbnail(image: Image.Image, orientation: int) -> np.ndarray:
    """Mean brightness in each cell of an opened image, upright, `[13, 13]`; the image may be decoded at a reduced size.

    Raises:
        Exception: Pillow cannot decode it.
    """
    if image.mode[0] in "IF":
        grey = Image.fromarray(np.asarray(image, dtype=np.float32))
    else:
        image.draft("L", (2 * CELLS, 2 * CELLS))
        grey = image.convert("L")
    small = grey.resize((CELLS, CELLS), Image.Resampling.BOX, reducing_gap=2.0)
    turn = UPRIGHT.get(orientation)
    return np.asarray(small if turn is None else small.transpose(turn), dtype=np.float32)


def read_thumbnails(
    paths: Sequence[Path], progress: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> list[np.ndarray | None]:
    """The thumbnail of each file, on all cores; None where it cannot be read, which other checks report."""

    def read(path: Path) -> np.ndarray | None:
        try:
            with open_file(path) as source, Image.open(source) as image:
                return make_thumbnail(image, read_orientation(image))
        except Exception:  # decoders meet broken files with errors of nearly every type
            return None

    pieces = (paths[start : start + AT_ONCE] for start in range(0, len(paths), AT_ONCE))
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        read_in_turn = chain.from_iterable(pool.map(lambda piece: [read(path) for path in piece], pieces))
        return [thumbnail for _, thumbnail in zip(progress(paths), read_in_turn, strict=True)]
    finally:
        pool.shutdown(cancel_futures=True)


def describe_changes(thumbnails: Sequence[np.ndarray | None]) -> np.ndarray:
    """Changes of brightness to the right and downwards, of length 1, `[N, 288]`; zeros where there is nothing to tell.

    Args:
        thumbnails: of `make_thumbnail`.
    """
    known = [index for index, thumbnail in enumerate(thumbnails) if thumbnail is not None]
    described = np.zeros((len(thumbnails), 2 * (CELLS - 1) ** 2), dtype=np.float32)
    if not known:
        return described
    grids = np.stack([thumbnail for thumbnail in thumbnails if thumbnail is not None])
    corner = grids[:, :-1, :-1]
    changes = np.stack([grids[:, :-1, 1:] - corner, grids[:, 1:, :-1] - corner], axis=1).reshape(len(known), -1)
    tells = np.abs(changes).mean(axis=1) >= FLAT
    described[np.array(known)[tells]] = changes[tells] / np.linalg.norm(changes[tells], axis=1, keepdims=True)
    return described


def find_alike(these: np.ndarray, others: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs of near-duplicates: positions in each of two sets of `describe_changes`, and their cosine."""
    found = []
    for start in range(0, len(these), BLOCK):
        cosines = these[start : start + BLOCK] @ others.T
        rows, columns = np.nonzero(cosines >= ALIKE[0])
        values = cosines[rows, columns].tolist()
        found += list(zip((rows + start).tolist(), columns.tolist(), values, strict=True))
    return found
