"""Detections of many images, files and frames of videos: read ahead of the model, in batches of like shape."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_detr_ft.data.image_size import ImageProcessor, white_level_of
from hf_detr_ft.data.images import decode_rgb, upright_size
from hf_detr_ft.errors import DataError
from hf_detr_ft.inference.detect import ImageDetections, detect_prepared, prepare
from hf_detr_ft.inference.slices import detect_slices
from hf_detr_ft.inference.tracking import Tracker
from hf_detr_ft.inference.video import Video
from hf_detr_ft.machine import count_cores

Source = TypeVar("Source")
Read = TypeVar("Read")


class Look(NamedTuple):
    """A model and the way in which it looks at images."""

    model: PreTrainedModel
    """Used in evaluation mode, where it is."""
    processor: ImageProcessor
    """The model's own."""
    batch_size: int
    """Images that are in the model at once, where they have one shape; twice as many are in memory."""
    slice_side: int | None = None
    """Pixels of the slices that each image is cut into, see `detect_slices`; one image is in memory then."""


class Seen(NamedTuple):
    """An image, or a frame of a video, and what was found in it."""

    path: Path
    size: tuple[int, int]
    """(height, width) in pixels, upright."""
    found: ImageDetections
    """Detections above the threshold, best first."""
    highest: float
    """Highest score of all."""
    frame: int | None = None
    """Number of the frame, from 0; None of an image."""
    time: float | None = None
    """Seconds from the first frame on."""


def detect_ahead(
    look: Look,
    sources: Iterable[Source],
    open_image: Callable[[Source], Image.Image],
    on_skip: Callable[[DataError], None] | None = None,
    name: Callable[[Source], str] = str,
) -> Iterator[tuple[Source, Image.Image, ImageDetections]]:
    """Detections of whatever images can be opened, in their order, with the images.

    Args:
        look: model and batches.
        sources: are taken from as they are needed.
        open_image: gives the upright RGB image of one of them, on any thread.
        on_skip: takes the error of an image that cannot be read, which is left out; by default it is raised.
        name: what messages call one of them.
    """

    def read(source: Source) -> tuple[Source, Image.Image, torch.Tensor | None]:
        image = open_image(source)
        return source, image, None if look.slice_side else prepare(image, look.processor, name(source))

    for batch in read_ahead(sources, read, 1 if look.slice_side else look.batch_size):
        opened = []
        for future in batch:
            try:
                opened.append(future.result())
            except DataError as error:
                if on_skip is None:
                    raise
                on_skip(error)
        sizes = [(image.height, image.width) for _, image, _ in opened]
        if look.slice_side:
            settings = look.slice_side, look.batch_size
            found = [
                detect_slices(look.model, look.processor, image, *settings, name(source)) for source, image, _ in opened
            ]
        else:
            found = detect_prepared(look.model, [values for _, _, values in opened if values is not None], sizes)
        yield from ((source, image, one) for (source, image, _), one in zip(opened, found, strict=True))


def detect_files(
    look: Look, files: Sequence[Path], threshold: float, on_skip: Callable[[DataError], None]
) -> Iterator[tuple[Seen, Image.Image]]:
    """Findings in image files, with their images, and not in their order.

    Args:
        look: model and batches.
        files: images in any format that Pillow reads.
        threshold: of the detections that are kept.
        on_skip: takes the error of an image that cannot be read, which is left out.
    """
    with tqdm(total=len(files), unit="image", desc="detecting") as progress:

        def skip(error: DataError) -> None:
            progress.update()
            on_skip(error)

        readable = sort_by_shape(files, skip)
        open_image = partial(decode_rgb, white_level=white_level_of(look.processor))
        for path, image, found in detect_ahead(look, readable, open_image, skip):
            progress.update()
            highest = float(found.scores.max(initial=0))
            yield Seen(path, (image.height, image.width), found.above(threshold), highest), image


def detect_video(
    look: Look, path: Path, threshold: float, every: int, track: bool, on_skip: Callable[[DataError], None]
) -> Iterator[tuple[Seen, Image.Image]]:
    """Findings in the frames of a video or a camera, in their order, with their images.

    Args:
        look: model and batches.
        path: of the video or the camera.
        threshold: of the detections that are kept.
        every: 1 for all frames, 2 for each second one, …
        track: detections get the ids of their objects, see `Tracker`.
        on_skip: takes the error of a video that cannot be read, or not to its end.
    """
    try:
        with Video(path, every) as video, tqdm(total=video.length, unit="frame", desc=path.name) as progress:
            tracker = Tracker(threshold, patience=round(video.rate / every)) if track else None
            for frame, image, found in detect_ahead(look, video.frames(), video.to_image):
                progress.update()
                kept = found.above(threshold) if tracker is None else tracker.update(found)
                highest = float(found.scores.max(initial=0))
                yield Seen(path, (image.height, image.width), kept, highest, frame.number, frame.time), image
            if video.fault:
                on_skip(DataError(video.fault))
    except DataError as error:
        on_skip(error)


def read_ahead(
    images: Iterable[Source], read: Callable[[Source], Read], batch_size: int
) -> Iterator[list[Future[Read]]]:
    """Batches of images, read on all cores while the model has the batch before.

    Args:
        images: files, or whatever can be read.
        read: makes of one of them what a batch needs.
        batch_size: images of a batch.
    """
    left = iter(images)
    with ThreadPoolExecutor(count_cores()) as pool:
        ahead = [pool.submit(read, image) for image in islice(left, batch_size)]
        while ahead:
            following = [pool.submit(read, image) for image in islice(left, batch_size)]
            yield ahead
            ahead = following


def sort_by_shape(files: Sequence[Path], on_skip: Callable[[DataError], None]) -> list[Path]:
    """Readable files from tall to wide, so that neighbours go through the model together."""
    shapes = {}
    for path in files:
        try:
            height, width = upright_size(path)
        except DataError as error:
            on_skip(error)
        else:
            shapes[path] = (width / height, height)
    return sorted(shapes, key=lambda path: shapes[path])
