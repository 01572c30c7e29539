"""`hf-detr-ft predict RUN IMAGES`: drawn images and a COCO results JSON."""

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image
from tqdm.auto import tqdm

from hf_detr_ft.atomic import explain_refusal, write_text
from hf_detr_ft.data.find_images import find_images
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.formatting import printable
from hf_detr_ft.importing import large_imports
from hf_detr_ft.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np

    from hf_detr_ft.inference.detect import ImageDetections

DETECTIONS_JSON = "detections.json"
"""File of the results, a line for each detection."""
LEAST_TIMED = 8
"""Images from which on it pays to find out whether bf16 is faster."""
LONGEST_JPEG_SIDE = 65500
"""Pixels of the longest side that JPEG can hold."""


def predict(
    source: str,
    inputs: Sequence[str],
    threshold: float = 0.5,
    output: Path | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
) -> int:
    """Detects objects in images and writes what was found.

    `output` gets every image with its detections drawn in (PNG for PNG, else JPEG) and `detections.json`, a list in
    COCO's results format: `image_id` (the image's place among all inputs, from 1), `category_id` (the data set's, where
    the model knows it), `bbox` (xywh in pixels of the upright image), `score`, of a model with a mask head
    `segmentation` (RLE), and beside COCO's keys `file_name`.

    Args:
        source: a run folder, another folder of a model, or a Hub id.
        inputs: files, folders (with all that is in them, hidden files aside) and patterns such as `photos/**/*.jpg`.
        threshold: detections with a score above it are kept.
        output: a folder, by default `predictions`.
        batch_size: images that are in the model at once, where they have one shape; twice as many are in memory.
        overwrite: write into a folder that is not empty; files of other names stay there.
        precision: of the backbone, the rest is in fp32; by default bf16 where that is faster, of 8 images or more. In
            fp32 boxes are those of `pipeline()`.

    Returns:
        0, or 1 where an image could not be read and was skipped.

    Raises:
        RecipeError: an argument is wrong, an input matches nothing, or the output would replace something.
        CheckpointError: the model cannot be loaded.
        DataError: the output cannot be written.
    """
    check_numbers(threshold, batch_size)
    output = Path("predictions") if output is None else Path(os.path.expanduser(output))
    files = find_images(inputs, output)
    drawn = name_drawn_images(files, output)
    check_output_folder(output, drawn, overwrite)
    Checkpoint(source).check_exists()
    with large_imports():
        from hf_detr_ft.inference import image_detector
        from hf_detr_ft.inference.detect_files import detect_files
        from hf_detr_ft.plots.draw_boxes import draw_detections
        from hf_detr_ft.plots.draw_masks import tint_masks

    timed = precision != "auto" or len(files) >= LEAST_TIMED
    detector = image_detector.Detector.from_pretrained(source, precision=precision if timed else "fp32")
    names = detector.names
    with explain_refusal(output):
        output.mkdir(parents=True, exist_ok=True)

    found: dict[Path, ImageDetections] = {}
    highest = 0.0
    for path, image, detections in detect_files(detector.model, detector.processor, files, batch_size, say_skipped):
        highest = max(highest, float(detections.scores.max()))
        found[path] = detections.above(threshold)
        boxes, texts, labels = to_drawn(found[path], names)
        masks = found[path].masks
        image = tint_masks(image, None if masks is None else masks.select(slice(None, None, -1)), labels)
        save_image(draw_detections(image, boxes, texts, labels), drawn[path])
    write_detections(output / DETECTIONS_JSON, files, found, detector.category_ids)
    print(summarise_predictions(list(found.values()), len(files), names, threshold, highest))
    print(f"{output}: {len(found)} drawn images, {DETECTIONS_JSON}")
    return 0 if len(found) == len(files) else 1


