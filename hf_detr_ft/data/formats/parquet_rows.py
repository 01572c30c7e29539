"""Parquet files as data sets of the Hub have them: columns `image` and `objects`, classes named by the features."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from hf_detr_ft.data.formats.labelled import Faults, Labelled, OpenPhotos, Photos, Reading, whole_side
from hf_detr_ft.data.formats.layout import SPLITS, Layout, Piece, Place, Tree, split_of
from hf_detr_ft.data.formats.objects_column import CLASSES, COLUMNS, RawImage, place_objects, read_objects
from hf_detr_ft.data.formats.shards import list_shards, open_shard
from hf_detr_ft.data.formats.unpacked import image_name, measure_once, unpack_once, write_image
from hf_detr_ft.errors import DataError, first_line
from hf_detr_ft.formatting import join_limited

ROWS_AT_ONCE = 32
SIDES = ("height", "width")
"""Columns that state an image's size."""


def find_parquet(tree: Tree) -> Layout | None:
    """The splits of a folder with Parquet files, each of the split that its name or folder says."""
    files = tree.named(".parquet")
    if not files:
        return None
    found = {split_of(name) or "train" for name in files}
    splits = dict.fromkeys(sorted(found, key=SPLITS.index), Place(tree.root, tree.root))
    return Layout("parquet", splits, f"{files[0]} is a table of the Hub's form")


def read_parquet(layout: Layout, open_photos: OpenPhotos = Photos) -> Reading:
    """The splits, whose images are unpacked into the cache of `datasets`, or stay where they are to be streamed.

    Raises:
        DataError: lists what is wrong with the files.
    """
    root = next(iter(layout.splits.values())).annotations
    files = {split: list[Path]() for split in layout.splits}
    for name in list_shards(root).named(".parquet"):
        files[split_of(name) or "train"].append(root / name)
    folder = root if layout.streamed else unpack_once([*chain(*files.values())], lambda folder: _unpack(files, folder))
    faults, read = Faults(root), dict[str, list[RawImage]]()
    classes = {path: read_class_names(path) for path in chain(*files.values())}
    names = dict.fromkeys(chain(*classes.values()))
    for split, paths in files.items():
        images = read.setdefault(split, [])
        describe = _streamed(paths) if layout.streamed else _unpacked(open_photos(folder / split))
        number = 0
        for path in paths:
            for row in iterate_rows(path, with_images=False):
                with faults.at(f"{path}, row {number}"):
                    raw = read_objects(row, classes[path])
                    if names and not names.keys() >= set(raw.labels):
                        raise DataError(
                            f"expected classes that the features of the files name, {join_limited([*names])}, found "
                            f"{join_limited(raw.labels)}; write all files with the same features"
                        )
                    images.append((*describe(number, row), raw))
                number += 1
    placed = place_objects(read, faults)
    pieces = {split: _find_pieces(paths) if layout.streamed else () for split, paths in files.items()}
    return {split: Labelled(placed[split], folder / split, pieces[split]) for split in placed}, list(names) or None


Describe = Callable[[int, dict[str, Any]], tuple[str, tuple[int, int]]]
"""Gives name and size (height, width) of the image with a number in its split and a row."""


def _unpacked(photos: Photos) -> Describe:
    stored = {name.partition("_")[0].partition(".")[0]: name for name in os.listdir(photos.images_dir)}

    def describe(number: int, row: dict[str, Any]) -> tuple[str, tuple[int, int]]:
        name = stored[f"{number:06d}"]
        return name, photos.size(name)

    return describe


def _streamed(paths: list[Path]) -> Describe:
    """Describes images by what their rows state; where one does not, all images are read once."""
    measured = cache(
        lambda: measure_once(paths, lambda: ((*image, b"") for path in paths for image in read_images(path)))
    )

    def describe(number: int, row: dict[str, Any]) -> tuple[str, tuple[int, int]]:
        height, width = (whole_side(row.get(side)) for side in SIDES)
        if height and width:
            return image_name(number, _stated_name(row.get("image")), b""), (height, width)
        return measured()[number].file_name, measured()[number].size

    return describe


def _find_pieces(paths: list[Path]) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    for path in paths:
        with _opened(path) as file:
            groups = range(file.metadata.num_row_groups)
            pieces += [Piece(path, group, file.metadata.row_group(group).num_rows) for group in groups]
    return tuple(pieces)


def _unpack(by_split: dict[str, list[Path]], folder: Path) -> None:
    for split, paths in by_split.items():
        (folder / split).mkdir()
        for number, (_, name, content) in enumerate(image for path in paths for image in read_images(path)):
            write_image(folder / split, number, name, content)


def read_images(path: Path, group: int | None = None) -> Iterator[tuple[Path, str, bytes]]:
    """File, name and content of each image of a file, or of one of its row groups. Raises DataError."""
    for number, row in enumerate(iterate_rows(path, with_images=True, group=group)):
        cell = row.get("image")
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            place = f"row {number}" if group is None else f"row group {group}, row {number}"
            raise DataError(f"{path}, {place}: expected the bytes of an image, found {content!r:.60}")
        yield path, _stated_name(cell), content


def _stated_name(cell: Any) -> str:
    name = cell.get("path") if isinstance(cell, dict) else None
    return name if isinstance(name, str) else ""


def iterate_rows(path: Path, *, with_images: bool, group: int | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a file, or of one of its row groups: images alone, or all else with the images' names.

    Raises:
        DataError: it is no such file.
    """
    with _opened(path, labels_alone=not with_images) as file:
        columns = file.schema_arrow.names
        objects = [name for name in columns if name in COLUMNS] or [name for name in columns if name != "image"]
        if "image" not in columns or not objects:
            raise DataError(f"{path}: expected the columns image and objects, found {', '.join(columns):.200}")
        stated = [side for side in SIDES if side in columns and side not in objects]
        chosen = ["image"] if with_images else [*objects, *stated, "image.path"]
        groups = None if group is None else [group]
        for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=chosen):
            yield from batch.to_pylist()


@contextmanager
def _opened(path: Path, *, labels_alone: bool = True) -> Iterator[Any]:
    """Opens a `pyarrow.parquet.ParquetFile`; what goes wrong with it while it is open becomes a DataError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_shard(path, labels_alone=labels_alone) as source, pq.ParquetFile(source) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: no Parquet file that can be read: {first_line(error)}; download it again") from error


def read_class_names(path: Path) -> list[str]:
    """Names of the classes by number, of the features that `datasets` writes into a file; none where it has none."""
    from datasets import Features

    try:
        with _opened(path) as file:
            schema = file.schema_arrow
        features: Any = Features.from_arrow_schema(schema)
    except DataError:
        raise
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
