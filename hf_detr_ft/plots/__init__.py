"""Figures for notebooks and for the report: functions take data and return a matplotlib Figure or a PIL image.

None of them reads or writes files, and none touches pyplot. docs/plots.md shows each in use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_detr_ft.plots.annotated_images import draw_annotations, tile_images
    from hf_detr_ft.plots.box_overlay import ComparedPhoto
    from hf_detr_ft.plots.comparison import plot_comparison
    from hf_detr_ft.plots.data_plots import (
        plot_aspect_ratios,
        plot_class_balance,
        plot_image_sizes,
        plot_object_sizes,
        plot_objects_per_image,
        plot_positions,
        plot_resized_sides,
    )
    from hf_detr_ft.plots.draw_boxes import draw_detections
    from hf_detr_ft.plots.error_plots import plot_confusion, plot_errors
    from hf_detr_ft.plots.precision_recall import (
        plot_calibration,
        plot_class_f1,
        plot_class_precision_recall,
        plot_f1,
        plot_precision_recall,
    )
    from hf_detr_ft.plots.samples import draw_sample, draw_training_sample, restore_boxes, restore_image
    from hf_detr_ft.plots.training_curves import (
        plot_average_precision,
        plot_gradient_norm,
        plot_layers,
        plot_learning_rates,
        plot_losses,
    )

__all__ = [
    "ComparedPhoto",
    "draw_annotations",
    "draw_detections",
    "draw_sample",
    "draw_training_sample",
    "plot_aspect_ratios",
    "plot_average_precision",
    "plot_calibration",
    "plot_class_balance",
    "plot_class_f1",
    "plot_class_precision_recall",
    "plot_comparison",
    "plot_confusion",
    "plot_errors",
    "plot_f1",
    "plot_gradient_norm",
    "plot_image_sizes",
    "plot_layers",
    "plot_learning_rates",
    "plot_losses",
    "plot_object_sizes",
    "plot_objects_per_image",
    "plot_positions",
    "plot_precision_recall",
    "plot_resized_sides",
    "restore_boxes",
    "restore_image",
    "tile_images",
]

MODULES = (
    "annotated_images",
    "box_overlay",
    "comparison",
    "data_plots",
    "draw_boxes",
    "error_plots",
    "precision_recall",
    "samples",
    "training_curves",
)


def __getattr__(name: str) -> Any:
    """A figure's function; its module is imported when it is first asked for, as few use all of them."""
    for module in MODULES if name in __all__ else ():
        loaded = vars(import_module(f"{__name__}.{module}"))
        if name in loaded:
            return loaded[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
