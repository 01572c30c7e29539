"""Checks of the image files: there, whole, inside their folder, and of the size that the annotations state."""

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from hf_detr_ft.data.checks.annotation_fields import Entry
from hf_detr_ft.data.checks.near_duplicates import CELLS, make_thumbnail
from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.coco import leaves_folder
from hf_detr_ft.data.file_names import ImageNames, describe_difference
from hf_detr_ft.data.formats.other_json import FETCH_REMEDY
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.data.images import QUARTER_TURNS, read_orientation
from hf_detr_ft.formatting import join_limited
from hf_detr_ft.plain_files import open_file

FEW_BITS = 2**14 - 1
"""Largest value of cameras of 14 bits; with 16 bits and no brighter pixel, images are a quarter as bright at most."""
AT_ONCE = 16
"""Images that a thread reads before it hands over their headers: to hand over takes nearly as long as to read one."""
NEARLY_BLACK = 0.06
"""Share of white that is hardly told from black."""

SWAP_SIZES = "swap width and height"
"""Remedy for sizes of images that are another way round."""

Progress = Callable[[Iterable[Any]], Iterable[Any]]
"""Wraps a list that is worked through, as `tqdm` does; `iter` shows nothing."""


class ImageHeader(NamedTuple):
    """Size and orientation of an image file; sizes are (width, height) as COCO and PIL write them."""

    stored: tuple[int, int]
    orientation: int
    largest: int | None = None
    """Largest value of a pixel; None where it was not decoded, or its values say nothing of its brightness."""
    bits: int = 8
    """8, or 16 of whole numbers of more bits."""
    thumbnail: np.ndarray | None = None
    """Grid of `make_thumbnail`, where the image was decoded."""

    @property
    def upright(self) -> tuple[int, int]:
        """The size after the rotation that the EXIF tag asks for."""
        return self.stored[::-1] if self.orientation in QUARTER_TURNS else self.stored


def read_image(path: Path, decode: bool = True) -> ImageHeader | str:
    """Decodes an image to its last byte, to find truncated ones, or only its header; a text says why it cannot be."""
    try:
        source: IO[bytes] = open_file(path)
        if decode:
            with source:
                source = io.BytesIO(source.read())
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
                image.draft("L", (2 * CELLS, 2 * CELLS))
                image.load()
                largest, thumbnail = _largest_value(image), make_thumbnail(image, header.orientation)
                return header._replace(largest=largest, thumbnail=thumbnail)
            image.load()
            largest = _largest_value(image)
            bits = 16 if image.mode[0] == "I" and largest is not None and largest > 255 else 8
            thumbnail = make_thumbnail(image, header.orientation)
            return header._replace(stored=image.size, largest=largest, bits=bits, thumbnail=thumbnail)
    except Image.DecompressionBombError:
        return "found one of so many pixels that it may be meant to fill the memory; cut it into tiles, or shrink it"
    except UnidentifiedImageError:
        return f"found {path.stat().st_size} bytes in no image format that Pillow knows"
    except Exception as error:  # Decoders meet broken files with errors of nearly every type; each becomes a Problem.
        return f"found one that cannot be decoded: {error or type(error).__name__}"


def _largest_value(image: Image.Image) -> int | None:
    """Largest value of a decoded image, transparency aside; None of modes whose numbers are no brightness."""
    if image.mode[0] == "I":
        return int(np.asarray(image).max())
    if image.mode not in ("1", "L", "LA", "RGB", "RGBA"):
        return None
    return max(int(np.asarray(image.getchannel(band)).max()) for band in image.getbands() if band != "A")


