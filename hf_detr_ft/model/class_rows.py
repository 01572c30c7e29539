"""Rows of a checkpoint's class heads for classes that the new data have, too, by name."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

SYNONYMS = (
    ("person", "people", "pedestrian", "human", "man", "woman", "child"),
    ("car", "automobile"),
    ("bicycle", "bike", "cycle"),
    ("motorcycle", "motorbike"),
    ("airplane", "aeroplane", "plane", "aircraft"),
    ("boat", "ship", "vessel"),
    ("truck", "lorry"),
    ("couch", "sofa"),
    ("tv", "television", "tvmonitor", "monitor"),
    ("cell phone", "mobile phone", "smartphone", "phone"),
    ("dining table", "table"),
    ("potted plant", "plant"),
    ("donut", "doughnut"),
    ("cup", "mug"),
    ("mouse", "computer mouse"),
    ("sports ball", "ball"),
)
"""Names for one class: COCO's, and those of other data sets."""
_PLURALS = (
    *(("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("sses", "ss"), ("uses", "us"), ("ves", "fe")),
    *(("ss", "ss"), ("us", "us"), ("s", "")),
)


def match_names(old: Sequence[str], new: Sequence[str]) -> dict[int, int]:
    """Old labels of new ones that mean the same; a class is taken for several only where nothing else is as near.

    First names that are equal, then those that differ in case, spaces, hyphens and underscores, then singular and
    plural, then `SYNONYMS`.
    """
    found: dict[int, int] = {}
    for form in (str, _plain, _singular, _synonym):
        places: dict[str, int] = {}
        for label, name in enumerate(old):
            places.setdefault(form(name), label)
        for label, name in enumerate(new):
            if label not in found and form(name) in places:
                found[label] = places[form(name)]
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def _singular(name: str) -> str:
    name = _plain(name)
    for ending, singular in _PLURALS:
        if name.endswith(ending) and len(name) > len(ending):
            return name.removesuffix(ending) + singular
    return name


def _synonym(name: str) -> str:
    singular = _singular(name)
    return {_plain(each): group[0] for group in SYNONYMS for each in group}.get(singular, singular)


@torch.no_grad()
def copy_rows(model: Any, learned: Any, labels: Mapping[int, int]) -> None:
    """Gives a model the rows of another one's class heads, in place, for labels that mean the same.

    Where the heads have a row more than classes, for "no object" or the padding of labels, this is copied as well:
    scores are a class's against it.

    Args:
        model: of the new classes.
        learned: of the same family, with classes of its own.
        labels: old ones of new ones, see `match_names`.
    """
    new, old = list(labels), list(labels.values())
    classes = (model.config.num_labels, learned.config.num_labels)
    for name, tensor in learned.named_parameters():
        if not name.startswith(model.family.class_heads):
            continue
        own, extra = model.get_parameter(name), len(tensor) - classes[1]
        if len(own) - classes[0] != extra or extra not in (0, 1):
            raise ValueError(f"{name}: expected rows for {classes}, found {len(own)} and {len(tensor)}")
        own[new] = tensor[old]
        if extra:
            own[-1] = tensor[-1]
