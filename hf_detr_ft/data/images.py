"""Image files of any kind to upright RGB; the only place that decodes pixels for the model."""

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import SEEK_CUR, BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose
from PIL.PngImagePlugin import PngImageFile

from hf_detr_ft.errors import DataError, first_line
from hf_detr_ft.formatting import printable
from hf_detr_ft.plain_files import open_file

try:
    from pillow_heif import register_heif_opener
except ImportError:  # the extra `heic` is not installed
    pass
else:
    register_heif_opener()

MISSING = "expected an image, found no such file. Check the path."
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""Turns that make an image of an EXIF orientation upright; 1 and unknown values need nothing."""

QUARTER_TURNS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

GO_ON = "To go on without such images: --data.on_bad_image skip"
"""Choice to offer in an error where a run reads an image."""

PNG_METADATA = (b"IHDR", b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""Chunks of a PNG that its size and its orientation are read from."""

HEIC_REMEDY = "which needs the extra heic: `pip install pillow-heif`. Convert it to JPEG otherwise."
HINTS = {
    b"version https://git-lfs": "a Git LFS pointer. Run `git lfs pull`.",
    b"<": "a web page or another XML text. Download the image itself.",
    b"ftyphe": f"a HEIC photo, {HEIC_REMEDY}",
    b"ftypmif": f"a HEIF photo, {HEIC_REMEDY}",
}
"""Beginnings of files that are often taken for images, with what they are and the remedy."""


def require_image(path: Path) -> None:
    """Makes sure that a file is there.

    Raises:
        DataError: it is not.
    """
    if not path.expanduser().exists():
        raise DataError(f"{path}: {MISSING}")


def decode_rgb(
    source: Path | bytes | BinaryIO,
    name: str | None = None,
    least_side: int | None = None,
    white_level: int | None = None,
) -> Image.Image:
    """Decodes an image as the model sees it: upright, 8-bit RGB, and without metadata that could turn it again.

    - The EXIF orientation is applied. Of several frames the first is taken.
    - What is transparent (RGBA, LA, palettes and colours marked as transparent) is laid on white, as image viewers and
      labelling tools show it.
    - CMYK and YCCK are converted by Pillow, which knows that Adobe stores them inverted.
    - 16 bits are scaled to 8 over their whole range: 65535 becomes 255. Integers of 32 bits count as 8 or 16 bits where
      all values fit in, floats as [0, 1] or [0, 255]; what fits in neither is stretched from its lowest to its highest.

    Args:
        source: a file's path, its content, or an open binary file.
        name: what errors call the image; by default its path.
        least_side: decode a JPEG at a half, a quarter or an eighth of its size, as far as no side gets shorter than
            this, in pixels; several times as fast.
        white_level: value of integers of more than 8 bits that becomes 255, and all above it.

    Raises:
        DataError: missing, empty, truncated, too large or not an image.
    """
    return _decode(source, printable(name) if name else _name(source), least_side, white_level)[0]


def decode_cell(image: Mapping[str, Any], least_side: int | None = None, white_level: int | None = None) -> Image.Image:
    """Decodes a cell of a data set's `image` column: its "bytes" where it has them, else the file at "path"."""
    return decode_cell_with_size(image, least_side, white_level)[0]


