"""Parts of a data set: images that belong together in one part, every class in each part by its share."""

import hashlib
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np

VIDEO_KEYS = ("video_id", "video", "sequence_id", "sequence")
"""Keys of an image entry by which formats for videos say which one a frame is of."""
FRAME = re.compile(r"^(.*?)(?:[-_. ]?frame[-_. ]?\d+|[_.](?:mp4|mov|avi|mkv|webm)[-_.]\d+)", re.IGNORECASE)
"""Names of frames, `clip_frame_0012.jpg` and `clip_mp4-12_jpg.rf.0a1b.jpg`; the group is the video's."""
COPY = re.compile(r"^(.+)\.rf\.[0-9a-z]+\.\w+$", re.IGNORECASE)
"""Names of Roboflow's augmented copies, `photo_jpg.rf.0a1b2c.jpg`; the group is the photo's."""


def find_group_key(group_by: str | None, images: Sequence[dict[str, Any]]) -> Callable[[dict[str, Any]], Hashable]:
    """A function from an image entry to what it has in common with those of its group; None for an image alone.

    Args:
        group_by: a key of the entries, or a regular expression that is searched in `file_name`, whose groups in
            parentheses, or else the whole match, are the key; None for what tells videos and copies by itself.
        images: all entries, each with `file_name`.

    Raises:
        ValueError: nothing has such a key or matches the expression, or it is none.
    """
    if group_by is None:
        return _video_or_copy
    if any(group_by in image for image in images):
        return lambda image: str(image[group_by]) if image.get(group_by) is not None else None
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise ValueError(f"no image has such a key, and it is no regular expression: {error}") from None

    def match(image: dict[str, Any]) -> Hashable:
        found = pattern.search(image["file_name"])
        return None if found is None else found.groups() or found[0]

    if all(match(image) is None for image in images):
        raise ValueError("no image has such a key, and the expression is found in no file_name")
    return match


def _video_or_copy(image: dict[str, Any]) -> Hashable:
    video = next((image[key] for key in VIDEO_KEYS if image.get(key) is not None), None)
    if video is not None:
        return str(video)
    found = FRAME.match(image["file_name"]) or COPY.match(image["file_name"])
    return None if found is None else found[1]


def join_groups(count: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """The group of each of `count` items, `[N]`, numbered by its first item, where each pair is in one group."""
    group = list(range(count))

    def root(item: int) -> int:
        while group[item] != item:
            group[item] = group[group[item]]
            item = group[item]
        return item

    for one, other in pairs:
        first, second = sorted((root(one), root(other)))
        group[second] = first
    return np.array([root(item) for item in range(count)], dtype=np.int64)


def pair_equal(keys: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Each item and the first one of its key; those of key None are left alone."""
    first: dict[Hashable, int] = {}
    return [(first.setdefault(key, item), item) for item, key in enumerate(keys) if key is not None]


def assign_parts(labels: np.ndarray, groups: np.ndarray, names: Sequence[str], shares: Sequence[float]) -> np.ndarray:
    """The part of each image, `[N]`, the same for all of a group: iterative stratification, the rarest class first.

    Each group goes to the part that still lacks most images of its rarest class, as in Sechidis et al. 2011
    (doi:10.1007/978-3-642-23808-6_10). Images without objects count as one more class. The order of the images plays
    no part.

    Args:
        labels: which classes each image has, bool `[N, C]`.
        groups: of `join_groups`, `[N]`.
        names: of the images; they alone decide between groups that are equally good.
        shares: of the images that each part is to have; they add up to 1.
    """
    which, group = np.unique(groups, return_inverse=True)
    columns = np.column_stack([labels, ~labels.any(axis=1), np.ones(len(labels), dtype=bool)])
    counts = np.zeros((len(which), columns.shape[1]))
    np.add.at(counts, group, columns)
    ranks = _rank_groups(group, names, len(which))
    needs = np.outer(shares, counts.sum(axis=0))
    part = np.full(len(which), -1)
    strata = columns.shape[1] - 1
    while (part < 0).any():
        left = counts[part < 0, :strata].sum(axis=0)
        stratum = int(np.where(left > 0, left, np.inf).argmin())
        members = np.flatnonzero((part < 0) & (counts[:, stratum] > 0))
        for member in members[np.lexsort((ranks[members], -counts[members, stratum]))].tolist():
            # Where all parts lack the same of the class, the images decide.
            chosen = int(np.lexsort((-needs[:, -1], -needs[:, stratum].round(6)))[0])
            part[member] = chosen
            needs[chosen] -= counts[member]
    return part[group]


def _rank_groups(group: np.ndarray, names: Sequence[str], count: int) -> np.ndarray:
    """A random order of the groups, `[G]`, a function of the names alone."""
    least = [""] * count
    for place, name in zip(group.tolist(), names, strict=True):
        least[place] = min(least[place], name) if least[place] else name
    digests = [hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest() for name in least]
    ranks = np.empty(count, dtype=np.int64)
    ranks[sorted(range(count), key=digests.__getitem__)] = np.arange(count)
    return ranks
