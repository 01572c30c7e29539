"""Formatting of numbers, lists and names in messages and pages."""

import difflib
from collections.abc import Iterable, Sequence

import numpy as np


def join_limited(values: Sequence | np.ndarray, limit: int = 10) -> str:
    """First values with commas, and the number of those left out: `1, 2, 3 … and 7 more`."""
    shown = ", ".join(str(value) for value in values[:limit])
    return shown if len(values) <= limit else f"{shown} … and {len(values) - limit} more"


def pluralize(count: int, noun: str) -> str:
    """Count with its noun: `1 box`, `1,200 boxes`, `0 objects`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{'es' if noun.endswith('x') else 's'}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Hint to append, ` (did you mean 'x'?)`, where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def percent(share: float) -> str:
    """Share from 0 to 1 in percent: `12 %`, `0.3 %`, `0 %`."""
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.0095 else f"{100 * share:.1g} %"
