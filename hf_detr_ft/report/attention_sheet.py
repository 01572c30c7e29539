"""`hf-detr-ft report RUN --attention IMAGE`: a model's attention over one image, as a picture."""

import os
from pathlib import Path

from matplotlib import style
from PIL import Image

from hf_detr_ft.atomic import explain_refusal, write_bytes
from hf_detr_ft.attention.attention_plots import plot_attention
from hf_detr_ft.attention.image_attention import ImageAttention, attend
from hf_detr_ft.data.image_size import white_level_of
from hf_detr_ft.data.images import decode_rgb
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.evaluation.detections import is_above
from hf_detr_ft.inference.detect import class_names, load_detector
from hf_detr_ft.plots.style import to_png
from hf_detr_ft.report.arguments import check_picture

PICTURE = Path("attention.png")
DPI = 110
"""A panel of the sheet is 341 pixels wide then: its image keeps most of its own."""


def draw_attention(
    source: str,
    image_path: str | Path,
    output: Path | None = None,
    threshold: float = 0.5,
    overwrite: bool = False,
) -> str:
    """Detects objects in an image and draws what the model attends to.

    Args:
        source: a run folder, another folder of a model, or a Hub id.
        image_path: a file.
        output: the picture, a PNG; by default `attention.png`.
        threshold: detections with a score above it are shown; without any, the query that comes closest.
        overwrite: replace the output where it is there.

    Returns:
        What was found, and where the picture lies, for the terminal.

    Raises:
        RecipeError: an argument is wrong, or the output would replace something.
        CheckpointError: the model cannot be loaded.
        DataError: the image cannot be read, or the output not be written.
    """
    if not 0 <= threshold <= 1:
        raise RecipeError(f"--threshold: expected a score from 0 to 1, found {threshold}.")
    path = Path(os.path.expanduser(image_path))
    output = PICTURE if output is None else Path(os.path.expanduser(output))
    check_picture(output, path, overwrite)
    model, processor = load_detector(source)
    image = decode_rgb(path, white_level=white_level_of(processor))
    names = class_names(model)
    attention = attend(model, processor, image, threshold=threshold, name=str(path))
    with explain_refusal(output):
        write_bytes(output, encode(image, attention, names, f"{Path(source).resolve().name}: {path.name}"))
    return f"{describe(attention, names, path)}\nwritten: {output}"


def encode(image: Image.Image, attention: ImageAttention, names: list[str], title: str) -> bytes:
    """The sheet as PNG, on white."""
    with style.context("default"):  # whatever the user's matplotlibrc says
        figure = plot_attention(image, attention, names, title)
        figure.set_dpi(DPI)
        return to_png(figure)


def describe(attention: ImageAttention, names: list[str], path: Path) -> str:
    """The detections of the sheet, a line each, or that none is above the threshold."""
    shown = "1 detection" if len(attention) == 1 else f"{len(attention)} detections"
    lines = [f"{path}: the attention of {shown} with a score above {attention.threshold:g}"]
    if not is_above(attention.scores[0], attention.threshold):
        lines = [f"{path}: no detection with a score above {attention.threshold:g}; the query that comes closest:"]
    rows = [(names[label], score) for label, score in zip(attention.labels, attention.scores, strict=True)]
    width = max(len(name) for name, _ in rows)
    for index, (name, score) in enumerate(rows):
        share = attention.share_in_own_box(index)
        lines.append(f"  {index + 1}  {name:<{width}}  {score:.2f}  {share:.0%} of the decoder's attention in its box")
    return "\n".join(lines)
