"""Rendering of a page as one HTML file: nothing in it comes from elsewhere, and it is no larger than a limit."""

import base64
import hashlib
import io
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import count, groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image

from hf_detr_ft import __version__
from hf_detr_ft.formatting import printable_lines
from hf_detr_ft.report.attempt import attempt
from hf_detr_ft.report.blocks import Block, Collapsible, Gallery, Note, Page, Picture, Plot, Section
from hf_detr_ft.report.svg import to_svg

LARGEST = 5_000_000
"""Bytes of a page at most."""
FOLDER = Path(__file__).parent
GRIDS = ("plot", "picture")
"""Kinds of blocks that stand side by side."""


@dataclass(frozen=True)
class JpegQuality:
    """An image in the page: the longer side in pixels at most, and the quality of the JPEG."""

    side: int
    quality: int


JPEG_QUALITIES = (
    *(JpegQuality(640, 82), JpegQuality(560, 80), JpegQuality(480, 76), JpegQuality(400, 72)),
    *(JpegQuality(320, 68), JpegQuality(240, 60), JpegQuality(160, 50), JpegQuality(96, 40)),
)
"""Candidates, the finest first; the first with which the page is not too large is taken."""


@dataclass
class ImageStore:
    """Images of a page that is being rendered: a token stands for each until it is known how fine they can be."""

    images: list[Image.Image] = field(default_factory=list)
    secret: str = field(default_factory=partial(secrets.token_hex, 16))
    """Part of each token, so that no text of the page can be one."""

    def add(self, image: Image.Image) -> str:
        """The image's token."""
        self.images.append(image)
        return f"{self.secret}-{len(self.images) - 1}-"

    def fill(self, html: str, quality: JpegQuality, largest: int) -> str | None:
        """The page with its images, or None where it is larger than that many bytes."""
        parts = re.split(f"{self.secret}-([0-9]+)-", html)
        room = largest - sum(len(text.encode()) for text in parts[::2])
        uris: dict[str, str] = {}
        for token in parts[1::2]:
            if token not in uris:
                uris[token] = jpeg_uri(self.images[int(token)], quality)
            room -= len(uris[token])
            if room < 0:
                return None
        return "".join(uris[part] if index % 2 else part for index, part in enumerate(parts))


def render_page(page: Page, largest: int = LARGEST, failures: list[str] | None = None) -> str:
    """The HTML; figures and sections that fail leave a note in their place.

    Args:
        page: with its sections.
        largest: bytes; images get smaller until it fits, and are left out where nothing else helps.
        failures: gets a line for each part that fails.
    """
    failures = [] if failures is None else failures
    store = ImageStore()
    drawn = {id(block): _draw(block, store, failures) for block in page.blocks() if isinstance(block, Plot)}
    html = _render(page, store, drawn, failures)
    with attempt("the images", failures):
        for quality in JPEG_QUALITIES:
            filled = store.fill(html, quality, largest)
            if filled is not None:
                return filled
        page = replace(page, notes=[*page.notes, "Photos are left out: the page would be too large."])
    return _render(_without_images(page), store, drawn, failures)


def _without_images(page: Page) -> Page:
    """The page without the blocks that show images."""

    def kept(blocks: Iterable[Block]) -> list[Block]:
        shown = [
            b for b in blocks if not (isinstance(b, Picture | Gallery) or (isinstance(b, Plot) and b.shows_images))
        ]
        return [
            replace(block, blocks=kept(block.blocks)) if isinstance(block, Collapsible) else block for block in shown
        ]

    return replace(page, sections=[replace(section, blocks=kept(section.blocks)) for section in page.sections])


def jpeg_uri(image: Image.Image, quality: JpegQuality) -> str:
    """The image as JPEG, no larger than it is, in a data URI."""
    scale = min(1.0, quality.side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smaller = image.convert("RGB")
    if size != image.size:
        smaller = smaller.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    smaller.save(stream, "JPEG", quality=quality.quality, optimize=True, progressive=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _draw(plot: Plot, store: ImageStore, failures: list[str]) -> Markup | None:
    """The figure as SVG; None where it cannot be drawn."""
    with attempt(f"the figure {plot.name}", failures):
        return Markup(to_svg(plot.figure, plot.name, plot.caption or plot.name, store.add))
    return None


def _render(page: Page, store: ImageStore, drawn: dict[int, Markup | None], failures: list[str]) -> str:
    """The page with tokens for its images."""
    show = _template("blocks.html").make_module(
        {
            "encode": store.add,
            "svg": lambda plot: drawn[id(plot)],
            "grids": _grids,
            "next_number": partial(next, count(1)),
        }
    )
    rendered: list[tuple[Section, Markup]] = []
    for section in page.sections:
        before = len(failures)
        with attempt(f"the section {section.title}", failures):
            rendered.append((section, show.show(section.blocks)))  # type: ignore[attr-defined]
            continue
        notes = [Note(failure) for failure in failures[before:]]
        rendered.append((section, show.show(notes)))
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    # The browser itself refuses to load or to run anything else.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template("page.html").render(
        page=page,
        sections=rendered,
        version=__version__,
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        digest=digest,
    )


def _grids(blocks: Iterable[Block]) -> list[tuple[str, list[Block]]]:
    """Neighbours of one kind together where they stand side by side; the others alone."""
    groups: list[tuple[str, list[Block]]] = []
    for kind, same in groupby(blocks, lambda block: block.kind):
        group = list(same)
        groups += [(kind, group)] if kind in GRIDS else [(kind, [block]) for block in group]
    return groups


def _show(value: object) -> object:
    """Names without marks that turn the direction of what is written around them, and without control codes."""
    return printable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_show,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
