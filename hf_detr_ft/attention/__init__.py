"""Where a DETR looks: its attention weights over an image, and figures of them."""

from hf_detr_ft.attention.attention_plots import (
    plot_attention,
    plot_cross_attention,
    plot_places,
    plot_self_attention,
)
from hf_detr_ft.attention.image_attention import ImageAttention, attend

__all__ = [
    "ImageAttention",
    "attend",
    "plot_attention",
    "plot_cross_attention",
    "plot_places",
    "plot_self_attention",
]
