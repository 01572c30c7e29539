"""The section Attention: where the model looks, on some validation photos."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from hf_detr_ft.attention.attention_plots import plot_cross_attention, plot_places, plot_self_attention
from hf_detr_ft.attention.image_attention import ImageAttention
from hf_detr_ft.report.blocks import Block, Heading, Plot, Section, Text


@dataclass(frozen=True, eq=False)
class Look:
    """A photo and the model's attention over it."""

    name: str
    image: Image.Image
    attention: ImageAttention


def describe_attention(looks: Sequence[Look], names: Sequence[str]) -> Section:
    """The photo, then a map for each detection, then one for each point.

    Args:
        looks: at least one.
        names: of the classes, by label.
    """
    blocks: list[Block] = [
        Text(
            "The decoder's attention: from where on the photo a detection is read, the mean over all heads of the last "
            "layer. The encoder's: what belongs together with a point. Maps are as coarse as the model's feature map."
        )
    ]
    for number, look in enumerate(looks, start=1):
        attention = look.attention
        plots = [Plot(f"places-{number}", plot_places(look.image, attention), look.name, shows_photos=True)]
        for index in range(len(attention)):
            figure = plot_cross_attention(look.image, attention, index, names)
            plots.append(Plot(f"decoder-attention-{number}-{index + 1}", figure, shows_photos=True))
        for index in range(len(attention.points_xy_px)):
            figure = plot_self_attention(look.image, attention, index, names)
            plots.append(Plot(f"encoder-attention-{number}-{index + 1}", figure, shows_photos=True))
        blocks += [Heading(look.name), *plots]
    return Section("Attention", "attention", blocks)
