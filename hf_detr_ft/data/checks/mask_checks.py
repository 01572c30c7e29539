"""Checks of masks, where a mask head is to learn them: every object has one, of its image's size."""

from hf_detr_ft.data.checks.annotation_fields import Entry
from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.segmentation_area import segmentation_fault

REMEDY = "outline the object, or remove the annotation; boxes alone need no masks (model.masks: false)"


def check_masks(annotations: list[Entry], sizes: dict[int, tuple[int, int]], file: str) -> list[Problem]:
    """Finds annotations without a mask, crowd regions among them, and run lengths of another size than their image.

    Args:
        annotations: all of the file's.
        sizes: image id to (width, height), of those images where both are known.
        file: the file's name.
    """
    problems = []
    for entry in annotations:
        outline = entry.fields.get("segmentation")
        size = sizes.get(entry.fields.get("image_id", -1))
        if not outline:
            found: str | None = "none"
        elif (fault := segmentation_fault(outline)) is not None:
            found = f"one that {fault}"
        elif isinstance(outline, dict) and size is not None and outline["size"] != [size[1], size[0]]:
            height, width = outline["size"]
            found = f"run lengths of {width}x{height} pixels on the {size[0]}x{size[1]} image"
        else:
            found = None
        if found is not None:
            message = f"expected a mask, 'segmentation' as polygons or RLE, found {found}"
            problems.append(Problem("error", "mask", file, entry.name, message, REMEDY))
    return problems
