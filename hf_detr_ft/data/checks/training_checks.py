"""Checks that `check` makes beyond errors: what is twice, or hard to learn, to measure or to hold in memory."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hf_detr_ft.data.checks.annotation_fields import Entries, Entry
from hf_detr_ft.data.checks.near_duplicates import ALIKE, COMMON, describe_changes, find_alike
from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.data.image_size import ImageSize
from hf_detr_ft.formatting import join_limited, pluralize
from hf_detr_ft.plain_files import total_memory

TWICE = 0.95
"""IoU from which on two boxes of one class are one object that was drawn twice."""
LONG = 20
"""Ratio of a box's sides from which on it is hardly an object."""
FEW_OBJECTS = 10
"""Objects of a class below which it can hardly be learned."""
POINTS = 0.02
"""Difference in AP that a validation split should be able to tell."""
BYTES_A_PIXEL = 15
"""Memory of an image while it is read: RGB of 8 bits, and a copy of floats."""
SHARE_OF_MEMORY = 0.25
"""Share of the machine's memory that one image may take."""
EXAMPLES = 3


class Grid(NamedTuple):
    """Resolution that a model sees: the size that images are resized to, and the stride of its finest feature map."""

    size: ImageSize
    stride: int


def check_for_training(entries: Entries, file: str, grid: Grid | None, *, for_training: bool) -> list[Problem]:
    """Finds boxes drawn twice, too small, or too long, images too large, classes alike in name, or of few objects.

    Args:
        entries: of one split.
        file: the annotation file, for the messages.
        grid: that the model sees; None to leave small objects out.
        for_training: the split that is learned from.
    """
    objects = [
        entry
        for entry in entries.annotations
        if {"id", "bbox", "image_id", "category_id"} <= entry.fields.keys() and not entry.fields.get("iscrowd")
    ]
    boxes_xywh_px = np.array([entry.fields["bbox"] for entry in objects], dtype=np.float64).reshape(-1, 4)
    found = (boxes_xywh_px[:, 2:] > 0).all(axis=1)
    objects, boxes_xywh_px = [objects[place] for place in np.flatnonzero(found)], boxes_xywh_px[found]
    sizes = {
        image.fields["id"]: (image.fields["height"], image.fields["width"])
        for image in entries.images
        if {"id", "width", "height"} <= image.fields.keys()
    }
    return [
        *_check_twice(objects, boxes_xywh_px, file),
        *_check_long(objects, boxes_xywh_px, file),
        *(_check_small(objects, boxes_xywh_px, sizes, grid, file) if grid is not None else ()),
        *_check_memory(entries.images, file),
        *_check_names(entries.categories, file),
        *(_check_few(entries, file) if for_training else ()),
    ]


def _check_twice(objects: list[Entry], boxes_xywh_px: np.ndarray, file: str) -> list[Problem]:
    problems = dict[int, Problem]()
    remedy = "remove one of them: the model would be taught to find it twice, and AP counts the other as missed"
    for one, other, iou in sorted(find_twice(objects, boxes_xywh_px), key=lambda pair: -pair[2]):
        first, second = sorted((objects[one], objects[other]), key=lambda entry: entry.place)
        message = f"expected a box of its own, found that of annotation id {first.fields['id']} (IoU {iou:.2f})"
        problems.setdefault(second.place, Problem("warning", "box-twice", file, second.name, message, remedy))
    return list(problems.values())


