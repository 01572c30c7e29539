"""Files that are given as COCO JSON and are something else: what they look like, and the remedy."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EXPORT_REMEDY = "export it as COCO JSON from the tool that made it"
FOLDER_REMEDY = f"name its folder alone, as data.root, or {EXPORT_REMEDY}"
FETCH_REMEDY = "copy or download it again"


def describe_text(text: str, error: json.JSONDecodeError) -> str:
    """Names what a text that is no JSON looks like, with the remedy.

    Args:
        text: the whole file.
        error: where parsing it stopped.
    """
    where = f"line {error.lineno}, column {error.colno}"
    first = text.lstrip().split("\n", 1)[0].strip()
    if not first:
        return f"found an empty file; {FETCH_REMEDY}"
    if first.startswith("version https://git-lfs"):
        return "found a Git LFS pointer; fetch the file itself with `git lfs pull`"
    if first.startswith("<"):
        return f"found XML or HTML (Pascal VOC, or a download that failed); {FOLDER_REMEDY}"
    if re.match(r"\d+(\s+-?[\d.]+(e-?\d+)?){4}(\s|$)", first):
        return f"found lines like {first[:60]!r}: a YOLO label file; {FOLDER_REMEDY}"
    if first.startswith("{") and error.msg == "Extra data":
        return f"found more after the first value ({where}), as in JSON Lines; {EXPORT_REMEDY}"
    # A cut inside a string, an escape, a number or `true` leaves at most its beginning behind the error's position.
    rest = text[error.pos :].rstrip()
    if error.msg != "Extra data" and (error.msg.startswith("Unterminated") or re.fullmatch(r"[\\\w.+-]*", rest)):
        return f"found a file that ends in the middle ({where}): it is truncated; {FETCH_REMEDY}"
    return f"found a mistake at {where} ({error.msg}); correct it there, or export the file again"


def structure_faults(coco: object) -> list[str]:
    """Lists what keeps a parsed JSON from being a COCO detection file; the entries of its lists are not looked at."""
    if not isinstance(coco, dict):
        return [f"the top level is {_type_name(coco)}, not an object"]
    faults = []
    for key in ("images", "annotations", "categories"):
        if key not in coco:
            faults.append(f"no {key!r}")
        elif not isinstance(coco[key], list):
            faults.append(f"{key!r} is {_type_name(coco[key])}, not a list")
    return faults


def _type_name(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def describe_json(value: object, path: Path) -> tuple[str, str]:
    """Names what a JSON that is not COCO looks like, and the remedy."""
    if isinstance(value, list):
        return _describe_list(value)
    if not isinstance(value, dict):
        return "a single value", EXPORT_REMEDY
    regions = [entry for entry in value.values() if isinstance(entry, dict) and {"filename", "regions"} <= entry.keys()]
    if "_via_img_metadata" in value or regions:
        kind = "a VIA 2 project" if "_via_img_metadata" in value else "a VIA 1 or VIA 2 export"
        return kind, f"convert it with `hf-detr-ft convert via {path} {path.stem}_coco.json`"
    if "shapes" in value and "imagePath" in value:
        return "a labelme file (one image)", f"{FOLDER_REMEDY}, all images in one file"
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(value.get(key), list)]
    if len(missing) < 3:
        return "an incomplete COCO file", f"add {', '.join(map(repr, missing))}, each a list"
    keys = ", ".join(repr(key[:40]) for key in list(value)[:5])
    return f"an object with the keys {keys}" if keys else "an empty object", EXPORT_REMEDY


def _describe_list(value: Sequence[Any]) -> tuple[str, str]:
    keys: set[str] = set(value[0]) if value and isinstance(value[0], dict) else set()
    if {"image_id", "category_id", "score"} <= keys:
        return "a COCO results list (detections)", "give the annotations that the detections are to be compared with"
    if {"image_id", "bbox"} <= keys:
        return "a bare list of annotations", "put it under 'annotations', beside 'images' and 'categories'"
    if {"file_name"} <= keys:
        return "a bare list of images", "put it under 'images', beside 'annotations' and 'categories'"
    if {"image", "annotations"} <= keys:
        return "a CreateML file", FOLDER_REMEDY
    return "a bare list", EXPORT_REMEDY