def check_images(
    images: list[Entry],
    file: str,
    images_dir: Path,
    progress: Progress,
    decode: bool = True,
    white_level: int | None = None,
    thumbnails: dict[int, np.ndarray] | None = None,
) -> list[Problem]:
    """Reads every image once, on all cores, and compares it with its entry; `thumbnails` gets those of `ImageHeader`.

    They are under the place of the entry.
    """
    named = [image for image in images if "file_name" in image.fields]
    outside = [image for image in named if leaves_folder(image.fields["file_name"])]
    try:
        os.listdir(images_dir)
    except OSError as error:
        message = f"expected the folder of the {len(named)} images, cannot read it: {error.strerror}"
        folder = Problem("error", "images-folder", str(images_dir), "the folder", message, "check the path")
        return [*(_outside(image, file, images_dir) for image in outside), folder]
    inside = [image for image in named if not leaves_folder(image.fields["file_name"])]
    problems: list[Problem] = []
    missing: list[tuple[int, Entry]] = []
    decoded: list[tuple[Entry, ImageHeader]] = []
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        work = [(image, images_dir / image.fields["file_name"]) for image in inside]
        pieces = (work[start : start + AT_ONCE] for start in range(0, len(work), AT_ONCE))
        headers = chain.from_iterable(pool.map(lambda piece: [read_image(path, decode) for _, path in piece], pieces))
        for (image, path), header in zip(progress(work), headers, strict=True):
            if header == "missing":
                missing.append((len(problems), image))
            else:
                problems.extend(_check_header(image, path, header, file))
                if isinstance(header, ImageHeader):
                    if thumbnails is not None and header.thumbnail is not None:
                        thumbnails[image.place] = header.thumbnail
                    decoded.append((image, header._replace(thumbnail=None)))
    finally:
        # So that Ctrl-C does not wait for the images that are left.
        pool.shutdown(cancel_futures=True)
    hints = _find_meant([*outside, *(image for _, image in missing)], named, images_dir)
    for place, image in reversed(missing):
        problems.insert(place, _missing(image, file, images_dir, hints[image.fields["file_name"]]))
    problems += [*check_orientations(decoded, file), *check_brightness(decoded, file, white_level)]
    return [*(_outside(image, file, images_dir, hints[image.fields["file_name"]]) for image in outside), *problems]


def _find_meant(lost: list[Entry], named: list[Entry], images_dir: Path) -> dict[str, str]:
    """The remedy for each name that no file has: the name that was probably meant; empty where there is none."""
    if not lost:
        return {}
    names, hints = ImageNames(images_dir), {}
    all_are_clear = names.read_all(list(dict.fromkeys(image.fields["file_name"] for image in named))) is not None
    setting = f", or set data.file_names to similar, which finds {'it' if len(lost) == 1 else f'all {len(lost)}'}"
    for file_name in {image.fields["file_name"] for image in lost}:
        found = names.find(file_name)
        hints[file_name] = ""
        if len(found) == 1:
            difference = describe_difference(file_name, found[0])
            hints[file_name] = f"write file_name {found[0]!r}, which is in {images_dir} (difference: {difference})"
            hints[file_name] += setting if all_are_clear else ""
        elif found:
            hints[file_name] = f"write the file_name of the one that is meant: {join_limited(found, 3)}"
    return hints


def _outside(image: Entry, file: str, images_dir: Path, hint: str = "") -> Problem:
    message = f"expected file_name relative to {images_dir}, found {image.fields['file_name']!r}, which leaves it"
    remedy = "write it relative, without a drive or '..'" + (f": {hint}" if hint else "")
    return Problem("error", "path-outside", file, image.name, message, remedy)


def _missing(image: Entry, file: str, images_dir: Path, hint: str) -> Problem:
    file_name = image.fields["file_name"]
    if not hint and (images_dir.parent / file_name).is_file():
        hint = f"give {images_dir.parent} as the image folder, or write file_name relative to {images_dir}"
    message = f"expected the image file {images_dir / file_name}, found none"
    remedy = hint or "put the file there, correct file_name, or remove the image and its annotations"
    return Problem("error", "missing-image", file, image.name, message, remedy)


