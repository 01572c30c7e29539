"""Boxes that were drawn on photos as they are stored, turned as their EXIF orientation turns the photos."""

from collections import Counter
from pathlib import Path
from typing import Any

from hf_detr_ft.data.coco import leaves_folder
from hf_detr_ft.data.images import QUARTER_TURNS, read_frame
from hf_detr_ft.data.segmentation_area import is_number
from hf_detr_ft.errors import DataError
from hf_detr_ft.formatting import pluralize


def turn_coco(coco: dict[str, Any], images_dir: Path) -> tuple[dict[str, Any], list[str]]:
    """Turns sizes, boxes and outlines of the images that have an EXIF orientation.

    Args:
        coco: as `read_coco` returns it; left as it is.
        images_dir: the folder that `file_name` is relative to.

    Returns:
        The COCO dict, and what was turned, in words.
    """
    frames: dict[int, tuple[int, int, int]] = {}
    images = []
    for image in coco["images"]:
        frame = _frame(image, images_dir)
        if frame is not None and type(image.get("id")) is int:
            (height, width), orientation = frame
            frames[image["id"]] = (width, height, orientation)
            sides = (width, height) if orientation in QUARTER_TURNS else (height, width)
            image = {**image, "height": sides[0], "width": sides[1]}
        images.append(image)
    annotations = [_turn(entry, frames) for entry in coco["annotations"]]
    counts = Counter(orientation for _, _, orientation in frames.values())
    said = ", ".join(f"{count} of orientation {orientation}" for orientation, count in sorted(counts.items()))
    note = f"boxes of {pluralize(len(frames), 'image')} were turned with the photos ({said})"
    return {**coco, "images": images, "annotations": annotations}, [note] if frames else []


def _frame(image: Any, images_dir: Path) -> tuple[tuple[int, int], int] | None:
    """Stored size (height, width) and orientation of an entry's image; None where nothing turns it."""
    name = image.get("file_name") if isinstance(image, dict) else None
    if not isinstance(name, str) or not name or leaves_folder(name) or "\0" in name:
        return None
    try:
        size, orientation = read_frame(images_dir / name)
    except DataError:  # the check of the images says it
        return None
    return (size, orientation) if 2 <= orientation <= 8 else None


def _turn(entry: Any, frames: dict[int, tuple[int, int, int]]) -> Any:
    image_id = entry.get("image_id") if isinstance(entry, dict) else None
    frame = frames.get(image_id) if type(image_id) is int else None
    if frame is None:
        return entry
    box, outlines = entry.get("bbox"), entry.get("segmentation")
    if isinstance(box, list) and len(box) == 4 and all(map(is_number, box)):
        corners = [turn_point(*point, *frame) for point in ((box[0], box[1]), (box[0] + box[2], box[1] + box[3]))]
        left, top = min(corners[0][0], corners[1][0]), min(corners[0][1], corners[1][1])
        entry = {**entry, "bbox": [left, top, *(abs(a - b) for a, b in zip(*corners, strict=True))]}
    if isinstance(outlines, list):
        entry = {**entry, "segmentation": [_turn_outline(outline, frame) for outline in outlines]}
    return entry


def _turn_outline(outline: Any, frame: tuple[int, int, int]) -> Any:
    if not isinstance(outline, list) or len(outline) % 2 or not all(map(is_number, outline)):
        return outline
    points = zip(outline[0::2], outline[1::2], strict=True)
    return [value for point in points for value in turn_point(*point, *frame)]


def turn_point(x: float, y: float, width: int, height: int, orientation: int) -> tuple[float, float]:
    """A point of the stored pixels where the upright image has it.

    Args:
        x: from the left edge of the stored pixels.
        y: from their upper edge.
        width: of the stored pixels.
        height: of the stored pixels.
        orientation: of EXIF, 1 to 8.
    """
    right, below = width - x, height - y
    turned = {
        2: (right, y),
        3: (right, below),
        4: (x, below),
        5: (y, x),
        6: (below, x),
        7: (below, right),
        8: (y, right),
    }
    return turned.get(orientation, (x, y))
