"""Formatting of numbers, lists and names in messages and pages."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control codes, of signs without a shape, of half characters, and of line breaks."""
_NOT_ASCII = re.compile(r"[^ -~]")
_JOINERS = "\u200c\u200d"
_HALF = re.compile("[\ud800-\udfff]")


def printable(text: object, kept: str = "") -> str:
    r"""Text as a terminal or a page can show it on one line: what would steer it is written as in Python, `\x1b`.

    Escaped are control codes, line breaks, marks that turn the direction of writing, signs without a width and half
    surrogates. Joiners stay between letters that are not ASCII, where scripts and emoji need them.

    Args:
        text: anything.
        kept: characters to leave as they are, such as line breaks where the text has lines of ours.
    """
    text = str(text)

    def escape(found: re.Match[str]) -> str:
        char, place = found[0], found.start()
        if char in kept or unicodedata.category(char) not in STEERING:
            return char
        joins = char in _JOINERS and not (text[place - 1 : place] or " ").isascii()
        if joins and not (text[place + 1 : place + 2] or " ").isascii():
            return char
        return ascii(char)[1:-1]

    return _NOT_ASCII.sub(escape, text)


def has_half_characters(text: str) -> bool:
    """True for a text that no file in UTF-8 can hold: JSON and YAML can write half a surrogate pair alone."""
    return bool(_HALF.search(text))


def printable_lines(text: object) -> str:
    """Text of several lines, each `printable`."""
    return printable(text, kept="\n\t")


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
