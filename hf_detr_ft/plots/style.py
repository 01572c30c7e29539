"""How figures of the report look; their ink takes the page's colour, in light and dark."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#1b1f24"
"""Text, axes and single lines; the page replaces it by its own ink."""
FAINT = "#8a9099"
"""Grids and secondary text; replaced likewise."""
PALETTE = ("#3b82c4", "#e07b39", "#2f9e6e", "#b65fb3", "#c9a227", "#d1495b", "#5b6ee1", "#7a8b2e")
"""Of series that are told apart: readable on white and on black, in this order by colour-blind people, too."""


def new_figure(width: float = 4.2, height: float = 3.0) -> tuple[Figure, Axes]:
    """A figure of one panel, in inches, on a transparent ground."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes
