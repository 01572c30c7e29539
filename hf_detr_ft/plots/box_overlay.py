"""True boxes and predictions drawn into a photo, told apart by line, colour and label."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import supervision as sv
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from hf_detr_ft.plots.draw_boxes import GOLDEN_ANGLE, text_colour
from hf_detr_ft.plots.text_layout import Area, font, place_labels, shorten, text_width

LABEL = 15
"""Height of a label's letters on a photo with few boxes, in pixels."""
LONGEST_NAME = 130
"""Width of a class's name in a label, in pixels."""
PADDING = 3
INSET = 1.5
"""How far a box at or over the border is drawn inside, so that its line is seen."""
CROWDED, CROWDED_LABEL = 12, 11
"""Labels on a photo above which they are smaller, and how high their letters are then."""


@dataclass(frozen=True)
class Style:
    """How boxes of one kind look."""

    kind: str
    """The artists' `gid`."""
    colour: str
    """As hexadecimal; of predictions that are right each class has its own."""
    width: float
    """Of the line, in pixels."""
    dashes: tuple[float, float] | None = None
    """Lengths of dash and gap, in widths."""
    gap: str | None = None
    """The colour between dashes."""
    tint: float = 0.0
    """Opacity of the inside."""
    hatch: str | None = None


CROWD = Style("crowd", "#d5dae2", 1.5, (1.5, 2.5), hatch="//")
IGNORED = Style("ignored", "#b9c0cb", 2)
FOUND = Style("found", "", 4)
TRUTH = Style("truth", "#ffffff", 2, (3, 3), "#000000")
MISSED = Style("missed", "#ffb000", 3.4, (3, 1.6), "#201400", 0.16)
WRONG = Style("wrong", "#e5142d", 3, tint=0.08)


@dataclass(frozen=True, eq=False)
class ComparedPhoto:
    """A photo, its objects, and what a model found.

    Attributes:
        image: RGB, upright, at any resolution.
        size: (height, width) of the image whose pixels the boxes are in.
        name: for the caption.
        true_boxes_xyxy_px: `[T, 4]`.
        true_labels: `[T]`.
        crowd: `[T]` bool, regions to ignore.
        found: `[T]` bool, objects that a prediction took; the others, but for crowd regions, were missed.
        boxes_xyxy_px: `[D, 4]`, of the predictions; can reach over the border.
        labels: `[D]`.
        scores: `[D]`.
        outcomes: `[D]`, 1 took an object, 0 is wrong, -1 lies in a crowd region.
    """

    image: Image.Image
    size: tuple[int, int]
    name: str
    true_boxes_xyxy_px: np.ndarray
    true_labels: np.ndarray
    crowd: np.ndarray
    found: np.ndarray
    boxes_xyxy_px: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    outcomes: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """How many objects were found and missed, and how many predictions are wrong."""
        objects = ~self.crowd
        return np.array([(objects & self.found).sum(), (objects & ~self.found).sum(), (self.outcomes == 0).sum()])


@dataclass(frozen=True)
class _Box:
    """What is drawn: a box in pixels of the sheet, and the texts that its label can have, the best one first."""

    style: Style
    colour: str
    area: Area
    texts: tuple[str, ...] = ()


