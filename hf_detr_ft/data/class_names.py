"""Classes of a data set merged, renamed and left out, as `data.classes` says."""

from collections.abc import Mapping
from typing import Any

from hf_detr_ft.errors import DataError
from hf_detr_ft.formatting import did_you_mean, join_limited


def map_classes(coco: dict[str, Any], names: Mapping[str, str | None]) -> dict[str, Any]:
    """The COCO dict with its categories under new names.

    Categories of one name become one, with the id of the one that had this name before, else the lowest; those of name
    None go with their annotations. Categories that are not named stay as they are. What is no category, or annotates
    none, stays for the checks to find.

    Args:
        coco: as `read_coco` returns it; left as it is.
        names: new name, or None, by old name.
    """
    known = [entry for entry in coco["categories"] if _is_category(entry)]
    new_names = {entry["id"]: names.get(entry["name"], entry["name"]) for entry in known}
    ids: dict[str | None, int] = {}
    for entry in sorted(known, key=lambda entry: (entry["name"] != new_names[entry["id"]], entry["id"])):
        ids.setdefault(new_names[entry["id"]], entry["id"])
    gone = {id_ for id_, name in new_names.items() if name is None}
    moved = {id_: ids[name] for id_, name in new_names.items()}
    categories = [
        {**entry, "name": new_names[entry["id"]]} if _is_category(entry) else entry
        for entry in coco["categories"]
        if not _is_category(entry) or (entry["id"] not in gone and moved[entry["id"]] == entry["id"])
    ]
    annotations = []
    for annotation in coco["annotations"]:
        id_ = annotation.get("category_id") if isinstance(annotation, dict) else None
        if type(id_) is not int or id_ not in moved:
            annotations.append(annotation)
        elif id_ not in gone:
            annotations.append(annotation if moved[id_] == id_ else {**annotation, "category_id": moved[id_]})
    return {**coco, "categories": categories, "annotations": annotations}


def require_classes(coco: dict[str, Any], names: Mapping[str, str | None], file: str) -> None:
    """Makes sure that all classes to be renamed are there, and one is left.

    Raises:
        DataError: they are not.
    """
    known = [entry["name"] for entry in coco["categories"] if _is_category(entry)]
    unknown = [name for name in names if name not in known]
    if unknown:
        there, given = (join_limited([repr(name) for name in names_]) for names_ in (known, unknown))
        hint = did_you_mean(unknown[0], known)
        raise DataError(f"data.classes: expected classes of {file} ({there}), found {given}{hint}; correct them")
    if known and all(names.get(name, name) is None for name in known):
        raise DataError(f"data.classes: expected at least one class of {file} to stay, found none; leave one in")


def _is_category(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get("name"), str)
