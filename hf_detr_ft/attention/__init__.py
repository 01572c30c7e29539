"""Attention of a DETR over an image, and figures of it."""

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
