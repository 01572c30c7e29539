"""Outlines of many objects as arrays: their areas by the shoelace formula, and which of them that formula fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from typing import Any

import numpy as np

MOST_COMPARED = 128
"""Points of an outline whose edges are compared each with each; of more points, that takes longer than drawing it."""
BLOCK = 2**20
"""Pairs of edges that are compared at a time."""


@dataclass(frozen=True, eq=False)
class Outlines:
    """Polygons of N objects, P of them, with K points in all, end to end.

    Attributes:
        points: `[K, 2]` (x, y) in pixels.
        starts: `[P]`, the position of each polygon's first point.
        first_polygons: `[N]`, the position of each object's first polygon.
    """

    points: np.ndarray
    starts: np.ndarray
    first_polygons: np.ndarray

    @classmethod
    def read(cls, segmentations: Sequence[list[Any]]) -> "Outlines | None":
        """Reads COCO's [[x, y, x, y, x, y, …], …], one at least for each object; None where any of them is none."""
        if not all(segmentations):
            return None
        polygons = list(chain.from_iterable(segmentations))
        if not set(map(type, polygons)) <= {list} or any(len(p) < 6 or len(p) % 2 for p in polygons):
            return None
        values = list(chain.from_iterable(polygons))
        if not set(map(type, values)) <= {int, float}:
            return None
        try:
            points = np.array(values, dtype=np.float64).reshape(-1, 2)
        except OverflowError:
            return None
        if not (np.abs(points) < 2**63).all():
            return None
        ends = np.cumsum([len(polygon) // 2 for polygon in polygons], dtype=np.int64)
        last = np.cumsum([len(segmentation) for segmentation in segmentations], dtype=np.int64)
        return cls(points, np.r_[0, ends[:-1]][: len(ends)], np.r_[0, last[:-1]][: len(last)])

    @cached_property
    def _edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the edges, `[2, K]` (x, y) each, from their polygon's first point."""
        # Far from the origin, small polygons would lose digits.
        lengths = np.diff(np.r_[self.starts, len(self.points)])
        one = (self.points - np.repeat(self.points[self.starts], lengths, axis=0)).T
        return one, np.roll(one, -1, axis=1)  # the next polygon's first point is the origin, as its own is

    def _sum(self, of_edges: np.ndarray) -> np.ndarray:
        """Sums `[P]` over the edges of each polygon."""
        return np.add.reduceat(of_edges, self.starts) if len(self.starts) else np.zeros(0)

    def _sum_parts(self, of_polygons: np.ndarray) -> np.ndarray:
        """Sums `[N]` over the polygons of each object."""
        return np.add.reduceat(of_polygons, self.first_polygons) if len(self.first_polygons) else np.zeros(0)

    @cached_property
    def areas(self) -> np.ndarray:
        """Areas `[N]` in square pixels by the shoelace formula, those of an object's polygons added up."""
        (x, y), (next_x, next_y) = self._edges
        return self._sum_parts(np.abs(self._sum(x * next_y - y * next_x)) / 2)

    @cached_property
    def perimeters(self) -> np.ndarray:
        """Lengths `[N]` of all outlines of an object in pixels."""
        one, other = self._edges
        return self._sum_parts(self._sum(np.hypot(*(other - one))))

    def may_overlap(self, objects: np.ndarray) -> np.ndarray:
        """Objects whose area may be another one than `areas` says, since their outlines cross, touch or overlap.

        Also those with negative coordinates, which lie outside of every image.

        Args:
            objects: positions of those that are asked for, `[M]`.

        Returns:
            Mask `[M]`.
        """
        found = np.zeros(len(objects), dtype=bool)
        if not len(objects):
            return found
        parts = np.diff(np.r_[self.first_polygons, len(self.starts)])[objects]
        first = self.first_polygons[objects]
        owners = np.repeat(np.arange(len(objects)), parts)
        polygons = first[owners] + np.arange(len(owners)) - (np.cumsum(parts) - parts)[owners]
        found[owners[self._cross_themselves(polygons)]] = True
        least, most = (f.reduceat(self.points, self.starts) for f in (np.minimum, np.maximum))
        for place in np.flatnonzero((parts > 1) & ~found).tolist():
            pairs = combinations(range(first[place], first[place] + parts[place]), 2)
            found[place] = any((least[a] <= most[b]).all() and (least[b] <= most[a]).all() for a, b in pairs)
        return found

    def _cross_themselves(self, polygons: np.ndarray) -> np.ndarray:
        """Mask `[M]` of polygons that cross or touch themselves, have a negative coordinate, or very many points."""
        one, other = self._edges
        moves = (one != other).any(axis=0)  # many tools write the first point again as the last one
        distinct, points = one[:, moves], np.add.reduceat(moves, self.starts, dtype=np.int64)
        first, counts = (np.cumsum(points) - points)[polygons], points[polygons]
        negative = np.minimum.reduceat(self.points.min(axis=1), self.starts)[polygons] < 0
        found = negative | (counts > MOST_COMPARED)
        for count in np.unique(counts[~found]).tolist():
            same = np.flatnonzero((counts == count) & ~found)
            size = max(1, BLOCK // max(1, count) ** 2)
            for start in range(0, len(same), size):
                block = same[start : start + size]
                found[block] = _edges_meet(*distinct[:, first[block][:, None] + np.arange(count)])
        return found


def _edges_meet(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mask `[P]` of the polygons `[P, N]` two of whose edges meet elsewhere than at a point that they share."""
    step_x, step_y = (np.roll(values, -1, axis=1) - values for values in (x, y))
    ahead = (x[:, None, :] - x[:, :, None]) * step_y[:, :, None]
    side = np.sign(ahead - (y[:, None, :] - y[:, :, None]) * step_x[:, :, None]).astype(np.int8)
    # The line of edge i has both ends of edge j on one of its sides.
    apart = side * np.roll(side, -1, axis=2) > 0
    place = np.arange(x.shape[1])
    distance = np.abs(place[:, None] - place[None, :])
    neighbours = (distance <= 1) | (distance == x.shape[1] - 1)
    return ~(apart | apart.transpose(0, 2, 1) | neighbours).all(axis=(1, 2))
