"""YOLO folders: a text file of labels for each image, and `data.yaml` with the classes and splits.

A line is `class x y w h`, center and size relative to the image, or `class x1 y1 x2 y2 …`, an outline relative to it;
classes count from 0. Labels lie beside the image, or in `labels/…` where the image lies in `images/…`. An image without
a file of labels is background.
"""

from collections.abc import Iterator
from pathlib import Path

from hf_detr_ft.data.formats.annotation_text import lines_of, load_text
from hf_detr_ft.data.formats.labelled import (
    Faults,
    LabelledImage,
    LabelledObject,
    OpenPhotos,
    Photos,
    Reading,
    finite,
    outline_box,
    read_splits,
)
from hf_detr_ft.data.formats.layout import Layout, Place
from hf_detr_ft.data.formats.yolo_folders import (
    MOST_BYTES,
    count_keypoint_values,
    label_name,
    load_names,
    names_of_split,
)
from hf_detr_ft.errors import DataError

REACH = 1.01
"""Largest relative coordinate; a little beyond the image's edge is rounding."""


def read_yolo(layout: Layout, open_photos: OpenPhotos = Photos) -> Reading:
    """The splits, and the names of all classes.

    Raises:
        DataError: lists what is wrong with the files.
    """
    names, keypoints = load_names(layout.classes), count_keypoint_values(layout.classes)

    def read(place: Place, photos: Photos, faults: Faults) -> list[LabelledImage]:
        images = []
        for image in names_of_split(place, photos, faults):
            with faults.at(image):
                size, labels = photos.size(image), _labels_file(place.images_dir / image)
                objects = _read_labels(labels, size, names, keypoints, faults) if labels.exists() else []
                images.append(LabelledImage(image, size, objects))
        return images

    splits = read_splits(layout, open_photos, read)
    if names:
        return splits, names
    numbers = {int(thing.name) for split in splits.values() for image in split.images for thing in image.objects}
    return splits, [str(index) for index in range(max(numbers, default=-1) + 1)]


def _labels_file(image: Path) -> Path:
    labels, beside = Path(label_name(image.as_posix())).with_suffix(".txt"), image.with_suffix(".txt")
    return labels if labels.exists() or not beside.exists() else beside  # where a folder above is called images


def _read_labels(
    path: Path, size: tuple[int, int], names: list[str], keypoints: int, faults: Faults
) -> list[LabelledObject]:
    """Objects of one file of labels."""
    objects = []
    for number, line in lines_of(load_text(path, MOST_BYTES)):
        with faults.at(f"{path}, line {number}"):
            index, box, polygons = parse_line(line, size, keypoints)
            if names and index >= len(names):
                raise DataError(f"expected a class from 0 to {len(names) - 1}, found {index}")
            objects.append(LabelledObject(names[index] if names else str(index), box, polygons))
    return objects


def parse_line(
    line: str, size: tuple[int, int], keypoints: int = 0
) -> tuple[int, list[float], list[list[float]] | None]:
    """Class, box xywh in pixels and outline of a line.

    Args:
        line: of a file of labels.
        size: (height, width) of the image.
        keypoints: values behind the box that are those of keypoints.

    Raises:
        DataError: it is no such line.
    """
    values = [finite(part) for part in line.split()]
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values) or not numbers or numbers[0] != int(numbers[0]) or not 0 <= numbers[0] < 10**6:
        raise DataError(f"expected a class's number, then numbers, found {line!r:.60}")
    index, places = int(numbers[0]), numbers[1:]
    if keypoints and len(places) == 4 + keypoints:
        places = places[:4]
    if len(places) == 5:
        raise DataError("expected class x y w h, found a sixth value: detections with a score are no labels")
    if len(places) < 4 or len(places) % 2:
        raise DataError(f"expected class x y w h, or an outline of three points or more, found {len(numbers)} values")
    if max(map(abs, places)) > REACH:
        raise DataError(f"expected numbers relative to the image, from 0 to 1, found {max(places, key=abs):g}")
    height, width = size
    if len(places) > 4:
        outline = [value * side for value, side in zip(places, _sides(width, height), strict=False)]
        return index, outline_box(outline), [outline]
    x, y, w, h = places
    if w < 0 or h < 0:
        raise DataError(f"expected width and height of 0 or more, found {w:g} and {h:g}")
    return index, [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height], None


def _sides(width: int, height: int) -> Iterator[int]:
    while True:
        yield from (width, height)
