"""Tables with a row for each object: a file's name, a box and a class, under the names that columns usually have.

Boxes are corners, or left, top, width and height where the columns say so; in pixels, or relative to the image where no
number of the file is above 1. A row whose box is empty stands for an image without objects. A column of splits divides
one table.
"""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from hf_detr_ft.data.find_images import is_image
from hf_detr_ft.data.formats.csv_table import Table, load_head, load_table
from hf_detr_ft.data.formats.labelled import (
    Faults,
    Labelled,
    LabelledImage,
    LabelledObject,
    OpenPhotos,
    Photos,
    Reading,
    class_name,
    corners_box,
    finite,
)
from hf_detr_ft.data.formats.layout import SPLIT_WORDS, Layout, Place, Tree, group_by_split, split_of
from hf_detr_ft.errors import DataError

NAMES = {
    "file": (
        "filename",
        "file_name",
        "image_path",
        "image_name",
        "image",
        "img",
        "path",
        "file",
        "filepath",
        "image_id",
    ),
    "class": ("class", "label", "class_name", "label_name", "category", "category_name", "name", "object", "labels"),
    "split": ("split", "set", "subset", "usage", "partition", "ml_use"),
}
"""Names of columns, the surest first."""
CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
    ("bbox_xmin", "bbox_ymin", "bbox_xmax", "bbox_ymax"),
    ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"),
    ("box_x1", "box_y1", "box_x2", "box_y2"),
)
SIDES = (
    ("x", "y", "w", "h"),
    ("left", "top", "width", "height"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
    ("bbox_x", "bbox_y", "bbox_w", "bbox_h"),
    ("xmin", "ymin", "w", "h"),
    ("x", "y", "width", "height"),
)
"""Columns of left, top, width and height."""
RELATIVE = 1.0
"""Largest number of boxes that are relative to their image."""


class Columns(NamedTuple):
    """Places of the columns in a row."""

    file: int
    box: tuple[int, ...]
    label: int
    are_sides: bool
    split: int | None
    size: tuple[int, int] | None
    """Places of the image's height and width."""


BARE = {
    6: Columns(0, (1, 2, 3, 4), 5, are_sides=False, split=None, size=None),
    8: Columns(5, (1, 2, 3, 4), 0, are_sides=True, split=None, size=(7, 6)),
}
"""Columns of files without a heading by their number: path, corners, class; or makesense's, the class first."""


def find_columns(table: Table) -> Columns | None:
    """The columns by the heading; None where they do not make a table of boxes."""
    if not table.heading:
        cells = table.rows[0][1] if table.rows else []
        columns = BARE.get(len(cells))
        return columns if columns is not None and is_image(cells[columns.file]) else None
    places = {name: place for place, name in reversed(list(enumerate(table.heading)))}
    boxes = next((names for names in (*CORNERS, *SIDES) if set(names) <= places.keys()), None)
    file, label, split = (next((places[name] for name in NAMES[key] if name in places), None) for key in NAMES)
    if boxes is None or file is None or label is None:
        return None
    rest = {"height", "width"} - set(boxes)
    size = (places["height"], places["width"]) if len(rest) == 2 and rest <= places.keys() else None
    return Columns(file, tuple(places[name] for name in boxes), label, boxes in SIDES, split, size)


def find_plain_csv(tree: Tree) -> Layout | None:
    """The splits of a folder with tables of boxes."""
    heads = {name: load_head(tree.root / name) for name in tree.named(".csv", ".tsv")}
    tables = {name: columns for name, head in heads.items() if (columns := find_columns(head)) is not None}
    if not tables:
        return None
    splits: dict[str, Place] = {}
    for split, name in group_by_split([*tables], tree.root).items():
        path, columns = tree.root / name, tables[name]
        samples = [cells[columns.file] for _, cells in heads[name].rows[:5] if len(cells) > columns.file]
        place = Place(path, tree.images_folder(name, split, samples))
        divided = [split] if columns.split is None else [*_divide(load_table(path), columns, path)]
        splits |= dict.fromkeys(divided, place)
    return Layout("csv", splits, f"{next(iter(tables))} is a table of boxes")


def read_plain_csv(layout: Layout, open_photos: OpenPhotos = Photos) -> Reading:
    """The splits.

    Raises:
        DataError: lists what is wrong with the files.
    """
    faults, splits = Faults(next(iter(layout.splits.values())).annotations), dict[str, Labelled]()
    for key, place in layout.splits.items():
        table = load_table(place.annotations)
        columns = find_columns(table)
        if columns is None:
            raise DataError(
                f"{place.annotations}: expected columns such as filename, xmin, ymin, xmax, ymax, class, found "
                f"{', '.join(table.heading) or 'rows without a heading'}"
            )
        photos = open_photos(place.images_dir)
        if table.decimal_comma:
            table = table._replace(rows=[_with_points(row, columns) for row in table.rows])
        rows = table.rows if columns.split is None else _divide(table, columns, place.annotations).get(key, [])
        images = _read_rows(rows, columns, _is_relative(table, columns), place.annotations, photos, faults)
        splits[key] = Labelled(images, place.images_dir)
    faults.refuse()
    return splits, None


def _with_points(row: tuple[int, list[str]], columns: Columns) -> tuple[int, list[str]]:
    """A row whose box has decimal points in the place of commas."""
    number, cells = row
    return number, [c.replace(",", ".") if place in columns.box else c for place, c in enumerate(cells)]


def _is_relative(table: Table, columns: Columns) -> bool:
    values = [finite(cells[place]) for _, cells in table.rows for place in columns.box if place < len(cells)]
    return max((abs(value) for value in values if value is not None), default=2.0) <= RELATIVE


def _divide(table: Table, columns: Columns, path: Path) -> dict[str, list[tuple[int, list[str]]]]:
    """Rows by the split that a column says, or else the file's name."""
    default, divided = split_of(path.name) or "train", defaultdict(list)
    for number, cells in table.rows:
        word = cells[columns.split].lower() if columns.split is not None and len(cells) > columns.split else ""
        divided[SPLIT_WORDS.get(word, default)].append((number, cells))
    return dict(divided)


def _read_rows(
    rows: list[tuple[int, list[str]]],
    columns: Columns,
    relative: bool,
    path: Path,
    photos: Photos,
    faults: Faults,
) -> list[LabelledImage]:
    """Images in the order in which they come up."""
    images: dict[str, LabelledImage] = {}
    for number, cells in rows:
        with faults.at(f"{path}, line {number}"):
            least = 1 + max(columns.file, columns.label, *columns.box)
            if len(cells) < least:
                raise DataError(f"expected {least} cells, found {len(cells)}")
            written = cells[columns.file].rpartition("://")[2]
            name = photos.find(written)
            if name not in images:
                stated = () if columns.size is None else [cells[p] for p in columns.size if p < len(cells)]
                images[name] = LabelledImage(name, photos.size(name, stated), [])
            if any(cells[place] for place in columns.box):
                images[name].objects.append(_read_object(cells, columns, images[name].size, relative))
    return list(images.values())


def _read_object(cells: list[str], columns: Columns, size: tuple[int, int], relative: bool) -> LabelledObject:
    values = [finite(cells[place]) for place in columns.box]
    if any(value is None for value in values):
        raise DataError(f"expected four numbers as the box, found {[cells[place] for place in columns.box]!r:.80}")
    x, y, *rest = (value for value in values if value is not None)
    right, bottom = (x + rest[0], y + rest[1]) if columns.are_sides else rest
    height, width = size if relative else (1, 1)
    box = corners_box([x * width, y * height, right * width, bottom * height])
    return LabelledObject(class_name(cells[columns.label]), box)
