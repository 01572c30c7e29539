"""The Hub's `imagefolder`: images beside a `metadata.jsonl` or `metadata.csv` with a column `objects`."""

from pathlib import Path, PurePosixPath
from typing import Any

from hf_detr_ft.data.formats.annotation_text import lines_of, load_text
from hf_detr_ft.data.formats.coco_json import parse_json
from hf_detr_ft.data.formats.csv_table import load_table
from hf_detr_ft.data.formats.labelled import Faults, Labelled, OpenPhotos, Photos, Reading
from hf_detr_ft.data.formats.layout import Layout, Place, Tree, group_by_split
from hf_detr_ft.data.formats.objects_column import RawImage, place_objects, read_objects
from hf_detr_ft.errors import DataError

METADATA = ("metadata.jsonl", "metadata.csv")


def find_image_folder(tree: Tree) -> Layout | None:
    """The splits of a folder with metadata of its images."""
    files = [name for name in tree.files if PurePosixPath(name).name.lower() in METADATA]
    if not files:
        return None
    places = {split: tree.root / name for split, name in group_by_split(files, tree.root).items()}
    splits = {split: Place(file, file.parent) for split, file in places.items()}
    return Layout("imagefolder", splits, f"{files[0]} is of an imagefolder")


def read_image_folder(layout: Layout, open_photos: OpenPhotos = Photos) -> Reading:
    """The splits.

    Raises:
        DataError: lists what is wrong with the files.
    """
    faults, read = Faults(next(iter(layout.splits.values())).annotations), dict[str, list[RawImage]]()
    for split, place in layout.splits.items():
        photos, images = open_photos(place.images_dir), read.setdefault(split, [])
        for number, row in _rows(place.annotations, faults):
            with faults.at(f"{place.annotations}, line {number}"):
                name = row.get("file_name")
                if not isinstance(name, str):
                    raise DataError(f"expected a text 'file_name', found {name!r:.60}")
                file_name = photos.find(name)
                images.append((file_name, photos.size(file_name), read_objects(row)))
    placed = place_objects(read, faults)
    return {split: Labelled(placed[split], place.images_dir) for split, place in layout.splits.items()}, None


def _rows(path: Path, faults: Faults) -> list[tuple[int, dict[str, Any]]]:
    """Rows with the numbers of their lines; in a CSV a cell of `objects` is JSON."""
    rows = []
    if path.suffix.lower() == ".csv":
        table = load_table(path)
        cells = [(number, dict(zip(table.heading, values, strict=False))) for number, values in table.rows]
        lines = [(number, {**row, "objects": row.get("objects", "")}) for number, row in cells]
    else:
        lines = [(number, {"": line}) for number, line in lines_of(load_text(path))]
    for number, row in lines:
        try:
            text = row.get("", row.get("objects", ""))
            value: Any = parse_json(text.encode("utf-8", errors="replace"), f"{path}, line {number}")
        except DataError as error:
            faults.found.append(str(error))
            continue
        row = value if "" in row else {**row, "objects": value}
        if isinstance(row, dict):
            rows.append((number, row))
        else:
            faults.add(f"{path}, line {number}", "expected an object with 'file_name' and 'objects'")
    return rows
