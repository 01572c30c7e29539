"""The section Attention: the model's attention over some validation images."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from hf_detr_ft.attention.attention_plots import plot_cross_attention, plot_places, plot_self_attention
from hf_detr_ft.attention.image_attention import ImageAttention
from hf_detr_ft.report.attempt import attempt
from hf_detr_ft.report.blocks import Block, Heading, Note, Plot, Section, Text

OF_MAPS = (
    "The decoder's attention: from where on the photo a detection is read, the mean over all heads of the last layer. "
    "The encoder's: what belongs together with a point. Maps are as coarse as the model's feature map."
)
OF_POINTS = (
    "The decoder's attention: the points of the photo that a detection is read from in the last layer, those of all "
    "heads and of all feature maps. The larger and lighter a point, the more it counts."
)


@dataclass(frozen=True, eq=False)
class AttentionSample:
    """An image and the model's attention over it."""

    name: str
    image: Image.Image
    attention: ImageAttention


def describe_attention(samples: Sequence[AttentionSample], names: Sequence[str], failures: list[str]) -> Section:
    """The image, then a map for each detection, then one for each point.

    Args:
        samples: at least one.
        names: of the classes, by label.
        failures: gets a line for each sample that cannot be drawn, which the section says, too.
    """
    sampled = any(sample.attention.sampled is not None for sample in samples)
    blocks: list[Block] = [Text(OF_POINTS if sampled else OF_MAPS)]
    for number, sample in enumerate(samples, start=1):
        before = len(failures)
        with attempt(f"the model's attention over {sample.name}", failures):
            blocks += [Heading(sample.name), *_plot_sample(sample, number, names)]
        blocks += [Note(failure) for failure in failures[before:]]
    return Section("Attention", "attention", blocks)


def _plot_sample(sample: AttentionSample, number: int, names: Sequence[str]) -> list[Plot]:
    attention = sample.attention
    plots = [Plot(f"places-{number}", plot_places(sample.image, attention), sample.name, shows_images=True)]
    for index in range(len(attention)):
        figure = plot_cross_attention(sample.image, attention, index, names)
        plots.append(Plot(f"decoder-attention-{number}-{index + 1}", figure, shows_images=True))
    for index in range(len(attention.points_xy_px)):
        figure = plot_self_attention(sample.image, attention, index, names)
        plots.append(Plot(f"encoder-attention-{number}-{index + 1}", figure, shows_images=True))
    return plots
