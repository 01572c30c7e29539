"""Figures for the page, as inline SVG in the page's font and colours, and for the disk, as PNG."""

import base64
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from hf_detr_ft.formatting import printable, printable_lines
from hf_detr_ft.plots.style import FAINT, INK

PNG_DPI = 150
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
COLOURS = {INK: "var(--ink)", FAINT: "var(--faint)"}
_REFERENCE = re.compile(r"url\(#([^)]+)\)|^#(.+)$")
_FONT = re.compile(r"font-family:[^;]*;?\s*")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")

Encode = Callable[[Image.Image], str]
"""Function from an image to a data URI, or to a token that stands for one."""


_styled: ContextVar[bool] = ContextVar("styled", default=False)


@contextmanager
def report_style() -> Iterator[None]:
    """Keeps what is made or drawn from the user's matplotlibrc, and names from being taken for formulas.

    Matplotlib takes 10 ms to change its parameters, so only the outermost of nested contexts does it.
    """
    if _styled.get():
        yield
        return
    token = _styled.set(True)
    try:
        with _own_parameters():
            yield
    finally:
        _styled.reset(token)


@contextmanager
def _own_parameters() -> Iterator[None]:
    own: Any = {"svg.fonttype": "none", "svg.hashsalt": "report", "text.parse_math": False}
    with style.context("default"), matplotlib.rc_context(own), warnings.catch_warnings():
        # In the page a text has the letters of the reader's fonts, whatever matplotlib's own font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def to_svg(figure: Figure, name: str, label: str, encode: Encode | None = None) -> str:
    """An `<svg>` element for HTML, without an address, a style sheet or an id that another figure could have.

    Args:
        figure: in the colours of `plots/style.py`, which become the page's.
        name: another one for each figure of a page.
        label: what it shows, for those who do not see it.
        encode: for its images; without it they stay as they are, PNG.
    """
    stream = io.StringIO()
    with report_style():
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    root = ElementTree.fromstring(printable_lines(stream.getvalue()))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{SVG}metadata", f"{SVG}style"):
                parent.remove(child)
    values = [value for node in root.iter() for value in node.attrib.values()]
    used = {match[1] or match[2] for value in values for match in _REFERENCE.finditer(value)}
    for node in root.iter():
        node.tag = node.tag.removeprefix(SVG)
        node.attrib = {key.removeprefix(XLINK): value for key, value in node.attrib.items()}
        if node.attrib.get("id") not in used:
            node.attrib.pop("id", None)
        if node.tag == "image" and encode is not None:
            node.set("href", _encoded(node.attrib["href"], encode))
        for key, value in node.attrib.items():
            node.set(key, _own(key, value, name))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    width = float(root.attrib["viewBox"].split()[2])
    root.attrib |= {"role": "img", "aria-label": printable(label), "style": f"--width:{width / 72 * 96:.0f}px"}
    return ElementTree.tostring(root, encoding="unicode")


def _own(key: str, value: str, name: str) -> str:
    """Value of an attribute, its ids with the figure's name before them, its colours and letters the page's."""
    if key == "id":
        return f"{name}-{value}"
    if key in ("d", "x", "y"):
        return " ".join(_LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", value).split())
    if key == "style":
        value = _FONT.sub("", value)
        for colour, own in COLOURS.items():
            value = value.replace(colour, own)
    return _REFERENCE.sub(lambda match: f"url(#{name}-{match[1]})" if match[1] else f"#{name}-{match[2]}", value)


def _encoded(uri: str, encode: Encode) -> str:
    """A PNG's data URI, encoded anew where no part of it is transparent, as of a photograph."""
    head, comma, content = uri.partition(",")
    if not comma or "base64" not in head:
        return uri
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        opaque = "A" not in image.getbands() or image.getchannel("A").getextrema() == (255, 255)
        return encode(image.convert("RGB")) if opaque else uri


def to_png(figure: Figure) -> bytes:
    """The figure on white; it comes out the same for the same figure."""
    stream = io.BytesIO()
    with report_style():
        canvas = FigureCanvasAgg(figure)
        canvas.print_figure(stream, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
    return stream.getvalue()
