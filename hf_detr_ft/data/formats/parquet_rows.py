"""Parquet files as data sets of the Hub have them: columns `image` and `objects`, classes named by the features."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_detr_ft.data.formats.labelled import Faults, Labelled, OpenPhotos, Photos, Reading
from hf_detr_ft.data.formats.layout import SPLITS, Layout, Place, Tree, split_of
from hf_detr_ft.data.formats.objects_column import CLASSES, COLUMNS, RawImage, place_objects, read_objects
from hf_detr_ft.data.formats.unpacked import unpack_once, write_image
from hf_detr_ft.errors import DataError, first_line

ROWS_AT_ONCE = 32


def find_parquet(tree: Tree) -> Layout | None:
    """The splits of a folder with Parquet files, each of the split that its name or folder says."""
    files = tree.named(".parquet")
    if not files:
        return None
    found = {split_of(name) or "train" for name in files}
    splits = dict.fromkeys(sorted(found, key=SPLITS.index), Place(tree.root, tree.root))
    return Layout("parquet", splits, f"{files[0]} is a table of the Hub's form")


def read_parquet(layout: Layout, open_photos: OpenPhotos = Photos) -> Reading:
    """The splits, whose images are unpacked into the cache of `datasets`.

    Raises:
        DataError: lists what is wrong with the files.
    """
    root = next(iter(layout.splits.values())).annotations
    files = [root / name for name in Tree(root).named(".parquet")]
    by_split = {
        split: [path for path in files if (split_of(path.relative_to(root).as_posix()) or "train") == split]
        for split in layout.splits
    }
    unpacked = unpack_once(files, lambda folder: _unpack(by_split, folder))
    faults, read, names = Faults(root), dict[str, list[RawImage]](), dict[str, None]()
    for split, paths in by_split.items():
        photos, images = open_photos(unpacked / split), read.setdefault(split, [])
        stored = {name.partition("_")[0].partition(".")[0]: name for name in map(_name, (unpacked / split).iterdir())}
        number = 0
        for path in paths:
            classes = read_class_names(path)
            names |= dict.fromkeys(classes)
            for row in iterate_rows(path, with_images=False):
                with faults.at(f"{path}, row {number}"):
                    file_name = stored[f"{number:06d}"]
                    images.append((file_name, photos.size(file_name), read_objects(row, classes)))
                number += 1
    faults.refuse()
    placed = place_objects(read)
    return {split: Labelled(placed[split], unpacked / split) for split in placed}, list(names) or None


def _name(path: Path) -> str:
    return path.name


def _unpack(by_split: dict[str, list[Path]], folder: Path) -> None:
    for split, paths in by_split.items():
        (folder / split).mkdir()
        number = 0
        for path in paths:
            for row in iterate_rows(path, with_images=True):
                cell = row.get("image")
                content = cell.get("bytes") if isinstance(cell, dict) else cell
                if not isinstance(content, bytes):
                    raise DataError(f"{path}, row {number}: expected the bytes of an image, found {content!r:.60}")
                name = cell.get("path") if isinstance(cell, dict) else None
                write_image(folder / split, number, name if isinstance(name, str) else None, content)
                number += 1


def iterate_rows(path: Path, *, with_images: bool) -> Iterator[dict[str, Any]]:
    """Rows of a file, its images alone or all but its images. Raises DataError where it is no such file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            objects = [name for name in columns if name in COLUMNS] or [name for name in columns if name != "image"]
            if "image" not in columns or not objects:
                raise DataError(f"{path}: expected the columns image and objects, found {', '.join(columns):.200}")
            chosen = ["image"] if with_images else objects
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=chosen):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: no Parquet file that can be read: {first_line(error)}; download it again") from error


def read_class_names(path: Path) -> list[str]:
    """Names of the classes by number, of the features that `datasets` writes into a file; none where it has none."""
    import pyarrow.parquet as pq
    from datasets import Features

    try:
        features: Any = Features.from_arrow_schema(pq.read_schema(path))
    except Exception as error:  # features of strangers may be of any type, known or not
        raise DataError(f"{path}: its features cannot be read: {first_line(error)}") from error
    cell = _inner(next((features[key] for key in COLUMNS if key in features), features))
    for key in CLASSES:
        names = getattr(_inner(cell.get(key)), "names", None) if isinstance(cell, dict) else None
        if names:
            return [str(name) for name in names]
    return []


def _inner(feature: Any) -> Any:
    """The feature inside of lists."""
    while hasattr(feature, "feature") or (isinstance(feature, list) and feature):
        feature = feature[0] if isinstance(feature, list) else feature.feature
    return feature
