"""Probes of annotations and image files."""

from collections import Counter

import numpy as np

from hf_detr_ft.data.checks.box_checks import ROUNDING_PX
from hf_detr_ft.data.checks.image_checks import SWAP_SIZES
from hf_detr_ft.data.split_source import Source
from hf_detr_ft.diagnosis.box_readings import ORDERS
from hf_detr_ft.diagnosis.case import Case
from hf_detr_ft.diagnosis.finding import Finding
from hf_detr_ft.errors import InputError
from hf_detr_ft.formatting import join_limited, percent, pluralize

CAUSES = {
    "structure": "the annotation file is no COCO JSON",
    "no-images": "the annotation file names no images",
    "no-categories": "the annotation file has no categories",
    "images-folder": "the image folder cannot be read",
    "missing-image": "the images are not in the image folder: it is the wrong one, or the names are",
    "path-outside": "file names lead out of the image folder",
    "unreadable-image": "image files cannot be read",
    "no-annotations": "a split is empty: it has no objects",
    "unknown-image": "annotations are of images that the file does not list",
    "unknown-category": "annotations are of categories that the file does not list",
    "category-not-in-training": "validation has other categories than training",
    "category-renamed": "an id means one class in training and another in validation",
    "boxes-normalised": "boxes are normalised, not in pixels",
    "boxes-xyxy": "boxes are [x1, y1, x2, y2], written as [x, y, width, height]",
    "exif-rotation": "boxes were drawn on photos that EXIF had not turned",
    "image-size": "sizes in the annotations are not those of the images: boxes are of other images, or of other sizes",
    "box-outside": "boxes lie outside of their images",
}
"""Words for kinds of errors, the likeliest cause of the others first."""
MOST_CROWDS = 0.5
OF_BOXES = ("box-outside", "box-empty")
"""Kinds of errors that boxes have whose numbers are in another order."""
MATTERS = 0.1
"""Share of the objects, or of the boxes, below which something cannot be what keeps AP at 0."""
FITTING = 0.1
"""Share of the boxes out of their image that another order of their numbers may leave, to be the right one."""


def unreadable_data(case: Case) -> Finding | None:
    """Annotations that are not there, or cannot be read."""
    try:
        _ = case.problems
    except InputError as error:
        return Finding.of_error("the data cannot be read", error)
    return None


def ids_off_by_one(case: Case) -> Finding | None:
    """Ids of categories or images of which none, or not all, are listed, and all are one further."""
    for source in case.sources.values():
        for key, of in (("category_id", "categories"), ("image_id", "images")):
            listed, used = _ids(source, of, "id"), _ids(source, "annotations", key)
            for shift, way in ((1, "low"), (-1, "high")):
                if used - listed and {id_ + shift for id_ in used} <= listed:
                    return Finding(
                        f"{key} is off by one in the annotations: each is one too {way}",
                        f"{source.annotations}: {pluralize(len(used - listed), 'id')} of {len(used)} that annotations "
                        f"have as {key} ({join_limited(sorted(used - listed), 5)}) are not in '{of}' "
                        f"({join_limited(sorted(listed), 5)}); one further, all are",
                        f"{'add 1 to' if shift > 0 else 'take 1 from'} every {key}, or number '{of}' like them",
                    )
    return None


def _ids(source: Source, entries: str, key: str) -> set[int]:
    found = source.coco.get(entries)
    of_kind = (entry.get(key) for entry in found if isinstance(entry, dict)) if isinstance(found, list) else ()
    return {id_ for id_ in of_kind if type(id_) is int}


