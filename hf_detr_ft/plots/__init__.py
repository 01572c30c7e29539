"""Figures for notebooks and for the report: functions take data and return a matplotlib Figure or a PIL image.

None of them reads or writes files, and none touches pyplot. docs/plots.md shows each in use.
"""

from hf_detr_ft.plots.compared_boxes import ComparedPhoto
from hf_detr_ft.plots.comparison import plot_comparison
from hf_detr_ft.plots.detections import draw_detections
from hf_detr_ft.plots.training import (
    plot_average_precision,
    plot_gradient_norm,
    plot_layers,
    plot_learning_rates,
    plot_losses,
)

__all__ = [
    "ComparedPhoto",
    "draw_detections",
    "plot_average_precision",
    "plot_comparison",
    "plot_gradient_norm",
    "plot_layers",
    "plot_learning_rates",
    "plot_losses",
]
