"""Panels of attention figures: a map over an image, an image with its places, and what the colours mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image, ImageOps
from scipy.interpolate import PchipInterpolator

from hf_detr_ft.attention.image_attention import ImageAttention, share_in_box
from hf_detr_ft.plots.box_overlay import BoxStyle, overlay_box
from hf_detr_ft.plots.style import FAINT, INK, PALETTE, add_image_axes, shrink
from hf_detr_ft.plots.text_layout import readable, shorten, writable_names

MAP_COLOURS = colormaps["inferno"]
"""Colours of a map: perceptually uniform, from black, where the dark image is seen, to light yellow."""
DIM, COVER = 0.6, 0.9
"""Brightness of the image below a map, relative to its own, and opacity of the map where it is largest."""
PANEL_SIDE = 400
"""Longer side of an image in a panel, in pixels."""
PANEL_WIDTH, HIGHEST = 4.2, 4.2
"""Width of a figure of one panel, and height of its image, in inches."""
PANEL_TITLE, SCALE = 0.44, 0.4
"""Heights of a panel's title, above the image, and of a scale, in inches."""
PANEL_LETTERS = 9.5
"""Height of letters, in points."""
POINTS = 68
"""Points of text in an inch: letters are up to 5% wider at one resolution than at another."""
SMALL = 28
"""Sides of a box, in points, below which its number goes above it: inside there is room for the point only."""
LEAST_COLOUR = 0.25
"""Place among the colours of a sampled point without weight; the darkest ones are not seen on the image."""
SMALLEST_POINT, LARGEST_POINT = 3, 40
"""Areas of sampled points, in points²: of one without weight, and what the largest weight adds."""
BOX = BoxStyle("box", "white", 1.6)
STROKE = [withStroke(linewidth=3.4, foreground="black")]
"""Ground of marks and letters in an image, which are seen on each colour of a map."""


def blend(image: Image.Image, weights: np.ndarray, side: int = PANEL_SIDE) -> np.ndarray:
    """Map over an image, `[height, width, 3]` uint8.

    Args:
        image: RGB, at any resolution.
        weights: `[h, w]`, not negative; covers the image evenly. Zeros alone leave the dark image.
        side: the longer side of the result, in pixels.
    """
    small = shrink(image, side)
    grey = np.asarray(ImageOps.grayscale(small), dtype=np.float32)[..., None] * (DIM / 255)
    values = _upsample(weights / (weights.max() or 1), (small.height, small.width))
    opacity = COVER * np.sqrt(values)[..., None]
    return _shown((grey * (1 - opacity) + MAP_COLOURS(values)[..., :3] * opacity) * 255)


def _upsample(weights: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Smooth map with each cell's own weight in its middle, and nowhere more or less than in the cells around.

    Unlike bicubic interpolation, whose ringing beside a peak would be seen as attention.
    """
    for axis, side in enumerate(size):
        cells = weights.shape[axis]
        places = np.clip((np.arange(side) + 0.5) * (cells / side) - 0.5, 0, cells - 1)
        weights = (
            PchipInterpolator(np.arange(cells), weights, axis)(places) if cells > 1 else weights.repeat(side, axis)
        )
    return weights


def _shown(colours: np.ndarray) -> np.ndarray:
    """Colours as uint8 without the two lowest bits, which nobody sees: a PNG of them has a third less bytes."""
    return np.rint(colours).astype(np.uint8) & 0b11111100


def image_size_in(attention: ImageAttention, width: float) -> tuple[float, float]:
    """Width and height of the image in a panel of this width, in inches."""
    scale = min(width / attention.size[1], HIGHEST / attention.size[0])
    return attention.size[1] * scale, attention.size[0] * scale


def add_panel(figure: Figure, attention: ImageAttention, left: float, top: float, width: float) -> Axes:
    """Adds axes for an image in the middle of a panel, below its title; in inches from the figure's top left corner."""
    across, down = image_size_in(attention, width)
    return add_image_axes(figure, left + (width - across) / 2, top + PANEL_TITLE, across, down, attention.size)


def draw_places(axes: Axes, image: Image.Image, attention: ImageAttention) -> None:
    """Draws the image as it is, with numbered boxes and points."""
    _show(axes, _shown(np.asarray(shrink(image, PANEL_SIDE))))
    points = 72 / axes.figure.dpi * axes.bbox.height / attention.size[0]
    for index, box_xyxy_px in enumerate(attention.boxes_xyxy_px):
        x0, y0, x1, y1 = _draw_box(axes, box_xyxy_px, attention.size, PALETTE[index % len(PALETTE)])
        outside = min(x1 - x0, y1 - y0) * points < SMALL < y0 * points
        offset, side = ((0, 3), "bottom") if outside else ((3, -3), "top")
        _letter(axes, str(index + 1), (x0, y0), offset, va=side, weight="bold")
    for index, (x, y) in enumerate(attention.points_xy_px):
        _draw_mark(axes, x, y)
        offset, align = ((-6, 0), "right") if x > 0.85 * attention.size[1] else ((6, 0), "left")
        _letter(axes, f"p{index + 1}", (x, y), offset, va="center", ha=align)
    axes.set_title(
        "Detections and points" if len(attention.points_xy_px) else "Detections",
        y=1.0,
        fontsize=PANEL_LETTERS,
        color=INK,
    )


def draw_detection(
    axes: Axes,
    image: Image.Image,
    attention: ImageAttention,
    index: int,
    names: Sequence[str],
    layer: int = -1,
    head: int | None = None,
    width: float = PANEL_WIDTH,
) -> None:
    """Draws the map of a detection's query over the image; the title, of at most so many inches, says what it is."""
    box_xyxy_px = attention.boxes_xyxy_px[index]
    if attention.sampled is None:
        _show(axes, blend(image, attention.cross_map(index, layer, head)))
    else:
        _show(axes, blend(image, np.zeros((1, 1))))
        _draw_samples(axes, *attention.sampled.of(index, layer, head))
    _draw_box(axes, box_xyxy_px, attention.size)
    layers = len(attention.cross)
    first = [f"{index + 1}: {_name_detection(attention, index, names)}"]
    if attention.scores[index] <= attention.threshold:
        first.append(f"not above {attention.threshold:g}")
    if layer not in (-1, layers - 1):
        first.append(f"layer {layer % layers + 1} of {layers}")
    if head is not None:
        first.append(f"head {head + 1}")
    share = attention.share_in_own_box(index, layer, head)
    _write_title(axes, ", ".join(first), _tell_share(share, box_xyxy_px, attention.size), width)


def draw_point(
    axes: Axes,
    image: Image.Image,
    attention: ImageAttention,
    index: int,
    names: Sequence[str],
    width: float = PANEL_WIDTH,
) -> None:
    """Draws the map of a point over the image; see `draw_detection`."""
    weights, detection = attention.encoder[index], int(attention.point_of[index])
    _show(axes, blend(image, weights))
    x, y = attention.points_xy_px[index]
    if detection >= 0:
        box_xyxy_px = attention.boxes_xyxy_px[detection]
        _draw_box(axes, box_xyxy_px, attention.size)
        first = f"p{index + 1}: centre of {_name_detection(attention, detection, names)}"
        second = _tell_share(share_in_box(weights, box_xyxy_px, attention.size), box_xyxy_px, attention.size)
    else:
        corners = attention.boxes_xyxy_px.reshape(-1, 2, 2)
        inside = ((corners[:, 0] <= (x, y)) & (corners[:, 1] >= (x, y))).all(axis=1).any()
        first = f"p{index + 1}: x {x:.0f}, y {y:.0f} px"
        second = "within a box" if inside else "outside the boxes"
    _draw_mark(axes, x, y)
    _write_title(axes, first, second, width)


def draw_scale(figure: Figure, largest: float | None, part: str = "a cell") -> None:
    """Draws the colours at the bottom of the figure, with the largest weight where there is a single map.

    Args:
        figure: with room for them.
        largest: weight of a part.
        part: what has a weight.
    """
    width, height = figure.get_size_inches()
    length = PANEL_WIDTH - 0.6
    axes = figure.add_axes(((width - length) / 2 / width, (SCALE - 0.17) / height, length / width, 0.09 / height))
    axes.imshow(np.linspace(0, 1, 256)[None], MAP_COLOURS, extent=(0, 1, 0, 1), aspect="auto", interpolation="none")
    axes.set_xticks([0, 1], ["0", "largest" if largest is None else f"{largest:.1%}"])
    axes.set_yticks([])
    axes.tick_params(labelsize=PANEL_LETTERS, labelcolor=INK, length=0, pad=2)
    axes.set_xlabel(f"share of the attention in {part}", fontsize=PANEL_LETTERS, color=INK, labelpad=-9)
    for spine in axes.spines.values():
        spine.set(edgecolor=FAINT, linewidth=0.5)


def _show(axes: Axes, pixels: np.ndarray) -> None:
    # With "none" an SVG carries these very pixels.
    axes.imshow(pixels, extent=(*axes.get_xlim(), *axes.get_ylim()), interpolation="none", aspect="auto")


def _draw_box(axes: Axes, box_xyxy_px: np.ndarray, size: tuple[int, int], colour: str = BOX.colour) -> np.ndarray:
    """Returns the corners of what is within the image."""
    corners = np.clip(box_xyxy_px, 0, (*size[::-1], *size[::-1]))
    overlay_box(axes, tuple(corners.tolist()), BOX, colour)
    return corners


def _draw_samples(axes: Axes, points_xy_px: np.ndarray, weights: np.ndarray) -> None:
    """Draws points in the colour and size of their weights, the largest on top."""
    order = np.argsort(weights, kind="stable")
    values = weights[order] / (weights.max() or 1)
    colours, sizes = MAP_COLOURS(LEAST_COLOUR + (1 - LEAST_COLOUR) * values), SMALLEST_POINT + LARGEST_POINT * values
    x, y = points_xy_px[order].T
    axes.scatter(x, y, s=sizes, c=colours, edgecolors="black", linewidths=0.3, gid="sampled", clip_on=True)


def _draw_mark(axes: Axes, x: float, y: float) -> None:
    axes.plot(x, y, "+", color="white", markersize=9, markeredgewidth=1.8, path_effects=STROKE, gid="point")


def _letter(axes: Axes, text: str, xy: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """Writes into the image, so many points to the right of a place and above it."""
    axes.annotate(
        text,
        xy,
        offset,
        textcoords="offset points",
        fontsize=PANEL_LETTERS,
        color="white",
        path_effects=STROKE,
        **style,
    )


def _name_detection(attention: ImageAttention, index: int, names: Sequence[str]) -> str:
    label = int(attention.labels[index])
    return f"{writable_names(names)[label]} {attention.scores[index]:.2f}"


def _tell_share(share: float, box_xyxy_px: np.ndarray, size: tuple[int, int]) -> str:
    area = share_in_box(np.ones((1, 1)), box_xyxy_px, size)
    return f"in the box: {share:.0%} of attention, {area:.0%} of area"


def _write_title(axes: Axes, first: str, second: str, width: float) -> None:
    lines = [shorten(readable(line), PANEL_LETTERS, POINTS * width) for line in (first, second)]
    axes.set_title("\n".join(lines), y=1.0, fontsize=PANEL_LETTERS, color=INK, parse_math=False)
