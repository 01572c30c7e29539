"""Probes that ask a model which knows the data's classes what it sees in the images, and compare it with the labels."""

from dataclasses import replace

import numpy as np

from hf_detr_ft.data.class_names import map_classes
from hf_detr_ft.diagnosis.box_readings import ORDERS, TURNS
from hf_detr_ft.diagnosis.case import Case
from hf_detr_ft.diagnosis.finding import Finding
from hf_detr_ft.evaluation.confusion import confuse_classes
from hf_detr_ft.evaluation.matching import IOUS, MatchedDetections
from hf_detr_ft.evaluation.suspects import pairwise_iou
from hf_detr_ft.formatting import join_limited, percent, pluralize
from hf_detr_ft.model.checkpoint import Checkpoint, read_config
from hf_detr_ft.model.class_rows import match_names

IMAGES = 40
SEEN = 0.3
"""Score from which on a detection of a model that knows the class is taken seriously."""
SURE = 0.7
"""Score from which on detections that are nowhere labelled say that labels are elsewhere."""
FEW = 12
"""Objects below which nothing is concluded."""
CONSISTENT = 0.7
"""Share of a class's objects that are taken for one other class, where the classes are exchanged."""
ELSEWHERE, THERE = 0.3, 0.6
"""Share of the objects that are found where the labels have them: as written, at most; and read otherwise, at least."""


def contradicted_labels(case: Case) -> Finding | None:
    """Boxes or classes that the checkpoint contradicts, of classes that it knows by name already."""
    checkpoint = Checkpoint.from_config(case.recipe.model)
    if checkpoint is None or case.splits.pieces or checkpoint.revision is not None:
        return None
    known = list((read_config(checkpoint).id2label or {}).values())
    names = list(case.splits.label_map.names)
    same = match_names(known, names)
    if not same or len(set(known)) < len(known):
        return None
    source = case.sample("train", IMAGES)
    new_names = {name: known[same[label]] if label in same else None for label, name in enumerate(names)}
    coco = map_classes(source.coco, new_names)
    if sum(not entry.get("iscrowd") for entry in coco["annotations"]) < FEW:
        return None
    matched = case.evaluate(checkpoint.name, replace(source, coco=coco))
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    sizes_px = np.array([sizes[id_] for id_ in matched.truth.image_ids[matched.truth.image].tolist()], dtype=np.float64)
    who = f"'{checkpoint.name}', which knows {len(same)} of the {len(names)} classes,"
    return misplaced_boxes(matched, sizes_px, who) or exchanged_classes(matched, who)


def contradicted_validation(case: Case) -> Finding | None:
    """Validation objects that the run finds, and takes for other classes than the labels do."""
    return None if case.ap_50 is None else exchanged_classes(case.matched, "the run")


def exchanged_classes(matched: MatchedDetections, who: str) -> Finding | None:
    """Objects that are found where they are, and are of other classes than labelled."""
    confusion = confuse_classes(matched, SEEN)
    counts, names = confusion.counts[:-1, :-1], confusion.names
    found, right = int(counts.sum()), int(np.trace(counts))
    wrong_classes = int(((counts.sum(axis=1) - counts.diagonal()) > counts.diagonal()).sum())
    if found < FEW or right > found / 2 or wrong_classes < 2:
        return None
    taken = [
        (row, int(counts[row].argmax()))
        for row in range(len(names))
        if counts[row].sum() and counts[row].max() >= CONSISTENT * counts[row].sum()
    ]
    moved = [(row, column) for row, column in taken if row != column]
    evidence = (
        f"{who} finds {found} objects where the labels have them, and takes {found - right} of them for another class"
    )
    check = "look at them: hf-detr-ft check --model RUN draws what a model contradicts"
    if len(moved) < max(2, len(taken) / 2):
        return Finding(
            "class labels are shuffled: they contradict what is seen",
            f"{evidence}, not the same one each time",
            f"make the annotations anew from where they came; {check}",
            is_sure=False,
        )
    pairs = join_limited([f"labelled '{names[row]}', seen as '{names[column]}'" for row, column in moved], 5)
    shifts = {(column - row) % len(names) for row, column in moved}
    by_one = len(moved) > 2 and shifts in ({1}, {len(names) - 1})
    cause = "category ids are off by one: each class has its neighbour's name"
    return Finding(
        cause if by_one else "classes are exchanged: ids and names do not go together",
        f"{evidence}: {pairs}",
        f"correct 'categories', or category_id in the annotations; {check}",
        is_sure=False,
    )


def misplaced_boxes(matched: MatchedDetections, sizes_px: np.ndarray, who: str) -> Finding | None:
    """Boxes that lie where the model sees nothing, and would lie where it sees objects if they were read otherwise.

    Args:
        matched: objects and detections.
        sizes_px: (width, height) of each object's image, `[M, 2]`.
        who: the model, as the subject of a sentence.
    """
    boxes, seen = matched.truth.boxes_xywh_px, matched.predictions.score >= SEEN
    written = _share_seen(matched, boxes, seen)
    if written > ELSEWHERE or seen.sum() < FEW:
        return None
    shares = {name: _share_seen(matched, read(boxes, sizes_px), seen) for name, read in {**ORDERS, **TURNS}.items()}
    name = max(shares, key=lambda name: shares[name])
    evidence = (
        f"{who} finds {int(seen.sum())} objects with scores of {SEEN} or more; {percent(written)} of the "
        f"{pluralize(len(boxes), 'box')} are on one of them"
    )
    if shares[name] >= THERE:
        remedy = "write [left, top, width, height] in pixels" if name in ORDERS else "turn the boxes; see data.exif"
        return Finding(f"boxes look like {name}", f"{evidence}, read so {percent(shares[name])}", remedy, is_sure=False)
    if written > ELSEWHERE / 3 or (matched.predictions.score >= SURE).sum() < max(FEW, len(boxes) / 2):
        return None
    return Finding(
        "boxes are not where the objects are: they are of other images, or of another size of them",
        f"{evidence}, and {percent(shares[name])} at best with another order of their numbers or a turn of the photos",
        "look at them with `hf-detr-ft check --report`; give the images that were labelled",
        is_sure=False,
    )


def _share_seen(matched: MatchedDetections, boxes_xywh_px: np.ndarray, seen: np.ndarray) -> float:
    """Share of boxes, in the order of the objects, that one of some detections on their image is on."""
    truth, predictions = matched.truth, matched.predictions
    found = np.zeros(len(boxes_xywh_px), dtype=bool)
    for image in np.unique(truth.image):
        own = truth.image == image
        there = predictions.boxes_xywh_px[seen & (predictions.image == image)]
        found[own] = (pairwise_iou(boxes_xywh_px[own], there) >= IOUS[0]).any(axis=1)
    return float(found[~truth.crowd].mean())
