"""Building blocks of a page: sections, and the blocks in them. Plain data; `render_page.py` turns them into HTML.

All texts are plain: whatever stands in them, class and file names above all, is shown as it is.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from matplotlib.figure import Figure
from PIL import Image

from hf_detr_ft.evaluation.detections import is_above

KINDS = {
    "all": "anything",
    "missed": "missed objects",
    "localisation": "misplaced boxes",
    "classification": "wrong classes",
    "both": "wrong class and place",
    "duplicate": "duplicates",
    "background": "boxes on background",
    "right": "right predictions",
}
"""Choices of the gallery's images and the words for them; the errors are those of TIDE (arXiv:2008.08115)."""
WRONG = ("localisation", "classification", "both", "duplicate", "background")
FIRST_ITEMS = 4
"""Images of a gallery that are seen without a click."""


@dataclass(frozen=True)
class Number:
    """A number in a table: as it is shown, and every digit of it (`<data value>`); None is undefined, shown as n/a."""

    value: float | int | None
    shown: str = ""
    """Text that is shown, where it is not simply the value rounded to three decimals."""

    def __str__(self) -> str:
        if self.shown or self.value is None:
            return self.shown or "n/a"
        return f"{self.value:,}" if isinstance(self.value, int) else f"{self.value:.3f}"

    @classmethod
    def of_metric(cls, value: float) -> "Number":
        """A number as COCO has it, where -1 stands for undefined."""
        return cls(None if value < 0 else value)


Cell = str | Number


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Note:
    """Paragraph about something missing and how to get it, set off from the other text."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Heading:
    """Within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    texts: Sequence[str]


@dataclass(frozen=True)
class KeyNumber:
    """One of the few numbers that are seen first."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True)
class KeyNumbers:
    """Numbers in large letters."""

    kind: ClassVar[str] = "key-numbers"
    numbers: Sequence[KeyNumber]


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first cell of a row is its heading. Long ones scroll, and a column can be sorted by."""

    kind: ClassVar[str] = "table"
    name: str
    """Name of the table in the page's HTML, for programs; another one for each table of a page."""
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False


@dataclass(frozen=True)
class Code:
    """Text in letters of one width."""

    kind: ClassVar[str] = "code"
    caption: str
    text: str


@dataclass(frozen=True)
class Plot:
    """A figure, as SVG in the page and as `plots/NAME.png` beside it; those that follow each other share a grid."""

    kind: ClassVar[str] = "plot"
    name: str
    figure: Figure
    caption: str = ""
    shows_images: bool = False
    """Its images take part in the page's limit, and its PNG goes to `plots/photos/`, which `push` leaves out."""


@dataclass(frozen=True)
class Picture:
    """An image, which may have something drawn in; those that follow each other share a grid."""

    kind: ClassVar[str] = "picture"
    image: Image.Image
    caption: str


@dataclass(frozen=True)
class Collapsible:
    """Blocks that are opened by a click."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence["Block"]
    is_open: bool = False


@dataclass(frozen=True)
class BoxMark:
    """A box of the gallery.

    Attributes:
        left: of the image's width, in percent; `top`, `width` and `height` likewise.
        name: of the class.
        outcome: `right`, a kind of error, or `ignored`, of a prediction; `object` or `crowd` of what is true.
        score: of a prediction; of an object that of the prediction which finds it, -1 where none does.
    """

    left: float
    top: float
    width: float
    height: float
    name: str
    outcome: str
    score: float

    def is_above(self, threshold: float) -> bool:
        """The prediction is kept at this threshold, or the one that finds the object is."""
        return bool(is_above(self.score, threshold))


@dataclass(frozen=True)
class GalleryItem:
    """An image of the gallery with what is true on it and what was predicted."""

    image: Image.Image
    name: str
    truth: Sequence[BoxMark]
    predictions: Sequence[BoxMark]

    def count(self, threshold: float) -> Counter[str]:
        """Predictions above the threshold by outcome, and objects that are `found` and `missed` by them."""
        counts = Counter(mark.outcome for mark in self.predictions if mark.is_above(threshold))
        objects = [mark for mark in self.truth if mark.outcome == "object"]
        counts["found"] = sum(mark.is_above(threshold) for mark in objects)
        counts["missed"] = len(objects) - counts["found"]
        counts["wrong"] = sum(number for outcome, number in counts.items() if outcome in WRONG)
        return counts

    def summary(self, threshold: float) -> str:
        """`3 found, 1 missed, 2 wrong`; the page's script words it in the same way."""
        counts = self.count(threshold)
        has_objects = counts["found"] or counts["missed"]
        truth = f"{counts['found']} found, {counts['missed']} missed" if has_objects else "no objects"
        return f"{truth}, {counts['wrong']} wrong"


@dataclass(frozen=True)
class Gallery:
    """Photos, truth and predictions side by side, with a slider for the threshold."""

    kind: ClassVar[str] = "gallery"
    items: Sequence[GalleryItem]
    threshold: float
    least_score: float
    """Predictions with no higher score are not in the page; the slider begins there."""

    @property
    def first(self) -> Sequence[GalleryItem]:
        """Items that are seen without a click."""
        return self.items[:FIRST_ITEMS]

    @property
    def more(self) -> Sequence[GalleryItem]:
        """Items behind a click."""
        return self.items[FIRST_ITEMS:]

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Outcomes that occur on an image at some threshold, by which images can be chosen, and the words for them."""
        present = {mark.outcome for card in self.items for mark in card.predictions}
        if any(mark.outcome == "object" for card in self.items for mark in card.truth):
            present.add("missed")
        return [(kind, words) for kind, words in KINDS.items() if kind in present | {"all"}]


Block = Text | Note | Heading | Bullets | KeyNumbers | Table | Code | Plot | Picture | Collapsible | Gallery


@dataclass(frozen=True)
class Section:
    """A part of the page, with an entry in its contents."""

    title: str
    anchor: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """The whole of it."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    notes: Sequence[str] = field(default=())
    """Notes on what is missing, above all sections."""

    def blocks(self) -> list[Block]:
        """All blocks in their order, those inside of folds too."""
        remaining: list[Block] = [block for section in self.sections for block in section.blocks]
        found: list[Block] = []
        while remaining:
            block = remaining.pop(0)
            found.append(block)
            if isinstance(block, Collapsible):
                remaining = [*block.blocks, *remaining]
        return found
