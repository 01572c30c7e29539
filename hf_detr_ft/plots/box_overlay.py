"""True boxes and predictions drawn over an image on axes, told apart by line, colour and label."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import supervision as sv
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from hf_detr_ft.plots.draw_boxes import GOLDEN_ANGLE, colour_of_hue, text_colour
from hf_detr_ft.plots.text_layout import Area, font, place_labels, shorten, text_width

LABEL_LETTERS = 15
"""Height of a label's letters on an image with few boxes, in pixels."""
LONGEST_LABEL = 130
"""Width of a class's name in a label, in pixels."""
LABEL_PADDING = 3
BOX_INSET = 1.5
"""Distance from the border at which a box at or over it is drawn, so that its line is seen."""
CROWDED, CROWDED_LETTERS = 12, 11
"""Number of labels on an image above which they are smaller, and the height of their letters then."""


@dataclass(frozen=True)
class BoxStyle:
    """Look of the boxes of one kind."""

    kind: str
    """Name of the kind, and `gid` of the artists."""
    colour: str
    """Hexadecimal; empty for right predictions, where each class has its own."""
    width: float
    """Width of the line, in pixels."""
    dashes: tuple[float, float] | None = None
    """Lengths of dash and gap, in widths."""
    gap: str | None = None
    """Colour between dashes."""
    tint: float = 0.0
    """Opacity of the inside."""
    hatch: str | None = None


CROWD_STYLE = BoxStyle("crowd", "#d5dae2", 1.5, (1.5, 2.5), hatch="//")
IGNORED_STYLE = BoxStyle("ignored", "#b9c0cb", 2)
FOUND_STYLE = BoxStyle("found", "", 4)
TRUTH_STYLE = BoxStyle("truth", "#ffffff", 2, (3, 3), "#000000")
MISSED_STYLE = BoxStyle("missed", "#ffb000", 3.4, (3, 1.6), "#201400", 0.16)
WRONG_STYLE = BoxStyle("wrong", "#e5142d", 3, tint=0.08)


@dataclass(frozen=True, eq=False)
class ComparedPhoto:
    """Image, its objects, and a model's predictions.

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
        is_tp: `[D]` bool, predictions that took an object.
        ignored: `[D]` bool, predictions that do not count, in a crowd region; the others are wrong.
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
    is_tp: np.ndarray
    ignored: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Numbers of objects that were found and missed, and of wrong predictions."""
        objects = ~self.crowd
        return np.array([(objects & self.found).sum(), (objects & ~self.found).sum(), self.is_wrong.sum()])

    @property
    def is_wrong(self) -> np.ndarray:
        """Predictions that count and took no object, `[D]` bool."""
        return ~self.is_tp & ~self.ignored


@dataclass(frozen=True)
class _DrawnBox:
    """Box in pixels of the axes, and the texts that its label can have, the best one first."""

    style: BoxStyle
    colour: str
    area: Area
    texts: tuple[str, ...]


