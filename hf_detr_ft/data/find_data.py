"""The files of a recipe's splits: as the recipe says, or as its folder shows. Imports nothing large."""

from collections.abc import Callable
from pathlib import Path

from hf_detr_ft.data.coco import MISSING
from hf_detr_ft.data.formats.find_format import find_layout
from hf_detr_ft.data.formats.layout import Layout, Place
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import DataConfig

PATHS = ("train_annotations", "train_images", "val_annotations", "val_images")


def find_data(config: DataConfig) -> Layout:
    """The files of the splits.

    Where the recipe names files they are these; else COCO's where they lie at their usual places; else whatever
    annotations its folder holds.

    Raises:
        DataError: the folder holds none, or it is not clear which are meant.
    """
    if names_files(config) or (config.format is None and config.path("train_annotations").exists()):
        splits = {
            split: Place(config.path(f"{split}_annotations"), config.path(f"{split}_images"))
            for split in ("train", "val")
        }
        if config.val_annotations == DataConfig.val_annotations and not splits["val"].annotations.exists():
            del splits["val"]
        return Layout(config.format or "coco", splits, "")
    return find_layout(Path(config.root or ".").expanduser(), config.format)


def names_files(config: DataConfig) -> bool:
    """True where a recipe names annotations or folders of images."""
    usual = DataConfig()
    return any(getattr(config, name) != getattr(usual, name) for name in PATHS)


def require_annotations(*splits: str) -> Callable[[DataConfig], None]:
    """A check of a recipe's `data`, before anything is read, that there are annotations of "train" or "val".

    What it returns raises a DataError that names all files that are not there, and what was found instead.
    """

    def check(config: DataConfig) -> None:
        if config.synthetic_images:
            return
        found, said = None, ""
        try:
            found = find_data(config)
        except DataError as error:
            said = str(error)
        places = {} if found is None else found.splits
        missing = [split for split in splits if split not in places or not places[split].annotations.exists()]
        lines = [f"{config.path(f'{split}_annotations')}: {MISSING}" for split in missing]
        if found is not None and found.reason:
            said = f"{config.root or '.'}: {describe_layout(found)}"
        if missing:
            raise DataError("\n".join([*lines, *([said] if said else [])]))

    return check


def describe_layout(layout: Layout) -> str:
    """Words for what was found, and why it was taken to be so, for the terminal."""
    places = ", ".join(f"{split} in {place.annotations}" for split, place in layout.splits.items())
    return f"found {layout.format}: {layout.reason} ({places})"
