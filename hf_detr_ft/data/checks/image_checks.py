"""Checks of the image files: there, whole, inside their folder, and of the size that the annotations state."""

import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from hf_detr_ft.data.checks.annotation_fields import Entry, Problem
from hf_detr_ft.data.coco import FETCH_REMEDY, image_path, leaves_folder
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.images import QUARTER_TURNS, read_orientation

Progress = Callable[[Iterable[Any]], Iterable[Any]]
"""Wraps a list that is worked through, as `tqdm` does; `iter` shows nothing."""


class ImageHeader(NamedTuple):
    """Size and orientation of an image file; sizes are (width, height) as COCO and PIL write them."""

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """The size after the rotation that the EXIF tag asks for."""
        return self.stored[::-1] if self.orientation in QUARTER_TURNS else self.stored


def read_image(path: Path, decode: bool = True) -> ImageHeader | str:
    """Decodes an image to its last byte, to find truncated ones, or only its header; a text says why it cannot be."""
    try:
        data = path.read_bytes() if decode else b""
        source = io.BytesIO(data) if decode else path.open("rb")
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError) as error:
        return f"found one that cannot be opened: {error}"
    try:
        with source, Image.open(source) as image:
            header = ImageHeader(image.size, read_orientation(image))
            if not decode:
                return header
            if image.format == "JPEG":
                # Reads every byte as a full decode does, at a third of the time.
                image.draft("L", (1, 1))
                image.load()
                return header
            image.load()
            return header._replace(stored=image.size)
    except UnidentifiedImageError:
        return f"found {path.stat().st_size} bytes in no image format that Pillow knows"
    except Exception as error:  # Decoders meet broken files with errors of nearly every type; each becomes a Problem.
        return f"found one that cannot be decoded: {error or type(error).__name__}"


def check_images(
    images: list[Entry], file: str, images_dir: Path, progress: Progress, decode: bool = True
) -> list[Problem]:
    """Reads every image once, on all cores, and compares it with its entry."""
    named = [image for image in images if "file_name" in image.fields]
    outside = [image for image in named if leaves_folder(image.fields["file_name"])]
    problems = [_outside(image, file, images_dir) for image in outside]
    try:
        in_lower_case = {name.lower(): name for name in os.listdir(images_dir)}
    except OSError as error:
        message = f"expected the folder of the {len(named)} images, cannot read it: {error.strerror}"
        return [*problems, Problem("error", "images-folder", str(images_dir), "the folder", message, "check the path")]
    inside = [image for image in named if not leaves_folder(image.fields["file_name"])]
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        paths = [image_path(images_dir, image.fields["file_name"]) for image in inside]
        work = [(image, path, pool.submit(read_image, path, decode)) for image, path in zip(inside, paths, strict=True)]
        for image, path, photo in progress(work):
            if photo.result() == "missing":
                problems.append(_missing(image, path, file, images_dir, in_lower_case))
            else:
                problems.extend(_check_photo(image, path, photo.result(), file))
    finally:
        # So that Ctrl-C does not wait for the images that are left.
        pool.shutdown(cancel_futures=True)
    return problems


def check_image_shapes(images: list[Entry], file: str, size: ImageSize) -> list[Problem]:
    """Finds images so thin that nothing of their short side is left when they are resized, by the sizes stated."""
    problems = []
    for image in images:
        width, height = image.fields.get("width"), image.fields.get("height")
        if width is not None and height is not None and size.is_too_thin(height, width):
            message = (
                "expected an image that keeps a short side when the long one is resized to "
                f"{size.longest_edge} pixels, found {width} x {height} pixels"
            )
            remedy = "cut it up, leave it out, or raise model.longest_edge"
            problems.append(Problem("error", "thin-image", file, image.name, message, remedy))
    return problems


def _outside(image: Entry, file: str, images_dir: Path) -> Problem:
    message = f"expected file_name relative to {images_dir}, found {image.fields['file_name']!r}, which leaves it"
    return Problem("error", "path-outside", file, image.name, message, "write it relative, without a drive or '..'")


def _check_photo(image: Entry, path: Path, photo: ImageHeader | str, file: str) -> list[Problem]:
    if isinstance(photo, str):
        remedy = f"{FETCH_REMEDY}, or remove the image and its annotations"
        return [Problem("error", "unreadable-image", str(path), image.name, f"expected an image file, {photo}", remedy)]
    if "width" not in image.fields or "height" not in image.fields:
        return []
    stated = (image.fields["width"], image.fields["height"])
    if stated == photo.upright:
        return []
    found = f"found width x height {stated[0]}x{stated[1]}, expected the image's {photo.upright[0]}x{photo.upright[1]}"
    if stated == photo.stored:
        found = (
            f"found {stated[0]}x{stated[1]}, the pixels before EXIF orientation {photo.orientation} turns them to "
            f"{photo.upright[0]}x{photo.upright[1]}: the labels were drawn on unrotated pixels"
        )
        remedy = "rotate the labels as the tag says, or strip the EXIF orientation tag from the image"
        return [Problem("error", "exif-rotation", file, image.name, found, remedy)]
    if stated == photo.upright[::-1]:
        remedy = "swap width and height, after a look whether the boxes fit the upright image"
    else:
        remedy = "correct them if the boxes fit the image, else give the image that was labelled or scale the boxes"
    return [Problem("error", "image-size", file, image.name, found, remedy)]


def _missing(image: Entry, path: Path, file: str, images_dir: Path, in_lower_case: dict[str, str]) -> Problem:
    """Names the file that was probably meant: under its bare name, in other letter case, or one folder up."""
    file_name = image.fields["file_name"]
    bare = file_name.replace("\\", "/").rsplit("/", 1)[-1]
    meant = in_lower_case.get(bare.lower())
    if meant is not None:
        remedy = f"write file_name {meant!r}, which is in {images_dir}: folder, or upper and lower case, differ"
    elif (images_dir.parent / file_name).is_file():
        remedy = f"give {images_dir.parent} as the image folder, or write file_name relative to {images_dir}"
    else:
        remedy = "put the file there, correct file_name, or remove the image and its annotations"
    return Problem("error", "missing-image", file, image.name, f"expected the image file {path}, found none", remedy)
