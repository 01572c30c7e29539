"""Image files that the user means by files, folders and patterns."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hf_detr_ft.errors import DataError, RecipeError

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm"),
    *(".png", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Suffixes of images in folders and patterns; a file that is named itself can have any suffix."""


def find_images(inputs: Sequence[str], output: Path) -> list[Path]:
    """All image files that the inputs mean, sorted, each once; what lies in `output` is left out of what is searched.

    Raises:
        RecipeError: names all inputs that match nothing.
    """
    found: dict[Path, Path] = {}
    problems = []
    for text in inputs:
        path = Path(os.path.expanduser(text))
        if path.is_dir():
            matches = list(walk(path, output))
            problem = f"'{text}': expected images in this folder, found none with a suffix of {', '.join(SUFFIXES)}"
        elif path.exists():
            matches, problem = [path], ""
        elif glob.has_magic(text):
            matches = list(expand(str(path), output))
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


def walk(folder: Path, output: Path) -> Iterator[Path]:
    """Image files in a folder and its subfolders, without hidden ones and without those in `output`."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be searched for images: {error.strerror}.") from error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [
            name for name in folders if not name.startswith(".") and Path(root, name).resolve() != output.resolve()
        ]
        yield from (Path(root, name) for name in names if not name.startswith(".") and is_image(name))


def expand(pattern: str, output: Path) -> Iterator[Path]:
    """Image files that a pattern matches, and those in folders that it matches."""
    for match in map(Path, glob.iglob(pattern, recursive=True)):
        if output.resolve() in (match.resolve(), *match.resolve().parents):
            continue
        if match.is_dir():
            yield from walk(match, output)
        elif is_image(match.name):
            yield match


def is_image(name: str) -> bool:
    """True for the name of an image, going by its suffix."""
    return name.lower().endswith(SUFFIXES)
