"""The format of a data set's folder: found out, and read into COCO dicts."""

from collections.abc import Callable
from pathlib import Path

from hf_detr_ft.data.formats.coco_folder import find_coco
from hf_detr_ft.data.formats.createml import find_createml, read_createml
from hf_detr_ft.data.formats.image_folder import find_image_folder, read_image_folder
from hf_detr_ft.data.formats.labelled import OpenPhotos, Photos, Reading, build_cocos
from hf_detr_ft.data.formats.labelme import find_labelme, read_labelme
from hf_detr_ft.data.formats.layout import Layout, Place, Tree
from hf_detr_ft.data.formats.open_images import find_open_images, read_open_images
from hf_detr_ft.data.formats.parquet_rows import find_parquet, read_parquet
from hf_detr_ft.data.formats.plain_csv import find_plain_csv, read_plain_csv
from hf_detr_ft.data.formats.shards import list_shards, shard_name
from hf_detr_ft.data.formats.via_files import find_via, read_via
from hf_detr_ft.data.formats.voc import find_voc, read_voc
from hf_detr_ft.data.formats.web_dataset import find_web_dataset, read_web_dataset
from hf_detr_ft.data.formats.yolo import read_yolo
from hf_detr_ft.data.formats.yolo_folders import find_yolo
from hf_detr_ft.errors import DataError

FINDERS: dict[str, Callable[[Tree], Layout | None]] = {
    "coco": find_coco,
    "yolo": find_yolo,
    "voc": find_voc,
    "via": find_via,
    "labelme": find_labelme,
    "createml": find_createml,
    "openimages": find_open_images,
    "imagefolder": find_image_folder,
    "parquet": find_parquet,
    "webdataset": find_web_dataset,
    "csv": find_plain_csv,
}
"""Finders by format, in the order in which they are asked."""
READERS: dict[str, Callable[[Layout, OpenPhotos], Reading]] = {
    "yolo": read_yolo,
    "voc": read_voc,
    "via": read_via,
    "labelme": read_labelme,
    "createml": read_createml,
    "openimages": read_open_images,
    "imagefolder": read_image_folder,
    "parquet": read_parquet,
    "webdataset": read_web_dataset,
    "csv": read_plain_csv,
}
"""Readers of all formats but COCO."""
STREAMED = ("parquet", "webdataset")
"""Formats of shards whose images can be read as they come."""
TABLES = (".json", ".csv", ".tsv")
"""Suffixes of files that may be given in the place of their folder."""
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".rar", ".7z", ".tar.bz2", ".tar.xz")


def find_layout(root: Path, format: str | None = None) -> Layout:
    """Finds out which annotations lie in a folder, and which images are theirs.

    Args:
        root: the folder.
        format: look for this one alone.

    Raises:
        DataError: there are none that any reader knows, or it is not clear which are meant.
    """
    if root.is_file() and root.name.lower().endswith(ARCHIVES):
        raise DataError(f"{root}: expected the folder of a data set, found an archive; unpack it, and name its folder")
    tree = Tree(root) if root.suffix.lower() not in TABLES or not root.is_file() else Tree(root.parent).only(root.name)
    asked = FINDERS if format is None else {format: FINDERS[format]}
    found = [layout for find in asked.values() if (layout := find(tree))]
    if not found:
        looked = ", ".join(asked)
        raise DataError(
            f"{root}: expected annotations ({looked}), found none among {len(tree.files)} files, "
            f"{len(tree.images)} of them images; {_remedy(tree)}"
        )
    layout = found[0]
    others = [f"{other.format} ({other.reason})" for other in found[1:]]
    hint = f"; there is {', '.join(others)} as well, which data.format would choose" if others else ""
    return layout._replace(reason=layout.reason + hint, root=tree.root)


def find_streamed(root: Path, format: str | None = None) -> Layout:
    """Finds the shards of a data set whose images are to be streamed, on the disk or on the Hub.

    Args:
        root: the folder.
        format: look for this one alone.

    Raises:
        DataError: there are none.
    """
    tree = list_shards(root)
    found = [layout for name in STREAMED if format in (None, name) and (layout := FINDERS[name](tree))]
    if not found:
        raise DataError(
            f"{shard_name(root)}: expected Parquet files or tar shards to be streamed, found none among "
            f"{len(tree.files)} files; correct data.root, or set data.streaming to false. Of most public data sets the "
            "Hub keeps a copy in Parquet: hf://datasets/USER/NAME@refs/convert/parquet"
        )
    return found[0]._replace(root=root, streamed=True)


def _remedy(tree: Tree) -> str:
    archives = [name for name in tree.files if name.lower().endswith(ARCHIVES)]
    if archives:
        return f"unpack {archives[0]} first"
    return "correct data.root, or name the files as data.train_annotations and data.train_images"


def read_layout(layout: Layout, open_photos: OpenPhotos = Photos) -> dict[str, tuple[dict, Place]]:
    """COCO dicts of all splits, with the same categories, and where each was read.

    Args:
        layout: of any format but COCO.
        open_photos: makes `Photos` of a folder.

    Raises:
        DataError: lists what is wrong with the files.
    """
    splits, names = READERS[layout.format](layout, open_photos)
    first = next(iter(layout.splits.values()))
    return {
        split: (coco, layout.splits.get(split, first)._replace(images_dir=read.images_dir, pieces=read.pieces))
        for (split, coco), read in zip(build_cocos(splits, names).items(), splits.values(), strict=True)
    }