def check_numbers(threshold: float, batch_size: int) -> None:
    """Refuses numbers without a meaning.

    Raises:
        RecipeError: names the argument.
    """
    if not 0 <= threshold <= 1:
        raise RecipeError(f"--threshold: expected a score from 0 to 1, found {threshold}.")
    if batch_size < 1:
        raise RecipeError(f"--batch-size: expected 1 or more images, found {batch_size}.")


def name_drawn_images(files: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Names in `output` of the files, told apart by a number where two are equal, in any letter case."""
    drawn, taken, last = {}, set(), Counter[str]()
    for path in files:
        suffix = ".png" if path.suffix.lower() == ".png" else ".jpg"
        key = name = f"{path.stem}{suffix}"
        while name.casefold() in taken:
            last[key.casefold()] += 1
            name = f"{path.stem}_{last[key.casefold()] + 1}{suffix}"
        taken.add(name.casefold())
        drawn[path] = output / name
    return drawn


def check_output_folder(output: Path, drawn: dict[Path, Path], overwrite: bool) -> None:
    """Refuses to replace the inputs, and anything else unless asked to.

    Raises:
        RecipeError: something would be replaced.
    """
    if output.exists() and not output.is_dir():
        raise RecipeError(f"--output: expected a folder, '{output}' is a file. Name another one.")
    inputs = {path.resolve() for path in drawn}
    for target in drawn.values():
        if target.resolve() in inputs:
            raise RecipeError(f"--output: '{target}' is an input and would be replaced. Name another folder.")
    if not overwrite and output.is_dir() and any(not path.name.startswith(".") for path in output.iterdir()):
        raise RecipeError(f"--output: '{output}' is not empty. Name another folder, or give --overwrite.")


def say_skipped(error: DataError) -> None:
    """Prints why an image is skipped, beside the progress bar."""
    tqdm.write(f"skipped: {printable(error)}", file=sys.stderr)


def to_drawn(detections: "ImageDetections", names: Sequence[str]) -> "tuple[np.ndarray, list[str], np.ndarray]":
    """Boxes, texts and labels to draw: class and score at each box, the most certain on top."""
    labels, scores = detections.labels[::-1], detections.scores[::-1]
    texts = [f"{names[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    return detections.boxes_xyxy_px[::-1], texts, labels


def write_detections(
    target: Path, files: Sequence[Path], found: "Mapping[Path, ImageDetections]", category_ids: Sequence[int]
) -> None:
    """Writes COCO results of those of the files that could be read, each with its place among all as its id."""
    from hf_detr_ft.inference.detect_files import to_results

    results = [
        json.dumps(result)
        for image_id, path in enumerate(files, start=1)
        if path in found
        for result in to_results(found[path], image_id, path, category_ids)
    ]
    with explain_refusal(target):
        write_text(target, "[\n" + ",\n".join(results) + "\n]\n")


def summarise_predictions(
    found: "Sequence[ImageDetections]", asked: int, names: Sequence[str], threshold: float, highest: float
) -> str:
    """Counts of images and of detections per class, for the terminal."""
    counts = Counter(int(label) for detections in found for label in detections.labels)
    with_none = sum(not len(detections) for detections in found)
    lines = [
        f"{len(found)} of {asked} images, {counts.total()} detections with a score above {threshold:g}, "
        f"{with_none} images without any"
    ]
    shown = {label: printable(names[label]) for label in sorted(counts)}
    width = max(map(len, shown.values()), default=0)
    lines += [f"  {shown[label]:<{width}}  {count}" for label, count in sorted(counts.items())]
    if found and not counts:
        lines.append(f"The highest score was {highest:.3f}; a lower --threshold shows more.")
    return "\n".join(lines)


def save_image(image: Image.Image, path: Path) -> None:
    """Writes beside, then renames. An image too long for JPEG becomes a PNG."""
    if path.suffix == ".jpg" and max(image.size) > LONGEST_JPEG_SIDE:
        path = path.with_name(f"{path.name}.png")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with explain_refusal(path):
        try:
            image.save(beside, format="PNG" if path.suffix == ".png" else "JPEG", quality=95)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
