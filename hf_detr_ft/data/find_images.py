"""Image files that the user means by files, folders and patterns, and videos and cameras where they are wanted."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hf_detr_ft.errors import DataError, RecipeError

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm"),
    *(".png", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Suffixes of images in folders and patterns; a file that is named itself can have any suffix."""
VIDEO_SUFFIXES = (
    *(".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".ogv", ".webm", ".wmv"),
)
CAMERA = re.compile(r"(?:/dev/video)?(\d+)")
"""A camera as Linux names it, or its number alone."""


def find_images(inputs: Sequence[str], output: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """All image files that the inputs mean, sorted, each once; what lies in `output` is left out of what is searched.

    Args:
        inputs: files, folders and patterns.
        output: a folder.
        suffixes: of the files in folders and patterns.

    Raises:
        RecipeError: names all inputs that match nothing.
    """
    found: dict[Path, Path] = {}
    problems = []
    for text in inputs:
        path = Path(os.path.expanduser(text))
        if path.is_dir():
            matches = list(walk(path, output, suffixes))
            problem = f"'{text}': expected images in this folder, found none with a suffix of {', '.join(suffixes)}"
        elif path.exists():
            matches, problem = [path], ""
        elif glob.has_magic(text):
            matches = list(expand(str(path), output, suffixes))
            problem = f"'{text}': expected a pattern that matches images, found none (** means any depth of folders)"
        else:
            matches, problem = [], f"'{text}': expected a file, a folder or a pattern, found no such file"
        if not matches:
            problems.append(problem)
        for match in matches:
            found.setdefault(match.resolve(), match)
    if problems:
        raise RecipeError("\n".join(problems) + "\nCheck the spelling, and where the command is run.")
    return sorted(found.values())


def find_inputs(inputs: Sequence[str], output: Path) -> list[Path]:
    """Images and videos that the inputs mean, see `find_images`; or one camera.

    Raises:
        RecipeError: names all inputs that match nothing, or a camera that is not there or not the only input.
    """
    cameras = [text for text in inputs if CAMERA.fullmatch(text) and not Path(text).is_file()]
    if not cameras:
        return find_images(inputs, output, (*SUFFIXES, *VIDEO_SUFFIXES))
    if len(inputs) > 1:
        raise RecipeError(f"'{cameras[0]}': a camera has no end; expected no other input beside it. Give it alone.")
    path = Path(CAMERA.sub(r"/dev/video\1", cameras[0]))
    if not path.exists():
        raise RecipeError(
            f"'{cameras[0]}': expected the camera {path}, found none. See which are there: ls /dev/video*"
        )
    return [path]


def is_camera(path: Path) -> bool:
    """True of a camera, by its name."""
    return path.parent == Path("/dev") and bool(CAMERA.fullmatch(str(path)))


def is_video(path: Path) -> bool:
    """True of a camera or a video file, by its name."""
    return is_camera(path) or path.name.lower().endswith(VIDEO_SUFFIXES)


def walk(folder: Path, output: Path, suffixes: tuple[str, ...] = SUFFIXES) -> Iterator[Path]:
    """Image files in a folder and its subfolders, without hidden ones and without those in `output`."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be searched for images: {error.strerror}.") from error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [
            name for name in folders if not name.startswith(".") and Path(root, name).resolve() != output.resolve()
        ]
        yield from (Path(root, name) for name in names if not name.startswith(".") and name.lower().endswith(suffixes))


def expand(pattern: str, output: Path, suffixes: tuple[str, ...] = SUFFIXES) -> Iterator[Path]:
    """Image files that a pattern matches, and those in folders that it matches."""
    for match in map(Path, glob.iglob(pattern, recursive=True)):
        if output.resolve() in (match.resolve(), *match.resolve().parents):
            continue
        if match.is_dir():
            yield from walk(match, output, suffixes)
        elif match.name.lower().endswith(suffixes):
            yield match


def is_image(name: str) -> bool:
    """True for the name of an image, going by its suffix."""
    return name.lower().endswith(SUFFIXES)
