"""`hf-detr-ft push-data FOLDER REPO`: publish a data set on the Hugging Face Hub, as Parquet that its viewer shows."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from hf_detr_ft.atomic import is_free, write_folder
from hf_detr_ft.data.find_data import describe_layout, find_data
from hf_detr_ft.errors import RecipeError
from hf_detr_ft.importing import large_imports
from hf_detr_ft.recipe.sections import DataConfig

GPS = 0x8825
"""EXIF's part with the place where a photo was taken."""


def push_data(
    source: str,
    repo_id: str,
    format: Any = None,
    output: Path | None = None,
    dry_run: bool = False,
    private: bool | None = None,
    overwrite: bool = False,
    license: str | None = None,
) -> int:
    """Reads a data set in any format, checks it, and uploads it in one commit, with a card.

    Args:
        source: a folder or a file of annotations.
        repo_id: "user/name", or a name under one's own account.
        format: of the source; found out where it is None.
        output: write the files into this new folder instead.
        dry_run: list the files and their sizes, and send nothing.
        private: visibility of a new repository; None leaves it to the account's default.
        overwrite: replace a data set that is there.
        license: for the card, such as "cc-by-4.0".

    Returns:
        0.

    Raises:
        InputError: the data cannot be read, its check finds errors, or the Hub does not take it.
    """
    if output is not None and not is_free(output):
        raise RecipeError(f"--output: '{output}' is not empty. Name another folder.")
    config = DataConfig(root=source, format=format)
    layout = find_data(config)
    with large_imports():
        from hf_detr_ft.data.formats.write_parquet import write_parquet_folder
        from hf_detr_ft.data.whole_splits import load_whole_splits
        from hf_detr_ft.hub import push_files, resolve_repo_id
        from hf_detr_ft.hub.data_card import build_data_card
        from hf_detr_ft.hub.upload_files import list_sizes
        from hf_detr_ft.run_folder import CARD

    repo_id = resolve_repo_id(repo_id, ask=not (dry_run or output))
    print(describe_layout(layout))
    data = load_whole_splits(config, layout)
    print(*data.notes, sep="\n", end="\n" if data.notes else "")
    placed = [has_place(path) for whole in data.splits.values() for path in whole.photos.values()]
    if any(placed):
        print(f"{sum(placed)} of {len(placed)} photos say in their EXIF where they were taken, for all to read")
    with TemporaryDirectory() as scratch:
        target = Path(scratch, "data") if output is None else output
        with write_folder(target) as folder:
            write_parquet_folder(data.splits, folder)
            (folder / CARD).write_text(build_data_card(data.splits, repo_id, license), encoding="utf-8")
        files: dict[str, Path | bytes] = {
            path.relative_to(target).as_posix(): path for path in sorted(target.rglob("*")) if path.is_file()
        }
        print(f"{source} {'would go' if dry_run or output else 'goes'} to the data set {repo_id}:")
        print(*list_sizes(files), sep="\n")
        if dry_run or output:
            print(f"Nothing was sent{'' if output is None else f'; the files are in {output}'}.")
            return 0
        print(f"Published: {push_files(files, repo_id, 'dataset', private=private, overwrite=overwrite)}")
    return 0


def has_place(path: Path) -> bool:
    """True of a photo whose EXIF says where it was taken."""
    with Image.open(path) as image:
        return bool(image.getexif().get_ifd(GPS))