def found_colour(label: int) -> str:
    """The colour of a class between green and violet: amber and red say what is missed and wrong."""
    hue = 0.40 + 0.42 * ((0.1 + label * GOLDEN_ANGLE) % 1)
    saturation, value = ((0.9, 0.85), (0.45, 1.0), (1.0, 0.6))[label // 6 % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return sv.Color(red, green, blue).as_hex()


def draw_boxes(axes: Axes, photo: ComparedPhoto, size: tuple[int, int], names: Sequence[str]) -> None:
    """Draws all boxes of a photo, and as many labels as there is room for.

    Args:
        axes: whose data coordinates are pixels of the photo as it is on the sheet.
        photo: as it is compared.
        size: (height, width) of the photo on the sheet.
        names: of the classes, by label; with a single class labels show scores alone.
    """
    short_names = [shorten(name, LABEL, LONGEST_NAME) for name in names]
    boxes = _list_boxes(photo, size, short_names if len(names) > 1 else None)
    for zorder, box in enumerate(boxes, start=2):
        # Thinner where the box is small, so that its inside is seen.
        shorter = min(box.area[2] - box.area[0], box.area[3] - box.area[1])
        draw_box(axes, box.area, box.style, box.colour, min(1.0, max(0.5, shorter / 50)), zorder)
    labelled = [box for box in reversed(boxes) if box.texts]
    letters = LABEL if len(labelled) <= CROWDED else CROWDED_LABEL
    height = letters + 2 * PADDING
    sizes = [[(text_width(text, letters) + 2 * PADDING, height) for text in box.texts] for box in labelled]
    places = place_labels([box.area for box in labelled], sizes, size[1], size[0])
    for box, place in zip(labelled, places, strict=True):
        if place is not None:
            _draw_label(axes, place[1], box.texts[place[0]], box.colour, letters)


def draw_box(axes: Axes, area: Area, style: Style, colour: str, scale: float, zorder: float = 2) -> None:
    """One box; its line, of the style's width times the scale, lies on the edge."""
    x0, y0, x1, y1 = area
    if style.tint or style.hatch:
        inside = Rectangle((x0, y0), x1 - x0, y1 - y0, linewidth=0, facecolor="none", zorder=zorder, gid=style.kind)
        inside.set(facecolor=(colour, style.tint), hatch=style.hatch, edgecolor=(colour, 0.8))
        axes.add_patch(inside)
    width = scale * style.width
    line = Line2D([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=colour, linewidth=width, zorder=zorder)
    line.set(gid=style.kind, solid_joinstyle="miter", dash_joinstyle="miter", dash_capstyle="butt", clip_on=True)
    if style.dashes is None:
        line.set_path_effects([withStroke(linewidth=width + 2, foreground=(0, 0, 0, 0.55))])
    else:
        line.set(linestyle=(0, style.dashes), gapcolor=style.gap)
    axes.add_line(line)


def _list_boxes(photo: ComparedPhoto, size: tuple[int, int], names: Sequence[str] | None) -> list[_Box]:
    """From the bottom to the top: objects over predictions, which can be many, small boxes over large ones."""
    height, width = size
    factors = np.array([width / photo.size[1], height / photo.size[0]] * 2)
    limits = np.array([width, height] * 2)

    def of_kind(boxes_xyxy_px: np.ndarray, chosen: np.ndarray) -> list[tuple[int, Area]]:
        on_sheet = np.clip(boxes_xyxy_px.reshape(-1, 4) * factors, INSET, limits - INSET)
        areas = (on_sheet[:, 2] - on_sheet[:, 0]) * (on_sheet[:, 3] - on_sheet[:, 1])
        order = [index for index in np.argsort(-areas, kind="stable").tolist() if chosen[index]]
        return [(index, tuple(on_sheet[index].tolist())) for index in order]

    def predictions(style: Style, outcome: int) -> list[_Box]:
        boxes = []
        for index, area in of_kind(photo.boxes_xyxy_px, photo.outcomes == outcome):
            label, score = int(photo.labels[index]), f"{photo.scores[index]:.2f}"
            texts = (score,) if names is None else (f"{names[label]} {score}", score)
            boxes.append(_Box(style, style.colour or found_colour(label), area, texts))
        return boxes

    def objects(style: Style, chosen: np.ndarray, texts: Sequence[str] | None = None) -> list[_Box]:
        kept = of_kind(photo.true_boxes_xyxy_px, chosen)
        names_of = [() if texts is None else (texts[int(photo.true_labels[index])],) for index, _ in kept]
        return [_Box(style, style.colour, area, own) for (_, area), own in zip(kept, names_of, strict=True)]

    return [
        *objects(CROWD, photo.crowd),
        *predictions(IGNORED, -1),
        *predictions(WRONG, 0),
        *predictions(FOUND, 1),
        *objects(TRUTH, photo.found & ~photo.crowd),
        *objects(MISSED, ~photo.found & ~photo.crowd, names),
    ]


def _draw_label(axes: Axes, area: Area, text: str, colour: str, letters: float) -> None:
    x0, y0, x1, y1 = area
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, linewidth=0, facecolor=colour, zorder=1000, gid="label"))
    ink = text_colour(sv.Color.from_hex(colour)).as_hex()
    x, y = x0 + PADDING, y1 - PADDING - 0.2 * letters
    written = axes.text(x, y, text, color=ink, fontproperties=font(letters), parse_math=False, zorder=1001)
    written.set_gid("label")