def _check_header(image: Entry, path: Path, header: ImageHeader | str, file: str) -> list[Problem]:
    if isinstance(header, str):
        remedy = f"{FETCH_REMEDY}, or remove the image and its annotations"
        message = f"expected an image file, {header}"
        return [Problem("error", "unreadable-image", str(path), image.name, message, remedy)]
    if "width" not in image.fields or "height" not in image.fields:
        return []
    stated, upright = (image.fields["width"], image.fields["height"]), header.upright
    if stated == upright:
        return []
    found = f"found width x height {stated[0]}x{stated[1]}, expected the image's {upright[0]}x{upright[1]}"
    if stated == header.stored:
        found = (
            f"found {stated[0]}x{stated[1]}, the pixels before EXIF orientation {header.orientation} turns them to "
            f"{upright[0]}x{upright[1]}: the labels were drawn on unrotated pixels"
        )
        remedy = (
            "rotate the labels as the tag says, which data.exif does where it is stored, or strip the EXIF orientation "
            "tag from the image"
        )
        return [Problem("error", "exif-rotation", file, image.name, found, remedy)]
    if stated == upright[::-1]:
        remedy = f"{SWAP_SIZES}, after a look whether the boxes fit the upright image"
    else:
        remedy = "correct them if the boxes fit the image, else give the image that was labelled or scale the boxes"
    return [Problem("error", "image-size", file, image.name, found, remedy)]


def check_orientations(images: list[tuple[Entry, ImageHeader]], file: str) -> list[Problem]:
    """Finds photos that EXIF turns where no size in the file tells whether boxes were drawn on them before or after."""
    turned = [(image, header) for image, header in images if 2 <= header.orientation <= 8]
    if not turned or any(header.stored != header.upright for _, header in turned):  # which their sizes tell
        return []
    counts = Counter(header.orientation for _, header in turned)
    message = (
        f"expected sizes that tell whether boxes are of upright photos, found {len(turned)} that EXIF turns and that "
        f"keep their size ({', '.join(f'{count} of orientation {kind}' for kind, count in sorted(counts.items()))})"
    )
    remedy = "look whether the boxes fit the upright photo, such as in `check --report`; else set data.exif to stored"
    return [Problem("warning", "exif-orientation", file, turned[0][0].name, message, remedy, len(turned))]


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


def check_brightness(images: list[tuple[Entry, ImageHeader]], file: str, white_level: int | None) -> list[Problem]:
    """Finds images of 16 bits whose values do not go with their white, and splits that are nearly black."""
    known = [(image, header.largest, header.bits) for image, header in images if header.largest is not None]
    deep = [(image, largest) for image, largest, bits in known if bits > 8]
    top = max((largest for _, largest in deep), default=0)
    if deep and white_level is None and top <= FEW_BITS:
        bits = max(9, top.bit_length())
        message = f"expected values up to 65535 in {len(deep)} images of 16 bits, found none above {top}: nearly black"
        remedy = f"set data.white_level to {2**bits - 1}, the most that a camera of {bits} bits gives"
        return [Problem("warning", "white-level", file, "images", message, remedy)]
    beyond = [(image, largest) for image, largest in deep if white_level is not None and largest > white_level]
    if beyond:
        message = f"expected values up to data.white_level, {white_level}, found up to {top} in {len(beyond)} images"
        problem = Problem("warning", "white-level", file, "images", message, "raise it: what is above becomes white")
        return [problem]
    white = [(white_level or 65535) if bits > 8 else 255 for _, _, bits in known]
    dark = [image for (image, largest, _), most in zip(known, white, strict=True) if largest <= NEARLY_BLACK * most]
    if len(dark) <= len(known) / 2:
        return []
    message = (
        f"expected something to be seen, found {len(dark)} of {len(known)} images nearly black, without a value above "
        f"{NEARLY_BLACK:.0%} of white: {join_limited([image.name for image in dark], 3)}"
    )
    remedy = "look at them, and at how they were exported; more than 8 bits of colour lose all but the upper 8"
    return [Problem("warning", "dark-images", file, "images", message, remedy)]
