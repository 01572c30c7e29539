"""The files of a recipe's splits: as the recipe says, or as its folder shows. Imports nothing large."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from hf_detr_ft.data.coco import MISSING
from hf_detr_ft.data.formats.find_format import find_layout, find_streamed
from hf_detr_ft.data.formats.layout import Layout, Place
from hf_detr_ft.data.formats.shards import HUB, explain_hub, on_hub, shard_name
from hf_detr_ft.errors import DataError
from hf_detr_ft.recipe.sections import DataConfig

NO_DATA = ["*.py", "*.pkl", "*.pt", "*.pth", "*.bin", "*.safetensors"]
"""Files of the Hub that are not downloaded: programs, pickles and weights."""
PATHS = ("train_annotations", "train_images", "val_annotations", "val_images")


def find_data(config: DataConfig) -> Layout:
    """The files of the splits.

    Where the recipe names files they are these; else COCO's where they lie at their usual places; else whatever
    annotations the folder holds that it names. Data that are streamed lie in shards, whatever their names.

    Raises:
        DataError: the folder holds none, or it is not clear which are meant.
    """
    if config.streaming:
        return find_streamed(_root_path(config.root), config.format)
    is_usual = config.format is None and (config.root is None or config.path("train_annotations").exists())
    if names_files(config) or is_usual:
        splits = {split: _place(config, split) for split in ("train", "val") if getattr(config, f"{split}_annotations")}
        if config.val_annotations == DataConfig.val_annotations and not splits["val"].annotations.exists():
            del splits["val"]
        listed = splits["train"].annotations
        classes = listed if config.format == "yolo" and listed.is_file() else None
        found = Layout(config.format or "coco", splits, "", classes)
    else:
        found = find_layout(root_folder(config.root), config.format)
    if config.test_annotations is None or found.format != "coco":
        return found
    return found._replace(splits={**found.splits, "test": _place(config, "test")})


def _place(config: DataConfig, split: str) -> Place:
    return Place(config.path(f"{split}_annotations"), config.path(f"{split}_images"))


def root_folder(root: str | None) -> Path:
    """The folder that a recipe's `data.root` means; a data set of the Hub is downloaded into its cache.

    Raises:
        DataError: there is no such data set, or no network.
    """
    return _download(root) if root is not None and root.startswith(HUB) else _root_path(root)


def _root_path(root: str | None) -> Path:
    return Path(root or ".").expanduser()


@cache
def _download(root: str) -> Path:
    """The folder of a data set of the Hub, asked for once in a process."""
    from huggingface_hub import snapshot_download

    repo_id, _, revision = root.removeprefix(HUB).strip("/").partition("@")
    with explain_hub(root):
        return Path(snapshot_download(repo_id, repo_type="dataset", revision=revision or None, ignore_patterns=NO_DATA))


def names_files(config: DataConfig) -> bool:
    """True where a recipe names annotations or folders of images."""
    usual = DataConfig()
    return any(getattr(config, name) not in (getattr(usual, name), None) for name in PATHS)


def makes_validation(config: DataConfig, found: Layout) -> bool:
    """True where the validation split is made of the training images: it is asked for, or none was found."""
    asked = config.val_annotations is None or config.val_share or config.folds or config.split_file
    return bool(asked) or "val" not in found.splits


def require_annotations(*splits: str) -> Callable[[DataConfig], None]:
    """A check of a recipe's `data`, before anything is read, that there are annotations of "train" or "val".

    What it returns raises a DataError that names all files that are not there, and what was found instead.
    """

    def check(config: DataConfig) -> None:
        if config.synthetic_images:
            return
        found, said, needed = None, "", list(splits)
        try:
            found = find_data(config)
            train = found.splits.get("train")
            if makes_validation(config, found) and train is not None and _is_there(train):
                needed = [split for split in splits if split != "val"] or ["train"]
        except DataError as error:
            if config.streaming:
                raise
            said = str(error)
        places = {} if found is None else found.splits
        missing = [split for split in needed if split not in places or not _is_there(places[split])]
        named = {split: getattr(config, f"{split}_annotations") for split in missing}
        lines = [
            f"{config.path(f'{split}_annotations') if name else f'data.{split}_annotations'}: {MISSING}"
            for split, name in named.items()
        ]
        if found is not None and found.reason:
            said = f"{config.root or '.'}: {describe_layout(found)}"
        if config.streaming and missing:
            raise DataError(f"data.streaming: expected shards of the split train, found others: {said}")
        if missing:
            raise DataError("\n".join([*lines, *([said] if said else [])]))

    return check


def _is_there(place: Place) -> bool:
    return on_hub(place.annotations) or place.annotations.exists()


def describe_layout(layout: Layout) -> str:
    """Words for what was found, and why it was taken to be so, for the terminal."""
    places = ", ".join(f"{split} in {shard_name(place.annotations)}" for split, place in layout.splits.items())
    return f"found {layout.format}: {layout.reason} ({places})"
