"""Numbers and lists as the texts of the evaluation word them."""

import math
from collections.abc import Sequence

import numpy as np


def listed(values: Sequence | np.ndarray, limit: int = 10) -> str:
    """The first values with commas, and how many more there are."""
    shown = ", ".join(str(value) for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} … and {len(values) - limit} more"


def cut_threshold(threshold: float) -> float:
    """With three decimals, rounded down: rounded up, it would drop the last detection that it is to keep."""
    return math.floor(threshold * 1000) / 1000


def counted(count: int, noun: str) -> str:
    """`1 box`, `1,200 boxes`, `0 objects`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{'es' if noun.endswith('x') else 's'}"
