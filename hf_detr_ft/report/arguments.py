"""Arguments of a report, checked before any work: the files that it is written to, and flags that name the data."""

from collections.abc import Sequence
from pathlib import Path

from hf_detr_ft.atomic import check_output_file
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.run_folder import RECIPE, REPORT


def check_page(target: Path, overwrite: bool, flag: str = "--output") -> None:
    """Refuses, before any work, to replace a file without being asked.

    Raises:
        RecipeError: it is there, and not to be overwritten; or it is a folder.
    """
    if target.is_dir():
        raise RecipeError(f"{flag}: expected a file, '{target}' is a folder. Give '{target / REPORT}'.")
    if target.exists() and not overwrite:
        replace_it = "To replace it: --overwrite, or name" if flag == "--output" else "Name"
        raise RecipeError(f"{flag}: '{target}' is there already. {replace_it} another file.")


def is_page(path: Path) -> bool:
    """Tells whether a file is a page that was made here."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b'<meta name="generator" content="hf_detr_ft' in file.read(2000)


def check_picture(output: Path, image_path: Path, overwrite: bool) -> None:
    """Refuses, before any work, a picture that could not be written or would replace something.

    Raises:
        RecipeError: it is no PNG, a folder, the image itself, without a folder, or there already.
    """
    check_output_file(output)
    if output.suffix.lower() != ".png":
        raise RecipeError(f"--output: expected the name of a PNG, found '{output}'. Name it '{output.stem}.png'.")
    if output.is_dir():
        raise RecipeError(f"--output: expected a file, '{output}' is a folder. Name a file in it.")
    if output.resolve() == image_path.resolve():
        raise RecipeError(f"--output: '{output}' is the image itself and would be replaced. Name another file.")
    if output.exists() and not overwrite:
        raise RecipeError(f"--output: '{output}' is there already. Name another file, or give --overwrite.")


def require_data_flags(source: str, flags: Sequence[str]) -> None:
    """Makes sure that flags name the data where a model carries no recipe that does.

    Raises:
        RecipeError: none of them does.
    """
    if not any(flag.startswith("--data.") for flag in flags):
        raise RecipeError(f"'{source}' carries no {RECIPE} that names the data. Give --data.root and its like.")
