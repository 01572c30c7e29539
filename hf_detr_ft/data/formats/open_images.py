"""Open Images: tables of boxes relative to the image, and a list of what its labels mean."""

from pathlib import Path

from hf_detr_ft.data.formats.csv_table import Table, load_head, load_table
from hf_detr_ft.data.formats.labelled import (
    Faults,
    LabelledImage,
    LabelledObject,
    OpenPhotos,
    Photos,
    Reading,
    class_name,
    corners_box,
    finite,
    read_splits,
)
from hf_detr_ft.data.formats.layout import Layout, Place, Tree, group_by_split, read_head
from hf_detr_ft.errors import DataError

COLUMNS = ("imageid", "labelname", "xmin", "ymin", "xmax", "ymax")


def find_open_images(tree: Tree) -> Layout | None:
    """The splits of a folder with tables of Open Images."""
    tables = tree.named(".csv")
    files = [name for name in tables if set(COLUMNS) <= set(load_head(tree.root / name).heading)]
    if not files:
        return None
    classes = next((tree.root / name for name in tables if read_head(tree.root / name, 3) in (b"/m/", b"/g/")), None)
    splits = {}
    for split, name in group_by_split(files, tree.root).items():
        heading, rows, _ = load_head(tree.root / name)
        stems = [cells[heading.index("imageid")] for _, cells in rows[:5] if len(cells) == len(heading)]
        samples = [image.rpartition("/")[2] for image in tree.images if Path(image).stem in stems]
        splits[split] = Place(tree.root / name, tree.images_folder(name, split, samples))
    return Layout("openimages", splits, f"{files[0]} has the columns of Open Images", classes)


def read_open_images(layout: Layout, open_photos: OpenPhotos = Photos) -> Reading:
    """The splits; boxes around groups are crowd.

    Raises:
        DataError: lists what is wrong with the files.
    """
    labels = {} if layout.classes is None else _read_classes(layout.classes)

    def read(place: Place, photos: Photos, faults: Faults) -> list[LabelledImage]:
        table = load_table(place.annotations)
        if not set(COLUMNS) <= set(table.heading):
            found = f"{', '.join(table.heading):.200}"
            raise DataError(f"{place.annotations}: expected the columns {', '.join(COLUMNS)}, found {found}")
        return _read_rows(table, place.annotations, photos, labels, faults)

    return read_splits(layout, open_photos, read), None


def _read_classes(path: Path) -> dict[str, str]:
    table = load_table(path, may_have_heading=False)
    return {cells[0]: cells[1] for _, cells in table.rows if len(cells) > 1 and cells[1]}


def _read_rows(table: Table, path: Path, photos: Photos, labels: dict[str, str], faults: Faults) -> list[LabelledImage]:
    image_id, label, *box = map(table.heading.index, COLUMNS)
    group = table.heading.index("isgroupof") if "isgroupof" in table.heading else None
    images: dict[str, LabelledImage] = {}
    for number, cells in table.rows:
        with faults.at(f"{path}, line {number}"):
            if len(cells) < len(table.heading):
                raise DataError(f"expected {len(table.heading)} cells, found {len(cells)}")
            name = cells[image_id]
            if name not in images:
                file_name = photos.find(name)
                images[name] = LabelledImage(file_name, photos.size(file_name), [])
            if any(cells[place] for place in box):
                crowd = group is not None and cells[group] == "1"
                images[name].objects.append(_read_object(cells, label, box, images[name].size, labels, crowd))
    return list(images.values())


def _read_object(
    cells: list[str], label: int, box: list[int], size: tuple[int, int], labels: dict[str, str], crowd: bool
) -> LabelledObject:
    values = [finite(cells[place]) for place in box]
    if any(value is None or not -0.01 <= value <= 1.01 for value in values):
        raise DataError(f"expected corners relative to the image, from 0 to 1, found {[cells[at] for at in box]!r:.80}")
    sides = (size[1], size[0]) * 2
    corners = [value * side for value, side in zip(values, sides, strict=True) if value is not None]
    return LabelledObject(class_name(labels.get(cells[label], cells[label])), corners_box(corners), None, crowd)