def find_twice(objects: Sequence[Entry], boxes_xywh_px: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs of objects of one image and class whose boxes are all but one: their positions, and the IoU.

    Sorted by their left sides, those that can overlap so much are neighbours: comparing each with the next, the one
    behind that and so on ends soon, whatever the number of objects.
    """
    group = np.array([(entry.fields["image_id"], entry.fields["category_id"]) for entry in objects]).reshape(-1, 2)
    order = np.lexsort((boxes_xywh_px[:, 0], *group.T))
    group, boxes = group[order], boxes_xywh_px[order]
    left, top, width, height = boxes.T
    found = []
    alive = np.arange(len(order))
    for step in range(1, len(order)):
        alive = alive[alive + step < len(order)]
        other = alive + step
        near = (group[alive] == group[other]).all(axis=1)
        near &= left[other] - left[alive] <= (1 / TWICE - 1) * width[alive]
        alive, other = alive[near], other[near]
        if not len(alive):
            break
        across = np.minimum((left + width)[alive], (left + width)[other]) - np.maximum(left[alive], left[other])
        down = np.minimum((top + height)[alive], (top + height)[other]) - np.maximum(top[alive], top[other])
        overlap = across.clip(0) * down.clip(0)
        iou = overlap / ((width * height)[alive] + (width * height)[other] - overlap)
        for place in np.flatnonzero(iou >= TWICE):
            found.append((int(order[alive[place]]), int(order[other[place]]), float(iou[place])))
    return found


def _check_long(objects: list[Entry], boxes_xywh_px: np.ndarray, file: str) -> list[Problem]:
    ratios = boxes_xywh_px[:, 2:].max(axis=1, initial=0) / boxes_xywh_px[:, 2:].min(axis=1, initial=np.inf)
    problems = []
    for place in np.argsort(-ratios, kind="stable")[: int((ratios >= LONG).sum())].tolist():
        w, h = (f"{side:g}" for side in objects[place].fields["bbox"][2:])
        message = f"expected sides of like length, found {w} x {h} pixels, {ratios[place]:.0f} to 1"
        remedy = "correct it where a click slipped; a model hardly learns such boxes"
        problems.append(Problem("warning", "box-long", file, objects[place].name, message, remedy))
    return problems


def _check_small(
    objects: list[Entry], boxes_xywh_px: np.ndarray, sizes: Mapping[int, tuple[int, int]], grid: Grid, file: str
) -> list[Problem]:
    """Says in one warning how many objects are smaller than a cell of the feature map, for of COCO's it is a tenth."""
    known = [place for place, entry in enumerate(objects) if entry.fields["image_id"] in sizes]
    original = np.array([sizes[objects[place].fields["image_id"]] for place in known], dtype=np.int64).reshape(-1, 2)
    scale = grid.size.of_each(original) / original
    sides = boxes_xywh_px[known][:, [3, 2]] * scale
    longest = sides.max(axis=1, initial=0)
    small = np.flatnonzero(longest < grid.stride)
    if not len(small):
        return []
    worst = small[np.argsort(longest[small], kind="stable")[:EXAMPLES]]
    examples = join_limited([f"{objects[known[i]].name} with {longest[i]:.1f}" for i in worst.tolist()], EXAMPLES)
    message = (
        f"expected objects of at least a cell of the feature map, {grid.stride} pixels of the resized image, found "
        f"{len(small)} of {len(objects)} whose longer side is less; the smallest: {examples}"
    )
    remedy = "raise model.shortest_edge, cut the images into tiles, or take a model of finer maps"
    return [Problem("warning", "small-objects", file, "annotations", message, remedy, len(small))]


def _check_memory(images: list[Entry], file: str) -> list[Problem]:
    memory = total_memory()
    problems = []
    for image in images:
        pixels = image.fields.get("width", 0) * image.fields.get("height", 0)
        if pixels * BYTES_A_PIXEL > SHARE_OF_MEMORY * memory:
            message = (
                f"expected an image that takes at most {SHARE_OF_MEMORY:.0%} of this machine's memory, found "
                f"{pixels / 1e6:,.0f} million pixels, which take {pixels * BYTES_A_PIXEL / 1e9:.1f} GB while it is read"
            )
            problems.append(
                Problem("warning", "huge-image", file, image.name, message, "cut it into tiles, or shrink it")
            )
    return problems


def _check_names(categories: list[Entry], file: str) -> list[Problem]:
    problems = []
    first: dict[str, Entry] = {}
    for category in categories:
        name = category.fields.get("name")
        if name is None:
            continue
        like = first.setdefault(plain_name(name), category)
        other = like.fields["name"]
        if other != name:
            message = f"expected a name of its own, found one that differs from {other!r} in case or spaces only"
            remedy = f"merge them where they are one class: --data.classes {{{name}: {other}}}"
            problems.append(Problem("warning", "category-alike", file, category.name, message, remedy))
    return problems


def plain_name(name: str) -> str:
    """A class's name without what people spell differently: case and spaces."""
    return "".join(name.casefold().split())


def _check_few(entries: Entries, file: str) -> list[Problem]:
    counts = entries.count_by_category(crowd=False)
    few = [
        (counts[category.fields["id"]], repr(category.fields.get("name", category.fields["id"])))
        for category in entries.categories
        if "id" in category.fields and 0 < counts[category.fields["id"]] < FEW_OBJECTS
    ]
    if not few:
        return []
    listed = join_limited([f"{name} {count}" for count, name in sorted(few)], 10)
    message = f"expected at least {FEW_OBJECTS} objects of every class, found fewer of {len(few)}: {listed}"
    remedy = "label more, merge or leave them out (data.classes), or show them more often (data.balance)"
    return [Problem("warning", "few-objects", file, "categories", message, remedy, len(few))]


def check_measure(val: Entries, file: str) -> list[Problem]:
    """Warns of a validation split that cannot tell 2 points of AP apart.

    A share of N objects, which a recall is, is known to about 1 / sqrt(N) with 95 % confidence; AP, a mean of such
    shares, to about as much.
    """
    objects = sum(val.count_by_category(crowd=False).values())
    needed = round(POINTS**-2)
    if not 0 < objects < needed:
        return []
    message = (
        f"expected about {needed:,} objects, with which 2 points of AP can be told apart, found "
        f"{pluralize(objects, 'object')}: AP is known to about {100 / objects**0.5:.0f} points (1 / sqrt(objects))"
    )
    remedy = "compare means over several seeds or folds (data.folds), or validate on more photos"
    return [Problem("warning", "small-validation", file, "annotations", message, remedy)]


def check_alike(
    train: Mapping[int, np.ndarray], val: Mapping[int, np.ndarray], entries: tuple[Entries, Entries], file: str
) -> list[Problem]:
    """Finds photos of another split that are near-duplicates of training's.

    Args:
        train: thumbnail of each training image, by its place in the entries.
        val: likewise, of the other split.
        entries: of both.
        file: the other split's annotation file.
    """
    ours, theirs = list(val), list(train)
    described, others = (describe_changes(list(thumbnails.values())) for thumbnails in (val, train))
    best: dict[int, tuple[float, int]] = {}
    for one, other, cosine in find_alike(described, others):
        best[one] = max(best.get(one, (0.0, 0)), (cosine, other))
    for least in ALIKE:
        if len(best) > COMMON * len(val):
            best = {one: twin for one, twin in best.items() if twin[0] >= least}
    problems = []
    remedy = "remove it from one of them: AP on photos that were trained on says nothing about new ones"
    for one, (cosine, other) in sorted(best.items(), key=lambda item: -item[1][0]):
        twin = entries[0].images[theirs[other]].name
        message = f"expected a photo unlike those of training, found a near-duplicate of {twin} (likeness {cosine:.2f})"
        problems.append(Problem("warning", "near-duplicate", file, entries[1].images[ours[one]].name, message, remedy))
    return problems
