"""Checks of categories: with objects to learn from and to measure by, and the same in both splits."""

from collections import Counter

from hf_detr_ft.data.checks.annotation_fields import Entries, Entry
from hf_detr_ft.data.checks.problems import Problem
from hf_detr_ft.formatting import join_limited

FEW_CROWDS = 0.1
"""Share of a category's annotations that are crowd regions in data sets that mean them, COCO for one."""
NAMED = 10
"""Categories that a line names before it only counts."""


def check_crowds(entries: Entries, file: str) -> list[Problem]:
    """Warns of each category with so many crowd regions that a tool has probably marked single objects as such."""
    every, crowds = entries.count_by_category(), entries.count_by_category(crowd=True)
    problems = []
    for category in entries.categories:
        id_ = category.fields.get("id")
        if crowds[id_] > FEW_CROWDS * every[id_]:
            message = (
                "expected few crowd regions (iscrowd 1: one outline around many objects), "
                f"found {crowds[id_]} of its {every[id_]} annotations"
            )
            remedy = (
                "training and AP leave them out; some tools write iscrowd 1 for every mask or brush stroke: write 0 "
                "where it is one object"
            )
            problems.append(Problem("warning", "crowd", file, category.name, message, remedy))
    return problems


def check_unused_categories(entries: Entries, file: str) -> list[Problem]:
    """Says in one warning which categories have no objects; crowd regions are none."""
    objects, crowds = entries.count_by_category(crowd=False), entries.count_by_category(crowd=True)
    unused = [category for category in entries.categories if "id" in category.fields and not _has(objects, category)]
    if not unused:
        return []
    regions = sum(crowds[category.fields["id"]] for category in unused)
    found = f"none but {regions} crowd regions" if regions else "none"
    if len(unused) > 1:
        found += f" of {len(unused)} categories: {_list(unused)}"
    remedy = "remove it, or label objects: an unused class only takes part in the loss"
    message = f"expected objects of every category, found {found}"
    return [Problem("warning", "unused-category", file, _entry(unused), message, remedy)]


def compare_categories(train: Entries, val: Entries, file: str) -> list[Problem]:
    """Finds ids and names that differ between the splits, and says in one warning which classes have no AP.

    Args:
        train: entries of the training split.
        val: entries of the validation split.
        file: of the validation annotations, for the messages.
    """
    names = {c.fields["id"]: c.fields.get("name") for c in train.categories if "id" in c.fields}
    problems = []
    for category in val.categories:
        id_, name = category.fields.get("id"), category.fields.get("name")
        if id_ is None:
            continue
        if id_ not in names:
            elsewhere = next((str(other) for other, known in names.items() if name and known == name), None)
            hint = f"; training's {name!r} has id {elsewhere}" if elsewhere else ""
            message = f"expected a category of training ({', '.join(map(str, names))}), found id {id_}{hint}"
            remedy = "give both splits the same categories"
            problems.append(Problem("error", "category-not-in-training", file, category.name, message, remedy))
        elif None not in (name, names[id_]) and name != names[id_]:
            message = f"expected the name {names[id_]!r} as in training, found {name!r}"
            remedy = "give both splits the same ids and names"
            problems.append(Problem("error", "category-renamed", file, category.name, message, remedy))
    return problems + _check_measured(train, val, file)


def _check_measured(train: Entries, val: Entries, file: str) -> list[Problem]:
    """Says which classes training learns and validation has no objects of."""
    learned, measured = (entries.count_by_category(crowd=False) for entries in (train, val))
    unmeasured = [category for category in train.categories if _has(learned, category) and not _has(measured, category)]
    if not unmeasured:
        return []
    of = f" of {len(unmeasured)}: {_list(unmeasured)}" if len(unmeasured) > 1 else ""
    message = f"expected objects of every class that training has objects of, found none{of}"
    remedy = f"no AP can be measured for {'them' if of else 'it'}; move images with such objects here to have one"
    return [Problem("warning", "category-not-in-validation", file, _entry(unmeasured), message, remedy)]


def _has(counts: Counter[int | None], category: Entry) -> bool:
    return counts[category.fields.get("id")] > 0


def _entry(categories: list[Entry]) -> str:
    return categories[0].name if len(categories) == 1 else "categories"


def _list(categories: list[Entry]) -> str:
    return join_limited([repr(c.fields.get("name", c.fields["id"])) for c in categories], NAMED)
