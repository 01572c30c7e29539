"""Detections of many image files: read ahead of the model, in batches of like shape."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_detr_ft.boxes import xyxy_to_xywh
from hf_detr_ft.data.image_size import ImageProcessor, white_level_of
from hf_detr_ft.data.images import decode_rgb, upright_size
from hf_detr_ft.errors import DataError
from hf_detr_ft.inference.detect import ImageDetections, detect_prepared, prepare
from hf_detr_ft.machine import count_cores

Source = TypeVar("Source")
Read = TypeVar("Read")


def detect_files(
    model: PreTrainedModel,
    processor: ImageProcessor,
    files: Sequence[Path],
    batch_size: int,
    on_skip: Callable[[DataError], None],
) -> Iterator[tuple[Path, Image.Image, ImageDetections]]:
    """Detections of image files, with their images, in batches of like shape and not in their order.

    Args:
        model: used in evaluation mode, where it is.
        processor: the model's own.
        files: images in any format that Pillow reads.
        batch_size: images that are in the model at once, where they have one shape; twice as many are in memory.
        on_skip: takes the error of an image that cannot be read, which is left out.
    """
    with tqdm(total=len(files), unit="image", desc="detecting") as progress:
        readable = sort_by_shape(files, on_skip)
        progress.update(len(files) - len(readable))
        for batch in read_ahead(readable, partial(read_file, processor=processor), batch_size):
            read = []
            for future in batch:
                try:
                    read.append(future.result())
                except DataError as error:
                    on_skip(error)
            sizes = [(image.height, image.width) for _, image, _ in read]
            detections = detect_prepared(model, [pixel_values for _, _, pixel_values in read], sizes)
            yield from ((path, image, found) for (path, image, _), found in zip(read, detections, strict=True))
            progress.update(len(batch))


def read_file(path: Path, processor: ImageProcessor) -> tuple[Path, Image.Image, torch.Tensor]:
    """A file, its image, and what the model takes.

    Raises:
        DataError: it cannot be read.
    """
    image = decode_rgb(path, white_level=white_level_of(processor))
    return path, image, prepare(image, processor, str(path))


def read_ahead(
    images: Sequence[Source], read: Callable[[Source], Read], batch_size: int
) -> Iterator[list[Future[Read]]]:
    """Batches of images, read on all cores while the model has the batch before.

    Args:
        images: files, or whatever can be read.
        read: makes of one of them what a batch needs.
        batch_size: images of a batch.
    """
    with ThreadPoolExecutor(count_cores()) as pool:
        ahead: list[Future[Read]] = []
        for start in range(0, len(images) + batch_size, batch_size):
            following = [pool.submit(read, image) for image in images[start : start + batch_size]]
            if ahead:
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


def to_results(detections: ImageDetections, image_id: int, path: Path, category_ids: Sequence[int]) -> list[dict]:
    """COCO results of one image, and its file's name."""
    masks = detections.masks
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [round(value, 2) for value in box],
            "score": round(score, 6),
            **({} if mask is None else {"segmentation": mask}),
            "file_name": path.as_posix(),
        }
        for score, label, box, mask in zip(
            detections.scores.tolist(),
            detections.labels.tolist(),
            xyxy_to_xywh(detections.boxes_xyxy_px).tolist(),
            [None] * len(detections) if masks is None else masks.as_dicts(),
            strict=True,
        )
    ]
