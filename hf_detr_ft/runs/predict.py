"""`hf-detr-ft predict RUN INPUTS`: detections in images, videos and cameras, drawn, as tables, or as a data set."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image
from tqdm.auto import tqdm

from hf_detr_ft.atomic import is_free, write_folder
from hf_detr_ft.data.find_images import find_inputs, is_camera, is_video
from hf_detr_ft.errors import DataError, RecipeError
from hf_detr_ft.formatting import pluralize, printable
from hf_detr_ft.importing import large_imports
from hf_detr_ft.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np

    from hf_detr_ft.inference.detect import ImageDetections
    from hf_detr_ft.inference.detect_files import Look, Seen
    from hf_detr_ft.inference.image_detector import Detector

Precision = Literal["auto", "fp32", "bf16"]
LEAST_TIMED = 8
"""Images from which on it pays to find out whether bf16 is faster."""
TABLES = {"json": "detections.json", "csv": "detections.csv"}
"""File of the results by the format; others are data sets."""


def predict(
    source: str,
    inputs: Sequence[str],
    threshold: float = 0.5,
    output: Path | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
    precision: Precision = "auto",
    format: str = "json",
    slice_side: int | None = None,
    track: bool = False,
    every: int = 1,
) -> int:
    """Detects objects in images, videos and what a camera sees, and writes what was found.

    As "json" or "csv", `output` gets every image with its detections drawn in (PNG for PNG, else JPEG), every video
    likewise (MP4, without sound), and a table. `detections.json` is a list in COCO's results format: `image_id` (the
    place among all images and frames, from 1), `category_id` (the data set's, where the model knows it), `bbox` (xywh
    in pixels of the upright image), `score`, of a model with a mask head `segmentation` (RLE), and beside COCO's keys
    `file_name`, of a video `frame` and `time`, and `track_id`. `detections.csv` has the same, but for masks.

    As "coco", "yolo" or "voc", `output` becomes a data set with copies of the images and with the frames, whose
    annotations are the detections: corrected, it can be trained on.

    Args:
        source: a run folder, another folder of a model, or a Hub id.
        inputs: files, folders (with all that is in them, hidden files aside) and patterns such as `photos/**/*.jpg`; or
            one camera, as its number or as `/dev/video0`, which is read until Ctrl-C.
        threshold: detections with a score above it are kept.
        output: a folder, by default `predictions`.
        batch_size: images that are in the model at once, where they have one shape; twice as many are in memory.
        overwrite: write into a folder that is not empty; files of other names stay there. A data set takes a new one.
        precision: of the backbone, the rest is in fp32; by default bf16 where that is faster, of 8 images or more. In
            fp32 boxes are those of `pipeline()`.
        format: see above.
        slice_side: pixels of the slices that each image is cut into, so that small objects are found.
        track: objects of a video keep an id over its frames.
        every: 1 for all frames of a video, 2 for each second one, …

    Returns:
        0, or 1 where an image or a video could not be read, or not to its end.

    Raises:
        RecipeError: an argument is wrong, an input matches nothing, or the output would replace something.
        CheckpointError: the model cannot be loaded.
        DataError: the output cannot be written.
    """
    check_numbers(threshold, batch_size, every)
    output = Path("predictions") if output is None else Path(os.path.expanduser(output))
    files = find_inputs(inputs, output)
    drawn = name_drawn_images(files, output)
    check_output_folder(output, drawn, overwrite, format)
    Checkpoint(source).check_exists()
    detector, look = load_look(source, files, precision, batch_size, slice_side)
    with large_imports():
        from hf_detr_ft.data.formats.write_data import WRITERS
        from hf_detr_ft.inference.write_found import build_data_set, write_table
        from hf_detr_ft.inference.write_images import keep_frames, save_drawn

    seen: dict[Path, list[Seen]] = {}
    skipped = Skipped()
    search = partial(look_at, look, files, threshold, track, every, skipped, seen)
    if format in TABLES:
        with save_drawn(output, drawn, partial(draw, names=detector.names)) as save:
            seconds = search(save)
            write_table(output / TABLES[format], seen, files, detector.names, detector.category_ids)
        written = describe_drawn(seen) + TABLES[format]
    else:
        frames: dict[tuple[Path, int], Path] = {}
        with keep_frames(output, frames) as save:
            seconds = search(save)
            split, outside = build_data_set(seen, files, frames, detector.names, detector.category_ids)
            with write_folder(output) as folder:
                WRITERS[format]({"train": split}, folder)
        written = describe_data_set(split.coco, outside)
    print(summarise_predictions(seen, files, detector.names, threshold))
    for path, taken in seconds.items():
        print(f"{path}: {pluralize(len(seen[path]), 'frame')} in {taken:.1f} s, {len(seen[path]) / taken:.1f} a second")
    print(f"{output}: {written}")
    return 1 if skipped.count else 0


def load_look(
    source: str, files: Sequence[Path], precision: Precision, batch_size: int, slice_side: int | None
) -> "tuple[Detector, Look]":
    """Loads the model once it is seen that files and slices can be read; see `predict`."""
    with large_imports():
        from hf_detr_ft.inference import image_detector
        from hf_detr_ft.inference.detect_files import Look
        from hf_detr_ft.inference.slices import check_slices
        from hf_detr_ft.inference.video import require_pyav

    check_slices(slice_side, "--slice")
    has_videos = any(map(is_video, files))
    if has_videos:
        require_pyav()
    timed = precision != "auto" or has_videos or len(files) >= LEAST_TIMED
    detector = image_detector.Detector.from_pretrained(source, precision=precision if timed else "fp32")
    return detector, Look(detector.model, detector.processor, batch_size, slice_side)


def look_at(
    look: "Look",
    files: Sequence[Path],
    threshold: float,
    track: bool,
    every: int,
    skip: "Skipped",
    seen: "dict[Path, list[Seen]]",
    save: "Callable[[Seen, Image.Image], None]",
) -> dict[Path, float]:
    """Goes through all images, then through each video, and fills `seen`; a camera until Ctrl-C.

    Returns:
        The seconds that each video took.
    """
    from hf_detr_ft.inference.detect_files import detect_files, detect_video

    seconds = {}
    images = [path for path in files if not is_video(path)]
    if images:
        for one, image in detect_files(look, images, threshold, skip):
            seen[one.path] = [one]
            save(one, image)
    for path in files:
        if is_video(path):
            start = time.perf_counter()
            try:
                for one, image in detect_video(look, path, threshold, every, track, skip):
                    seen.setdefault(path, []).append(one)
                    save(one, image)
                    seconds[path] = time.perf_counter() - start
            except KeyboardInterrupt:
                if not is_camera(path):
                    raise
    return seconds


class Skipped:
    """Prints why an image is skipped, beside the progress bar, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: DataError) -> None:
        """Takes one."""
        self.count += 1
        tqdm.write(f"skipped: {printable(error)}", file=sys.stderr)