def found_colour(label: int) -> str:
    """Colour of a class between green and violet: amber and red say what is missed and wrong."""
    saturation, value = ((0.9, 0.85), (0.45, 1.0), (1.0, 0.6))[label // 6 % 3]
    return colour_of_hue(0.40 + 0.42 * ((0.1 + label * GOLDEN_ANGLE) % 1), saturation, value).as_hex()


def overlay_boxes(axes: Axes, photo: ComparedPhoto, size: tuple[int, int], names: Sequence[str]) -> None:
    """Draws all boxes of an image, and as many labels as there is room for.

    Args:
        axes: whose data coordinates are pixels of the image as it is shown.
        photo: as it is compared.
        size: (height, width) of the image as it is shown.
        names: of the classes, by label; with a single class labels show scores alone.
    """
    boxes = _list_boxes(photo, size, [shorten(name, LABEL_LETTERS, LONGEST_LABEL) for name in names])
    for zorder, box in enumerate(boxes, start=2):
        # Thinner where the box is small, so that its inside is seen.
        shorter = min(box.area[2] - box.area[0], box.area[3] - box.area[1])
        overlay_box(axes, box.area, box.style, box.colour, min(1.0, max(0.5, shorter / 50)), zorder)
    labelled = [box for box in reversed(boxes) if box.texts]
    letters = LABEL_LETTERS if len(labelled) <= CROWDED else CROWDED_LETTERS
    height = letters + 2 * LABEL_PADDING
    sizes = [[(text_width(text, letters) + 2 * LABEL_PADDING, height) for text in box.texts] for box in labelled]
    places = place_labels([box.area for box in labelled], sizes, size[1], size[0])
    for box, place in zip(labelled, places, strict=True):
        if place is not None:
            _overlay_label(axes, place[1], box.texts[place[0]], box.colour, letters)


def explain_styles(photos: Sequence[ComparedPhoto]) -> list[tuple[BoxStyle, str, str]]:
    """Styles, their colours and what they mean, for a legend; those of crowd regions only where there are some."""
    labels = {int(label) for photo in photos for label in photo.labels[photo.is_tp]}
    right = "right prediction" + (", by class" if len(labels) > 1 else "")
    meanings = {
        TRUTH_STYLE: "true box",
        FOUND_STYLE: right,
        MISSED_STYLE: "missed object",
        WRONG_STYLE: "wrong prediction",
    }
    if any(photo.crowd.any() for photo in photos):
        meanings[CROWD_STYLE] = "region that does not count"
    if any(photo.ignored.any() for photo in photos):
        meanings[IGNORED_STYLE] = "prediction in such a region"
    return [(style, style.colour or found_colour(min(labels, default=0)), text) for style, text in meanings.items()]


def overlay_box(axes: Axes, area: Area, style: BoxStyle, colour: str, scale: float = 1.0, zorder: float = 2) -> None:
    """Draws one box; its line, of the style's width times the scale, lies on the edge."""
    x0, y0, x1, y1 = area
    if style.tint or style.hatch:
        inside = Rectangle((x0, y0), x1 - x0, y1 - y0, linewidth=0, facecolor="none", zorder=zorder, gid=style.kind)
        inside.set(facecolor=(colour, style.tint), hatch=style.hatch, edgecolor=(colour, 0.8))
        axes.add_patch(inside)
    width = scale * style.width
    line = Line2D([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=colour, linewidth=width, zorder=zorder)
    line.set(gid=style.kind, solid_joinstyle="miter", dash_joinstyle="miter", dash_capstyle="butt", clip_on=True)
    if style.dashes is None:
        line.set_path_effects([withStroke(linewidth=width + 2, foreground=(0, 0, 0, 0.7))])
    else:
        line.set(linestyle=(0, style.dashes), gapcolor=style.gap)
    axes.add_line(line)


def _list_boxes(photo: ComparedPhoto, size: tuple[int, int], names: Sequence[str]) -> list[_DrawnBox]:
    """Boxes from the bottom to the top: objects over predictions, which can be many, small boxes over large ones."""
    factors = np.tile(size[::-1], 2) / np.tile(photo.size[::-1], 2)
    limits = np.tile(size[::-1], 2) - BOX_INSET
    truth = photo.true_boxes_xyxy_px, photo.true_labels, None
    predictions = photo.boxes_xyxy_px, photo.labels, photo.scores
    drawn = []
    for style, (boxes_xyxy_px, labels, scores), chosen in (
        (CROWD_STYLE, truth, photo.crowd),
        (IGNORED_STYLE, predictions, photo.ignored),
        (WRONG_STYLE, predictions, photo.is_wrong),
        (FOUND_STYLE, predictions, photo.is_tp),
        (TRUTH_STYLE, truth, photo.found & ~photo.crowd),
        (MISSED_STYLE, truth, ~photo.found & ~photo.crowd),
    ):
        areas = np.clip(boxes_xyxy_px.reshape(-1, 4) * factors, BOX_INSET, limits)
        order = np.argsort(-(areas[:, 2:] - areas[:, :2]).prod(axis=1), kind="stable")
        for index in order[chosen[order]].tolist():
            label = int(labels[index])
            name = names[label] if len(names) > 1 else ""
            texts: tuple[str, ...] = (name,) if name and style is MISSED_STYLE else ()
            if scores is not None:
                score = f"{scores[index]:.2f}"
                texts = (f"{name} {score}", score) if name else (score,)
            drawn.append(_DrawnBox(style, style.colour or found_colour(label), tuple(areas[index].tolist()), texts))
    return drawn


def _overlay_label(axes: Axes, area: Area, text: str, colour: str, letters: float) -> None:
    x0, y0, x1, y1 = area
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, linewidth=0, facecolor=colour, zorder=1000, gid="label"))
    ink = text_colour(sv.Color.from_hex(colour)).as_hex()
    x, y = x0 + LABEL_PADDING, y1 - LABEL_PADDING - 0.2 * letters
    axes.text(x, y, text, color=ink, fontproperties=font(letters), parse_math=False, zorder=1001, gid="label")
