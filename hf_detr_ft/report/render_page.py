"""From sections to one HTML file: nothing in it comes from elsewhere, and it is no larger than a limit."""

import base64
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count, groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image

from hf_detr_ft import __version__
from hf_detr_ft.report.blocks import Block, Fold, Gallery, Page, Picture, Plot
from hf_detr_ft.report.svg import Encode, to_svg

LARGEST = 5_000_000
"""Of a page, in bytes."""
FOLDER = Path(__file__).parent
GRIDS = ("plot", "picture")
"""Kinds of blocks that stand side by side."""


@dataclass(frozen=True)
class Fineness:
    """How photos are written: the longer side in pixels at most, and the quality of the JPEG."""

    side: int
    quality: int


FINENESSES = (
    *(Fineness(640, 82), Fineness(560, 80), Fineness(480, 76), Fineness(400, 72)),
    *(Fineness(320, 68), Fineness(240, 60), Fineness(160, 50), Fineness(96, 40)),
)
"""The first one is taken with which the page is not too large."""


def render_page(page: Page, largest: int = LARGEST) -> str:
    """The HTML.

    Args:
        page: what is on it.
        largest: bytes; photos get smaller until it fits, and are left out where nothing else helps.
    """
    plots = [block for block in page.blocks() if isinstance(block, Plot)]
    drawn = {id(plot): _svg(plot, None) for plot in plots if not plot.shows_photos}
    for fineness in FINENESSES:
        html = _render(page, partial(jpeg_uri, fineness=fineness), drawn)
        if len(html.encode()) <= largest:
            return html
    return _render(_without_photos(page), partial(jpeg_uri, fineness=FINENESSES[-1]), drawn)


def _without_photos(page: Page) -> Page:
    """The page without the blocks that show photos, which says so."""

    def kept(blocks: Iterable[Block]) -> list[Block]:
        shown = [
            b for b in blocks if not (isinstance(b, Picture | Gallery) or (isinstance(b, Plot) and b.shows_photos))
        ]
        return [replace(block, blocks=kept(block.blocks)) if isinstance(block, Fold) else block for block in shown]

    sections = [replace(section, blocks=kept(section.blocks)) for section in page.sections]
    return replace(page, sections=sections, notes=[*page.notes, "Photos are left out: the page would be too large."])


def jpeg_uri(image: Image.Image, fineness: Fineness) -> str:
    """The image as JPEG, no larger than it is, in a data URI."""
    scale = min(1.0, fineness.side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smaller = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    smaller.save(stream, "JPEG", quality=fineness.quality, optimize=True, progressive=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _svg(plot: Plot, encode: Encode | None) -> Markup:
    return Markup(to_svg(plot.figure, plot.name, plot.caption or plot.name, encode))


def _render(page: Page, encode: Encode, drawn: dict[int, Markup]) -> str:
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    # The browser itself refuses to load or to run anything else.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = _template().render(
        page=page,
        version=__version__,
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        digest=digest,
        encode=encode,
        svg=lambda plot: drawn.get(id(plot)) or _svg(plot, encode),
        grids=_grids,
        next_number=partial(next, count(1)),
    )
    # JSON can hold half characters, and with them class and file names.
    return html.encode("utf-8", errors="replace").decode("utf-8")


def _grids(blocks: Iterable[Block]) -> list[tuple[str, list[Block]]]:
    """Neighbours of one kind together where they stand side by side; the others alone."""
    groups: list[tuple[str, list[Block]]] = []
    for kind, same in groupby(blocks, lambda block: block.kind):
        group = list(same)
        groups += [(kind, group)] if kind in GRIDS else [(kind, [block]) for block in group]
    return groups


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