def decode_cell_with_size(
    image: Mapping[str, Any], least_side: int | None = None, white_level: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes a cell, and gives the (height, width) that the upright image has when it is decoded whole."""
    return _decode(image["bytes"] or Path(image["path"]), printable(image["path"]), least_side, white_level)


def decode_row(row: Mapping[str, Any]) -> Image.Image:
    """Decodes the image of a row of `load_split`, with its `white_level` where it has one."""
    return decode_cell(row["image"], white_level=row.get("white_level"))


def upright_size(source: Path | bytes | BinaryIO) -> tuple[int, int]:
    """Size (height, width) that `decode_rgb` will give, without decoding any pixel.

    Raises:
        DataError: missing, empty or not an image.
    """
    (height, width), orientation = read_frame(source)
    return (width, height) if orientation in QUARTER_TURNS else (height, width)


def read_frame(source: Path | bytes | BinaryIO) -> tuple[tuple[int, int], int]:
    """Size (height, width) of an image's stored pixels, and the EXIF orientation that turns them upright.

    Raises:
        DataError: missing, empty or not an image.
    """
    with _opened(source, _name(source)) as image:
        return (image.height, image.width), read_orientation(image)


def read_orientation(image: Image.Image) -> int:
    """EXIF orientation of an open image, 1 where it has none, without decoding any pixel.

    A TIFF's is 1: Pillow turns it by itself, and its size is the upright one from the beginning.
    """
    if image.format == "TIFF":
        return 1
    if not isinstance(image, PngImageFile) or image.fp is None:
        return image.getexif().get(EXIF_ORIENTATION, 1)
    with Image.open(BytesIO(_png_without_pixels(image.fp))) as metadata:
        return Image.Image.getexif(metadata).get(EXIF_ORIENTATION, 1)  # a PNG's own `getexif` would decode it


def _png_without_pixels(stream: IO[bytes]) -> bytes:
    """A PNG's size and metadata as a PNG of their own; the metadata may stand behind the pixels, which are skipped.

    Of an animation, it ends where the second frame begins, as Pillow's decoding of the first one does.
    """
    place = stream.tell()
    stream.seek(0)
    parts, animated, in_pixels = [stream.read(8)], False, False
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND" or (kind == b"fcTL" and animated and in_pixels):
            break
        animated, in_pixels = animated or kind == b"acTL", in_pixels or kind == b"IDAT"
        if kind not in PNG_METADATA:
            stream.seek(length + 4, SEEK_CUR)
            continue
        content = stream.read(length)
        if len(content) < length:
            break
        parts.append(_png_chunk(kind, content))
        stream.seek(4, SEEK_CUR)
    stream.seek(place)
    return b"".join([*parts, _png_chunk(b"IDAT", b""), _png_chunk(b"IEND", b"")])


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _decode(
    source: Path | bytes | BinaryIO, name: str, least_side: int | None, white_level: int | None
) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes for `decode_rgb`, and gives the upright image's (height, width) when decoded whole."""
    with _opened(source, name) as image:
        width, height = image.size
        if least_side is not None:
            image.draft(None, (least_side, least_side))
        reduced = image.size != (width, height)
        image.load()
        orientation = image.getexif().get(EXIF_ORIENTATION)
    rgb = _upright(_to_rgb(image, white_level), orientation)
    if not reduced:
        return rgb, (rgb.height, rgb.width)
    return rgb, (width, height) if orientation in QUARTER_TURNS else (height, width)


def to_upright_rgb(image: Image.Image, white_level: int | None = None) -> Image.Image:
    """Makes of an image in memory what `decode_rgb` makes of its file.

    Raises:
        DataError: it was opened lazily, and is truncated or damaged.
    """
    try:
        image.load()
    except Exception as error:  # decoders meet broken files with errors of nearly every type
        name = printable(getattr(image, "filename", "") or "an image of Pillow")
        raise DataError(
            f"{name}: expected a whole image, found one that is truncated or damaged: {first_line(error)}. "
            "Copy or download it again."
        ) from error
    return _upright(_to_rgb(image, white_level), image.getexif().get(EXIF_ORIENTATION))


def _upright(rgb: Image.Image, orientation: int | None) -> Image.Image:
    """Turned as its EXIF orientation says, and without metadata."""
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
    rgb.info.clear()
    return rgb


def _name(source: Path | bytes | BinaryIO) -> str:
    return printable(source if isinstance(source, Path) else getattr(source, "name", "image without a name"))


def _stream(source: Path | bytes | BinaryIO) -> BinaryIO:
    if isinstance(source, Path):
        return open_file(source)
    return BytesIO(source) if isinstance(source, bytes) else source


@contextmanager
def _opened(source: Path | bytes | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Opens an image; whatever goes wrong while it is open becomes a DataError."""
    try:
        stream = _stream(source)
    except FileNotFoundError as error:
        raise DataError(f"{name}: {MISSING}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{name}: expected an image, cannot open it: {reason}.") from error
    try:
        with Image.open(stream) as image:
            yield image
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: expected an image, {_what_it_is(stream)}") from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise DataError(f"{name}: has too many pixels to be decoded. Scale it down. {error}".rstrip()) from error
    except Exception as error:  # decoders meet broken files with errors of nearly every type
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise DataError(
            f"{name}: expected a whole image, found one that is truncated or damaged: {reason}. "
            "Copy or download it again."
        ) from error
    finally:
        if stream is not source:
            stream.close()


def _what_it_is(stream: BinaryIO) -> str:
    stream.seek(0)
    head = stream.read(64)
    if not head:
        return "found an empty file. Copy or download it again."
    beginning = head[4:] if head[4:8] == b"ftyp" else head.lstrip()
    for start, hint in HINTS.items():
        if beginning.startswith(start):
            return f"found {hint}"
    return f"found a file in no format that Pillow knows, beginning with {head[:16]!r}. Convert it to JPEG or PNG."


def _to_rgb(image: Image.Image, white_level: int | None) -> Image.Image:
    """RGB without alpha; see `decode_rgb` for the rules."""
    if image.mode[0] in "IF":
        return Image.fromarray(_to_8_bits(np.asarray(image), image.mode, white_level)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _to_8_bits(values: np.ndarray, mode: str, white_level: int | None) -> np.ndarray:
    """Grey values of a Pillow mode I;16…, I or F, shape [h, w], as uint8."""
    values = values.astype(np.float64)
    if white_level is not None and mode != "F":
        return np.rint(np.clip(values * (255.0 / white_level), 0, 255)).astype(np.uint8)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    ranges = (65535.0,) if mode.startswith("I;16") else (1.0, 255.0) if mode == "F" else (255.0, 65535.0)
    fitting = [top for top in ranges if low >= 0 and high <= top]
    if not fitting:
        values = values - low
    top = fitting[0] if fitting else (high - low) or 1.0
    return np.rint(values * (255.0 / top)).astype(np.uint8)