def data_errors(case: Case) -> Finding | None:
    """Errors of `check`, which stop a training: the kind that is likeliest the cause of the others."""
    errors = [problem for problem in case.problems if problem.severity == "error"]
    if not errors:
        return None
    counts = Counter(problem.kind for problem in errors)
    order = list(CAUSES)
    kind = min(counts, key=lambda kind: (order.index(kind) if kind in order else len(order), -counts[kind]))
    found = [problem for problem in errors if problem.kind == kind]
    first, cause = found[0], CAUSES.get(kind, f"the data have errors: {kind}")
    if kind == "image-size" and sum(problem.remedy.startswith(SWAP_SIZES) for problem in found) > len(found) / 2:
        cause = "width and height are swapped in the annotations"
    others = f"; `hf-detr-ft check` lists {pluralize(len(errors), 'error')} in all" if len(errors) > 1 else ""
    return Finding(
        cause, f"{pluralize(len(found), 'time')}: {first.file}: {first.entry}: {first.message}{others}", first.remedy
    )


def unlearned_classes(case: Case) -> Finding | None:
    """Classes that validation has objects of, and training none."""
    counts = {}
    for name, split in case.splits.statistics.items():
        counts[name] = dict(zip(split.label_map.names, split.objects_per_class.tolist(), strict=True))
    missing = {
        name: count for name, count in counts["validation"].items() if count and not counts["training"].get(name)
    }
    total = sum(counts["validation"].values())
    if sum(missing.values()) < MATTERS * total or not missing:
        return None
    listed = join_limited([f"'{name}' (0 in training, {count} in validation)" for name, count in missing.items()])
    return Finding(
        f"training has no objects of {'a class' if len(missing) == 1 else 'classes'} that validation measures: "
        f"{join_limited([repr(name) for name in missing], 5)}",
        f"objects of {listed}: {percent(sum(missing.values()) / total)} of validation can never be found",
        "label such objects in training images, or move some images; else leave it out: data.classes {name: null}",
    )


def box_order(case: Case) -> Finding | None:
    """Boxes that reach out of their images, and would not if their numbers meant something else."""
    if any(problem.severity == "error" and problem.kind not in OF_BOXES for problem in case.problems):
        return None
    source = case.sources["train"]
    sizes = {image["id"]: (image["width"], image["height"]) for image in source.coco["images"]}
    entries = [entry for entry in source.coco["annotations"] if not entry.get("iscrowd")]
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    sizes_px = np.array([sizes[entry["image_id"]] for entry in entries], dtype=np.float64).reshape(-1, 2)
    written = _share_outside(boxes, sizes_px)
    if written < MATTERS:
        return None
    shares = {name: _share_outside(read(boxes, sizes_px), sizes_px) for name, read in ORDERS.items()}
    name = min(shares, key=lambda name: shares[name])
    if shares[name] > FITTING * written:
        return None
    return Finding(
        f"boxes look like {name}, written as [x, y, width, height]",
        f"{source.annotations}: {percent(written)} of {pluralize(len(boxes), 'box')} reach out of their image as they "
        f"are; read as {name}, {percent(shares[name])} do",
        "write [left, top, width, height] in pixels",
        is_sure=False,
    )


def crowded_truth(case: Case) -> Finding | None:
    """Validation objects most of which are marked as crowd regions, which count neither as found nor as missed."""
    truth = case.sources["val"].coco["annotations"]
    crowds = sum(bool(entry.get("iscrowd")) for entry in truth)
    if crowds < MOST_CROWDS * len(truth):
        return None
    return Finding(
        "most validation objects are marked as crowd regions",
        f"{crowds} of {len(truth)} validation annotations have iscrowd 1: training and AP leave them out",
        "write iscrowd 0 where an annotation is one object",
    )


def _share_outside(boxes_xywh_px: np.ndarray, sizes_px: np.ndarray) -> float:
    """Share of boxes that are none, or reach out of their image of (width, height) by more than rounding does."""
    left_top, right_bottom = boxes_xywh_px[:, :2], boxes_xywh_px[:, :2] + boxes_xywh_px[:, 2:]
    inside = (left_top >= -ROUNDING_PX) & (right_bottom <= sizes_px + ROUNDING_PX) & (right_bottom > left_top)
    return float((~inside.all(axis=1)).mean()) if len(boxes_xywh_px) else 0.0
