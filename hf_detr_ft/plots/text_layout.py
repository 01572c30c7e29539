"""Texts of a known width, and places of labels so that none covers another."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties, get_font

from hf_detr_ft.formatting import printable

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
"""Font that comes with matplotlib, with Latin, Greek, Cyrillic and Arabic letters, not Chinese, Japanese or Korean."""
BOLD_FONT = FONT.with_name("DejaVuSans-Bold.ttf")
UNKNOWN = "\N{WHITE SQUARE}"
"""Sign in the place of a letter that the font does not have."""

Area = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


def font(size: float, bold: bool = False) -> FontProperties:
    """Font of a size in points, for matplotlib."""
    return FontProperties(fname=str(BOLD_FONT if bold else FONT), size=size)


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width of a `readable` text as matplotlib writes it, in the unit of the size: points or pixels."""
    return measuring_renderer(72).get_text_width_height_descent(text, font(size, bold), False)[0]


@cache
def measuring_renderer(dpi: float) -> RendererAgg:
    """Renderer that draws nothing: matplotlib keeps the size of each text that it has measured."""
    return RendererAgg(1, 1, dpi)


@cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(str(FONT)).get_charmap())


def is_readable(text: str) -> bool:
    """True where the font has all letters of a text; it has no Chinese, Japanese or Korean ones."""
    return all(ord(letter) in _letters() for letter in text)


def readable(text: str) -> str:
    """Text on one line, with a square for each letter that the font does not have."""
    return "".join(letter if is_readable(letter) else UNKNOWN for letter in printable(" ".join(text.split())))


def writable_names(names: Iterable[str]) -> list[str]:
    """Names of classes in letters that the font has: `class 3` instead of a name that it cannot write."""
    return [readable(name) if is_readable(name) else f"class {label}" for label, name in enumerate(names)]


def shorten(text: str, size: float, width: float, bold: bool = False) -> str:
    """Text with so much of its middle left out that it fits: a file's name tells most at its ends."""
    if text_width(text, size, bold) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shortened = text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]
        if text_width(shortened, size, bold) <= width:
            return shortened
    return "…"


def wrap(widths: Iterable[float], width: float, gap: float) -> list[list[int]]:
    """Positions of what stands in each line, no wider than the width with a gap between neighbours."""
    lines: list[list[int]] = []
    used = 0.0
    for index, own in enumerate(widths):
        if not lines or used + gap + own > width:
            lines.append([])
            used = -gap
        lines[-1].append(index)
        used += gap + own
    return lines


def place_labels(
    boxes_xyxy_px: Sequence[Area], variants: Sequence[Sequence[tuple[float, float]]], width: float, height: float
) -> list[tuple[int, Area] | None]:
    """Places for labels at their boxes, within the picture and without overlap; the first ones have the choice.

    Args:
        boxes_xyxy_px: of N labels, within the picture.
        variants: of each label the sizes (width, height) that it can have, the best one first.
        width: of the picture.
        height: of the picture.

    Returns:
        For each label the variant and its place; None where there is no room.
    """
    taken: list[Area] = []
    places: list[tuple[int, Area] | None] = []
    for box, sizes in zip(boxes_xyxy_px, variants, strict=True):
        candidates = ((index, area) for index, size in enumerate(sizes) for area in _beside(box, size, width, height))
        place = next(((index, area) for index, area in candidates if not any(_overlap(area, t) for t in taken)), None)
        places.append(place)
        if place is not None:
            taken.append(place[1])
    return places


def _beside(box: Area, size: tuple[float, float], width: float, height: float) -> list[Area]:
    """Places of a label of this size: above, below or inside the box, at its left or right edge, then beside it."""
    x0, y0, x1, y1 = box
    w, h = size
    places = [(x, y) for y in (y0 - h, y1, y0, y1 - h) for x in (x0, x1 - w)]
    places += [(x, y) for x in (x1, x0 - w) for y in (y0, y1 - h) if 0 <= x <= width - w]
    inside = [(min(max(x, 0), width - w), y) for x, y in places if w <= width and 0 <= y <= height - h]
    return [(x, y, x + w, y + h) for x, y in inside]


def _overlap(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