def check_numbers(threshold: float, batch_size: int, every: int) -> None:
    """Refuses numbers without a meaning.

    Raises:
        RecipeError: names the argument.
    """
    if not 0 <= threshold <= 1:
        raise RecipeError(f"--threshold: expected a score from 0 to 1, found {threshold}.")
    if batch_size < 1:
        raise RecipeError(f"--batch-size: expected 1 or more images, found {batch_size}.")
    if every < 1:
        raise RecipeError(f"--every: expected 1 or more frames, found {every}.")


def name_drawn_images(files: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Names in `output` of the files, told apart by a number where two are equal, in any letter case."""
    drawn, taken, last = {}, set(), Counter[str]()
    for path in files:
        suffix = ".mp4" if is_video(path) else ".png" if path.suffix.lower() == ".png" else ".jpg"
        key = name = f"{path.stem}{suffix}"
        while name.casefold() in taken:
            last[key.casefold()] += 1
            name = f"{path.stem}_{last[key.casefold()] + 1}{suffix}"
        taken.add(name.casefold())
        drawn[path] = output / name
    return drawn


def check_output_folder(output: Path, drawn: dict[Path, Path], overwrite: bool, format: str) -> None:
    """Refuses to replace the inputs, and anything else unless asked to; a data set replaces nothing.

    Raises:
        RecipeError: something would be replaced.
    """
    if output.exists() and not output.is_dir():
        raise RecipeError(f"--output: expected a folder, '{output}' is a file. Name another one.")
    if format not in TABLES:
        if not is_free(output):
            raise RecipeError(f"--output: '{output}' is not empty; a data set takes a new folder. Name another one.")
        return
    inputs = {path.resolve() for path in drawn}
    for target in drawn.values():
        if target.resolve() in inputs:
            raise RecipeError(f"--output: '{target}' is an input and would be replaced. Name another folder.")
    if not overwrite and output.is_dir() and any(not path.name.startswith(".") for path in output.iterdir()):
        raise RecipeError(f"--output: '{output}' is not empty. Name another folder, or give --overwrite.")


def describe_drawn(seen: "Mapping[Path, list[Seen]]") -> str:
    """Words for what was drawn, before the name of the table."""
    counts = Counter("drawn videos" if is_video(path) else "drawn images" for path in seen)
    return "".join(f"{count} {noun}, " for noun, count in sorted(counts.items())) or "0 drawn images, "


def describe_data_set(coco: dict[str, Any], outside: int) -> str:
    """Words for a data set that was written."""
    from hf_detr_ft.data.formats.coco_json import describe

    left_out = f", {pluralize(outside, 'detection')} outside of the image left out" if outside else ""
    return f"{describe(coco)}{left_out}. Corrected, it is trained on: --data.root FOLDER"


def draw(one: "Seen", image: Image.Image, names: Sequence[str]) -> Image.Image:
    """Copy of an image with its detections drawn in."""
    from hf_detr_ft.plots.draw_boxes import draw_detections
    from hf_detr_ft.plots.draw_masks import tint_masks

    boxes, texts, labels = to_drawn(one.found, names)
    masks = one.found.masks
    tinted = tint_masks(image, None if masks is None else masks.select(slice(None, None, -1)), labels)
    return draw_detections(tinted, boxes, texts, labels)


def to_drawn(detections: "ImageDetections", names: Sequence[str]) -> "tuple[np.ndarray, list[str], np.ndarray]":
    """Boxes, texts and labels to draw: class and score at each box, the most certain on top."""
    labels, scores = detections.labels[::-1], detections.scores[::-1]
    texts = [f"{names[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    if detections.tracks is not None:
        texts = [f"#{track} {text}" for track, text in zip(detections.tracks[::-1], texts, strict=True)]
    return detections.boxes_xyxy_px[::-1], texts, labels


def summarise_predictions(
    seen: "Mapping[Path, list[Seen]]", files: Sequence[Path], names: Sequence[str], threshold: float
) -> str:
    """Counts of images, of videos' frames and of detections per class, for the terminal."""
    every = [one for frames in seen.values() for one in frames]
    counts = Counter(int(label) for one in every for label in one.found.labels)
    with_none = sum(not len(one.found) for one in every)
    asked = Counter(is_video(path) for path in files)
    read = Counter(is_video(path) for path in seen)
    kinds = [f"{read[False]} of {asked[False]} images"] if asked[False] else []
    kinds += [f"{read[True]} of {asked[True]} videos"] if asked[True] else []
    nouns = "images and frames" if len(kinds) == 2 else "frames" if asked[True] else "images"
    lines = [
        f"{' and '.join(kinds)}, {counts.total()} detections with a score above {threshold:g}, "
        f"{with_none} {nouns} without any"
    ]
    shown = {label: printable(names[label]) for label in sorted(counts)}
    width = max(map(len, shown.values()), default=0)
    lines += [f"  {shown[label]:<{width}}  {count}" for label, count in sorted(counts.items())]
    if every and not counts:
        lines.append(f"The highest score was {max(one.highest for one in every):.3f}; a lower --threshold shows more.")
    return "\n".join(lines)
